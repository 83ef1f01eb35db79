"""How a run's numbers went, over what it had cost until then: generations, tokens or time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import accumulate

from sdpo.report.chart import Series
from sdpo.report.groups import RunGroup
from sdpo.report.record import RunRecord
from sdpo.types import Metrics

MAX_POINTS = 240
"""Most points of a curve; longer ones are drawn through the means of neighbours."""


class Axis(Enum):
    """What a run spends; the value is its unit."""

    generations = "generations"
    tokens = "sampled tokens"
    time = "s of training"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """The unit of an axis."""

    label: str
    size: float
    """In the recorded unit."""


Curve = tuple[tuple[float, ...], tuple[float, ...]]
"""xs and ys"""


def unit(axis: Axis, runs: Sequence[RunRecord]) -> Unit:
    """Seconds, minutes or hours, so that the longest run has a readable number of them."""
    if axis is not Axis.time:
        return Unit(label=axis.value, size=1.0)
    longest = max((totals[-1] for run in runs if (totals := spent(run.steps, axis))), default=0.0)
    size, name = next(
        (size, name) for size, name in ((3600.0, "h"), (60.0, "min"), (1.0, "s")) if longest >= 3 * size or size == 1.0
    )
    return Unit(label=f"{name} of training", size=size)


def spent(steps: Sequence[Metrics], axis: Axis) -> list[float]:
    """Until the end of each step; none where the steps do not say."""
    costs = [_cost(step, axis) for step in steps]
    known = [cost for cost in costs if cost is not None]
    return list(accumulate(known)) if len(known) == len(costs) else []


def total_spent(run: RunRecord, axis: Axis) -> float | None:
    """Until the run's last step; None where the steps do not say."""
    totals = spent(run.steps, axis)
    return totals[-1] if totals else None


def training_curve(run: RunRecord, metric: str, axis: Axis) -> Curve:
    """A metric over the steps that have it."""
    pairs = [(x, step[metric]) for x, step in zip(spent(run.steps, axis), run.steps, strict=False) if metric in step]
    return _thinned(pairs)


def heldout_curve(run: RunRecord, metric: str, axis: Axis) -> Curve:
    """A metric over the evaluation before training and those after steps whose cost is known."""
    until = {0.0: 0.0, **{step["step"]: x for x, step in zip(spent(run.steps, axis), run.steps, strict=False)}}
    return _thinned(
        [
            (until[evaluation["step"]], evaluation[metric])
            for evaluation in run.evaluations
            if metric in evaluation and evaluation["step"] in until
        ]
    )


def series(groups: Sequence[RunGroup], metric: str, axis: Axis, size: float, *, is_heldout: bool) -> list[Series]:
    """One a group, those without the metric empty, so that every group keeps its colour."""
    found = []
    for group in groups:
        curves = [(heldout_curve if is_heldout else training_curve)(run, metric, axis) for run in group.runs]
        scaled = [(tuple(x / size for x in xs), ys) for xs, ys in curves if xs]
        empty = Series(label=group.label, xs=(), ys=(), errors=())
        found.append(Series.where_all_have_been(group.label, scaled) if scaled else empty)
    return found


def _cost(step: Metrics, axis: Axis) -> float | None:
    match axis:
        case Axis.generations:
            others = step.get("set_aside", 0.0) + step.get("attempts/replaced", 0.0)
            return step["attempts"] + others if "attempts" in step else None
        case Axis.tokens:
            return step.get("generated_tokens")
        case Axis.time:
            return step.get("time/step_s")


def _thinned(pairs: Sequence[tuple[float, float]]) -> Curve:
    width = -(-len(pairs) // MAX_POINTS) or 1
    bins = [pairs[start : start + width] for start in range(0, len(pairs), width)]
    return tuple(each[-1][0] for each in bins), tuple(sum(y for _, y in each) / len(each) for each in bins)
