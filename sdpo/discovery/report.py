"""What came of a comparison of strategies: a table, a picture of each budget, and one record."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.table import Table

from sdpo.discovery.estimator import Costs, attempts_to_reach, discovery, interval, versus_best_of_k
from sdpo.report.chart import Series, line_chart
from sdpo.solving.search import Search

AXES = {"attempts": "attempts", "tokens": "generated tokens", "seconds": "seconds of sampling, verifying and learning"}
BASELINE = "best_of_k"
NUM_POINTS = 60
"""Points of a curve, each with an interval of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The searches of all strategies, over the same tasks and seeds."""

    task_ids: tuple[str, ...]
    searches: Mapping[str, Sequence[Sequence[Search]]]
    """[tasks][seeds] by strategy."""

    def costs(self, strategy: str, axis: str) -> Costs:
        """[tasks][seeds] what was spent up to each first success; None where there was none."""
        return [
            [None if search.solved_at is None else float(getattr(search.solved_at, axis)) for search in seeds]
            for seeds in self.searches[strategy]
        ]

    def spent(self, axis: str) -> dict[str, int | float]:
        """What each strategy spent, over all its searches."""
        return {
            name: sum(getattr(search.spent, axis) for seeds in tasks for search in seeds) for name, tasks in self.searches.items()
        }


def table(found: Found) -> Table:
    """A row a strategy, with discovery at the end and its interval."""
    num_seeds = len(next(iter(found.searches.values()))[0])
    shown = Table(title=f"{len(found.task_ids)} tasks, {num_seeds} seeds each; intervals of 95 %")
    for index, head in enumerate(("strategy", "discovery at the end", "half of it after", "attempts / best-of-k's", "tokens")):
        shown.add_column(head, justify="right" if index else "left")
    versus = _versus(found)
    for name in found.searches:
        costs = found.costs(name, "attempts")
        final = discovery(costs, math.inf)
        low, high = interval(costs, math.inf)
        half = attempts_to_reach(costs, final / 2.0) if final > 0.0 else None
        ratio = versus.get(name)
        shown.add_row(
            name,
            f"{final:.1%} ({low:.1%} to {high:.1%})",
            "" if half is None else f"{half:.0f} attempts",
            "" if ratio is None else str(ratio),
            f"{found.spent('tokens')[name]:,}",
        )
    return shown


def pictures(found: Found) -> dict[str, str]:
    """An SVG for each way to count, by its name."""
    return {axis: _picture(found, axis) for axis in AXES}


def record(found: Found) -> dict[str, object]:
    """Everything in numbers, with the tasks where a strategy found less than best-of-k."""
    return {
        "tasks": len(found.task_ids),
        "seeds": len(next(iter(found.searches.values()))[0]),
        "discovery": {name: round(discovery(found.costs(name, "attempts"), math.inf), 4) for name in found.searches},
        "interval": {
            name: [round(end, 4) for end in interval(found.costs(name, "attempts"), math.inf)] for name in found.searches
        },
        "spent": {axis: {name: round(value, 1) for name, value in found.spent(axis).items()} for axis in AXES},
        "tokens_vs_best_of_k": _versus(found, "tokens"),
        "seconds_vs_best_of_k": _versus(found, "seconds"),
        "undiscovered": [
            task_id
            for index, task_id in enumerate(found.task_ids)
            if all(search.solution is None for tasks in found.searches.values() for search in tasks[index])
        ],
        "lost": _lost(found),
        "attempts_vs_best_of_k": _versus(found),
    }


def _versus(found: Found, axis: str = "attempts") -> dict[str, object]:
    """Costs divided by the baseline's, by strategy; None for all without the baseline."""
    if BASELINE not in found.searches:
        return dict.fromkeys(found.searches)
    return versus_best_of_k({name: found.costs(name, axis) for name in found.searches}, BASELINE)


def _lost(found: Found) -> dict[str, list[str]]:
    """The ids of the tasks that each strategy solved with fewer seeds than best-of-k did."""
    if BASELINE not in found.searches:
        return {}
    return {
        name: [
            task_id
            for task_id, ours, theirs in zip(found.task_ids, tasks, found.searches[BASELINE], strict=True)
            if sum(search.solution is not None for search in ours) < sum(search.solution is not None for search in theirs)
        ]
        for name, tasks in found.searches.items()
        if name != BASELINE
    }


def _picture(found: Found, axis: str) -> str:
    """An SVG with the curves of discovery, each with half the width of its interval around it.

    All end where the first strategy had spent its budget: up to there they are comparable.
    """
    costs_of = {name: found.costs(name, axis) for name in found.searches}
    budgets = [
        max(float(getattr(search.spent, axis)) for search in failed)
        for tasks in found.searches.values()
        if (failed := [search for seeds in tasks for search in seeds if search.solution is None])
    ]
    solved = [cost for costs in costs_of.values() for seeds in costs for cost in seeds if cost is not None]
    end = min(budgets) if budgets else max(solved, default=1.0)
    series = []
    for name, costs in costs_of.items():
        xs = [end * place / NUM_POINTS for place in range(NUM_POINTS + 1)]
        bounds = [interval(costs, x, num_resamples=200) for x in xs]
        series.append(
            Series(
                label=name,
                xs=tuple(xs),
                ys=tuple(discovery(costs, x) for x in xs),
                errors=tuple((high - low) / 2.0 for low, high in bounds),
            )
        )
    return line_chart("discovery@k", series, x_label=AXES[axis], y_label="share of searches that have solved their task")
