"""Which runs are one experiment, what tells experiments apart, and what each of them is called.

Runs that differ in nothing but their seed, and in where they lie, are one group. Its numbers are means over seeds with their
standard error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sdpo.report.record import RunRecord
from sdpo.types import Metrics

ASIDE = ("seed", "name", "runs_dir", "resume", "dry_run")
"""What may differ within a group."""
MAX_KEYS_NAMED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class RunGroup:
    """Runs that differ in their seed alone."""

    label: str
    runs: tuple[RunRecord, ...]

    @property
    def title(self) -> str:
        """The label, with the number of seeds where there are several."""
        return f"{self.label} ({len(self.runs)} seeds)" if len(self.runs) > 1 else self.label

    @property
    def config(self) -> Mapping[str, object]:
        return self.runs[0].config


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A config key that is not the same everywhere."""

    key: str
    values: tuple[object, ...]
    """One a group; ``ABSENT`` where it has no such key."""

    @property
    def is_everywhere(self) -> bool:
        return ABSENT not in self.values


ABSENT = "–"


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A number of a group."""

    mean: float
    error: float | None
    """Standard error: over seeds where there are several, else what the run itself recorded over tasks; None where unknown."""
    num_runs: int


def grouped(runs: Sequence[RunRecord]) -> tuple[RunGroup, ...]:
    """In the order in which they were given. A run without a config is alone."""
    members: dict[object, list[RunRecord]] = {}
    for run in runs:
        members.setdefault(_identity(run), []).append(run)
    found = [tuple(group) for group in members.values()]
    return tuple(RunGroup(label=label, runs=group) for label, group in zip(_labels(found), found, strict=True))


def differences(groups: Sequence[RunGroup]) -> tuple[Difference, ...]:
    """Between groups whose config could be read, in the order of the keys."""
    configs = [group.config for group in groups if group.config]
    keys = sorted({key for config in configs for key in config} - set(ASIDE))
    rows = [Difference(key=key, values=tuple(group.config.get(key, ABSENT) for group in groups if group.config)) for key in keys]
    return tuple(row for row in rows if any(value != row.values[0] for value in row.values))


def estimate(
    group: RunGroup, of: Callable[[RunRecord], float | None], error: Callable[[RunRecord], float | None]
) -> Estimate | None:
    """Over the runs that have the number; None where none has. ``error``: the one that a lone run recorded."""
    known = [(run, value) for run in group.runs if (value := of(run)) is not None]
    if not known:
        return None
    values = [value for _, value in known]
    mean = sum(values) / len(values)
    if len(values) == 1:
        return Estimate(mean=mean, error=error(known[0][0]), num_runs=1)
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return Estimate(mean=mean, error=math.sqrt(variance / len(values)), num_runs=len(values))


def before(run: RunRecord) -> Metrics | None:
    """The evaluation before training."""
    return evaluation_after(run, 0.0)


def common_steps(group: RunGroup) -> tuple[float, ...]:
    """The steps after which all runs were evaluated at that ever were, in order."""
    evaluated = [
        steps
        for run in group.runs
        if (steps := {evaluation["step"] for evaluation in run.evaluations if evaluation["step"] > 0.0})
    ]
    return tuple(sorted(set.intersection(*evaluated))) if evaluated else ()


def last_common_step(group: RunGroup) -> float | None:
    """The last of them; None where there is none."""
    return max(common_steps(group), default=None)


def after(group: RunGroup) -> Callable[[RunRecord], Metrics | None]:
    """The evaluation of a run at that step, so that seeds are compared where they had learned equally long."""
    step = last_common_step(group)
    return lambda run: None if step is None else evaluation_after(run, step)


def evaluation_after(run: RunRecord, step: float) -> Metrics | None:
    """The evaluation after ``step`` steps."""
    return next((evaluation for evaluation in run.evaluations if evaluation["step"] == step), None)


def _identity(run: RunRecord) -> object:
    if not run.config:
        return run.path
    return tuple(sorted((key, repr(value)) for key, value in run.config.items() if key not in ASIDE))


def _labels(groups: Sequence[Sequence[RunRecord]]) -> list[str]:
    """A label for each group: the algorithm's name, and more where several groups share it.

    Then the values of the keys that tell them apart are added. Where those keys are many or none, the first run's name is added
    instead. Labels that are still the same are numbered.
    """
    names = [_algorithm(group[0]) for group in groups]
    labels = []
    for name, group in zip(names, groups, strict=True):
        rivals = [other[0].config for other, their in zip(groups, names, strict=True) if their == name]
        keys = sorted(
            {key for config in rivals for key in config if any(other.get(key) != config[key] for other in rivals)} - set(ASIDE)
        )
        told = ", ".join(f"{key}={group[0].config.get(key, ABSENT)}" for key in keys)
        if len(rivals) == 1 or name == group[0].name:
            labels.append(name)
        else:
            labels.append(f"{name} {told}" if 0 < len(keys) <= MAX_KEYS_NAMED else f"{name} {group[0].name}")
    return [label if labels.count(label) == 1 else f"{label} ({place + 1})" for place, label in enumerate(labels)]


def _algorithm(run: RunRecord) -> str:
    name = run.config.get("algorithm.name")
    return name.upper() if isinstance(name, str) else run.name
