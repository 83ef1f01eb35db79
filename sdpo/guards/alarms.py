"""Which rules watch a run? Each is a fold: fed with what a run recorded, it stands where it stood in that run.

Each file has one kind of rule: ``drift.py`` (against the start), ``progress.py`` (against the best), ``setup.py`` (whether
there is anything to learn). docs/guards.md has them in a table, with thresholds and reasons.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from sdpo.config import AlgorithmConfig, Guard, GuardsConfig
from sdpo.guards.drift import Divergence, Entropy, Length, Variety
from sdpo.guards.progress import Heldout, Success
from sdpo.guards.setup import Credit, Lift, Mismatch, NoHint, NoSamples
from sdpo.types import Metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """Something that should not have happened."""

    guard: Guard
    step: int
    sentence: str
    """What was expected, what was found, and what to do."""


class Rule(Protocol):
    """Looks at one set of metrics after the other."""

    def check(self, metrics: Metrics) -> str | None:
        """The alarm's sentence, where there is one."""
        ...


def step_rules(config: GuardsConfig, algorithm: AlgorithmConfig) -> Mapping[Guard, Rule]:
    """The rules over a step's metrics."""
    rules: dict[Guard, Rule] = {
        Guard.length: Length(config),
        Guard.entropy: Entropy(config),
        Guard.variety: Variety(config),
        Guard.no_samples: NoSamples(config),
        Guard.credit: Credit(config),
        Guard.divergence: Divergence(config),
        Guard.success: Success(config),
        Guard.mismatch: Mismatch(config),
    }
    if algorithm.hints is not None:
        rules[Guard.no_hint] = NoHint(config)
    return rules


def evaluation_rules(config: GuardsConfig) -> Mapping[Guard, Rule]:
    """The rules over an evaluation's metrics."""
    return {Guard.lift: Lift(config), Guard.heldout: Heldout(config)}
