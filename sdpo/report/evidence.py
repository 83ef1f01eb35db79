"""What can be said of where a run's time went: the shares that the rules of ``advice.py`` look at.

Each takes the evidence and gives a share, or None where the question does not arise or the run did not record enough.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sdpo.config.native import native_dtype
from sdpo.report.phases import Phase, StepTimes, typical
from sdpo.types import Metrics

LEARNING = (Phase.teacher, Phase.student, Phase.optimizer, Phase.learn)
_GPUS = ("dev/nvidiactl", "dev/kfd")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What computes."""

    has_gpu: bool
    has_bf16: bool
    """Whether it multiplies bf16 numbers by itself."""

    @staticmethod
    def here(root: Path = Path("/")) -> Machine:
        """This one, as far as its file system tells."""
        has_gpu = any((root / device).exists() for device in _GPUS)
        return Machine(has_gpu=has_gpu, has_bf16=native_dtype(None, root) == "bfloat16")


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What rules look at."""

    times: StepTimes
    rows: Sequence[Metrics]
    evaluations: Sequence[Metrics]
    """Evaluations."""
    config: Mapping[str, object]
    """Flat; keys may be missing in an older run."""
    machine: Machine

    def number(self, key: str) -> float | None:
        """A config value, where it is a number."""
        value = self.config.get(key)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

    def is_set(self, key: str, *values: object) -> bool:
        return self.config.get(key) in values


Share = Callable[[Evidence], float | None]


def of_step(*phases: Phase) -> Share:
    return lambda evidence: evidence.times.share(*phases)


def where(condition: Callable[[Evidence], bool], share: Share) -> Share:
    return lambda evidence: share(evidence) if condition(evidence) else None


def part(part: Phase, whole: Sequence[Phase]) -> Share:
    """One phase's share of some."""

    def share(evidence: Evidence) -> float | None:
        seconds = evidence.times.seconds
        total = sum(seconds.get(phase, 0.0) for phase in whole)
        return seconds[part] / total if part in seconds and total > 0.0 else None

    return share


def is_on_policy(evidence: Evidence) -> bool:
    return evidence.number("rollout.staleness") in (0.0, None)


def is_colocated(evidence: Evidence) -> bool:
    return evidence.is_set("cluster.placement", "colocated")


def waiting_attempts(evidence: Evidence) -> float | None:
    """Share of a step's attempts for which no engine has room at the start."""
    attempts = typical(evidence.rows, "attempts")
    num_engines, room = evidence.number("rollout.num_engines"), evidence.number("rollout.max_num_seqs")
    if not attempts or num_engines is None or room is None:
        return None
    return max(0.0, 1.0 - num_engines * room / attempts)


def small_passes(evidence: Evidence) -> float | None:
    """The learner's share of the step, where an update is many forward passes of few tokens each."""
    tokens, updates = typical(evidence.rows, "learned_tokens"), typical(evidence.rows, "updates")
    budget, num_ranks = evidence.number("batch.micro_batch_tokens"), evidence.number("learner.num_ranks")
    if not tokens or not updates or not budget or not num_ranks:
        return None
    is_many = tokens / (updates * num_ranks * budget) >= 8.0 and budget < (16384.0 if evidence.machine.has_gpu else 4096.0)
    return evidence.times.share(*LEARNING) if is_many else None


def has_several_updates(evidence: Evidence) -> bool:
    return (typical(evidence.rows, "updates") or 0.0) > 1.0


def is_offloaded(evidence: Evidence) -> bool:
    return evidence.is_set("learner.offload", "optimizer", "all")


def without_samples(evidence: Evidence) -> float | None:
    """Share of the step spent on sampling attempts that nothing was learned from."""
    attempts, learned = typical(evidence.rows, "attempts"), typical(evidence.rows, "learned_rows")
    if not attempts or learned is None:
        return None
    return evidence.times.share(Phase.generate, Phase.verify) * max(0.0, 1.0 - learned / attempts)


def saving(evidence: Evidence) -> float | None:
    """Share of checkpoints in all the time of steps and checkpoints."""
    saved = sum(row.get("time/save_s", 0.0) for row in evidence.rows)
    stepped = sum(row.get("time/step_s", 0.0) for row in evidence.rows)
    return saved / (saved + stepped) if saved + stepped > 0.0 else None


def evaluating(evidence: Evidence) -> float | None:
    """Share of evaluations in all the time of steps and evaluations, where there are some beside the first and the last."""
    evaluated = sum(evaluation.get("time/evaluate_s", 0.0) for evaluation in evidence.evaluations)
    stepped = sum(row.get("time/step_s", 0.0) for row in evidence.rows)
    return evaluated / (evaluated + stepped) if evaluated + stepped > 0.0 and len(evidence.evaluations) > 2 else None


def slow_bf16(key: str, *phases: Phase) -> Share:
    def is_slow(evidence: Evidence) -> bool:
        return evidence.is_set(key, "bfloat16") and not evidence.machine.has_bf16

    return where(is_slow, of_step(*phases))
