"""How do groups of runs stand beside each other? One row of numbers a group, means over its seeds, the best first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sdpo.report.curves import Axis, total_spent
from sdpo.report.groups import Estimate, RunGroup, after, before, common_steps, differences, estimate, evaluation_after
from sdpo.report.record import RunRecord
from sdpo.report.tables import at_evaluation
from sdpo.report.timing import rates
from sdpo.types import Metrics

LAST_STEPS = 5
"""Last steps of a run over which its training success is averaged, because a single batch says little."""
SUCCESS, ERROR = "heldout/success", "heldout/success_se"


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A group's numbers; None where no run of it has them."""

    group: RunGroup
    differs: tuple[tuple[str, object], ...]
    """Keys that all groups have and that are not the same everywhere, with this group's values."""
    num_seeds: int
    """Different ones; a run without a config counts as one."""
    steps: tuple[int, int]
    """The fewest and the most that a run has finished."""
    asked_steps: int | None
    """Steps that were asked for, of the run that was asked for the most; None where configs do not say."""
    generations: Estimate | None
    """Attempts a run, set-aside ones included."""
    first: Estimate | None
    """Held-out success before training."""
    best: Estimate | None
    """Its highest mean over seeds, among the steps after which all were evaluated at, the start aside."""
    best_step: float | None
    last: Estimate | None
    """At the last of those steps."""
    last_step: float | None
    training: Estimate | None
    """Success while training, over the last ``LAST_STEPS`` steps of each run."""
    lift_first: Estimate | None
    """The teacher's lift before training, and at ``last_step``."""
    lift_last: Estimate | None
    tokens_per_s: Estimate | None
    hours: Estimate | None
    """Hours of a run's steps, without evaluations and checkpoints."""
    num_alarms: int
    """Alarms of all its runs."""


def standings(groups: Sequence[RunGroup]) -> tuple[Standing, ...]:
    """Sorted by the last held-out success, then by that of training; those that have neither last, in the order given."""
    shared = [row for row in differences(groups) if row.is_everywhere]
    known = [group for group in groups if group.config]
    told = {id(group): tuple((row.key, row.values[place]) for row in shared) for place, group in enumerate(known)}
    return tuple(sorted((_standing(group, told.get(id(group), ())) for group in groups), key=_rank))


def _rank(one: Standing) -> tuple[bool, float, bool, float]:
    last, training = (0.0 if number is None else -number.mean for number in (one.last, one.training))
    return one.last is None, last, one.training is None, training


def _standing(group: RunGroup, differs: tuple[tuple[str, object], ...]) -> Standing:
    finished = [int(run.steps[-1]["step"]) if run.steps else 0 for run in group.runs]
    asked = [number for run in group.runs if isinstance(number := run.config.get("num_steps"), int)]
    seeds = [run.config.get("seed", run.path) for run in group.runs]
    best, best_step = _best(group)
    return Standing(
        group=group,
        differs=differs,
        num_seeds=len(set(map(repr, seeds))),
        steps=(min(finished), max(finished)),
        asked_steps=max(asked, default=None),
        generations=_over_seeds(group, lambda run: total_spent(run, Axis.generations)),
        first=at_evaluation(group, before, SUCCESS, ERROR),
        best=best,
        best_step=best_step,
        last=at_evaluation(group, after(group), SUCCESS, ERROR),
        last_step=max(common_steps(group), default=None),
        training=_over_seeds(group, _training_success),
        lift_first=at_evaluation(group, before, "lift", "lift/se"),
        lift_last=at_evaluation(group, after(group), "lift", "lift/se"),
        tokens_per_s=_over_seeds(group, lambda run: rates(run)[0]),
        hours=_over_seeds(group, _hours),
        num_alarms=sum(len(run.alarms) for run in group.runs),
    )


def _best(group: RunGroup) -> tuple[Estimate | None, float | None]:
    """At one step for all seeds: the mean of each seed's own best would be above what any step had."""

    def at(step: float) -> Callable[[RunRecord], Metrics | None]:
        return lambda run: evaluation_after(run, step)

    found = [
        (number, step) for step in common_steps(group) if (number := at_evaluation(group, at(step), SUCCESS, ERROR)) is not None
    ]
    return max(found, key=lambda pair: pair[0].mean, default=(None, None))


def _over_seeds(group: RunGroup, of: Callable[[RunRecord], float | None]) -> Estimate | None:
    """Estimate of a number whose error a lone run does not know."""
    return estimate(group, of, lambda run: None)


def _training_success(run: RunRecord) -> float | None:
    values = [step["success"] for step in run.steps if "success" in step][-LAST_STEPS:]
    return sum(values) / len(values) if values else None


def _hours(run: RunRecord) -> float | None:
    seconds = total_spent(run, Axis.time)
    return None if seconds is None else seconds / 3600.0
