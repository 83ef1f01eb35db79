"""discovery@k: how likely is a search to have solved its task after k attempts, and how sure is one of that?

It is the share of searches, over tasks and seeds of each, whose first success came within k. A search that ended without one
counts as undiscovered at every k, and stays in: it spent its budget, or gave up. Both are failures to discover. Nothing is
extrapolated beyond the budget.

The interval is over both draws, tasks and seeds. It is a bootstrap of tasks, and of the seeds within each (Davison and Hinkley,
Bootstrap Methods and their Application, section 3.8). The draw is the same for all strategies, since they share tasks and seeds.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence

NUM_RESAMPLES = 1000
LEVEL = 0.95
Costs = Sequence[Sequence[float | None]]
"""[tasks][seeds] what was spent up to the first success; None: there was none."""


def discovery(costs: Costs, k: float) -> float:
    """The mean over tasks of the share of seeds that had solved it by ``k``."""
    return sum(sum(cost is not None and cost <= k for cost in seeds) / len(seeds) for seeds in costs) / len(costs)


def interval(costs: Costs, k: float, *, num_resamples: int = NUM_RESAMPLES) -> tuple[float, float]:
    """The percentile interval of the cluster bootstrap, (low, high) at ``LEVEL``.

    No resample can differ where all searches solved their tasks, or none. There the exact binomial limit over tasks (Clopper and
    Pearson) stands in for it: five failures in a row are no proof of zero.
    """
    values = sorted(discovery(_resampled(costs, random.Random(f"0/{index}")), k) for index in range(num_resamples))
    tail = (1.0 - LEVEL) / 2.0
    low, high = values[math.floor(tail * num_resamples)], values[math.ceil((1.0 - tail) * num_resamples) - 1]
    if low == high == 0.0:
        return 0.0, 1.0 - tail ** (1.0 / len(costs))
    if low == high == 1.0:
        return tail ** (1.0 / len(costs)), 1.0
    return low, high


def attempts_to_reach(costs: Costs, level: float) -> float | None:
    """The least that had been spent when ``level`` was discovered; None where it never was."""
    spent = sorted({cost for seeds in costs for cost in seeds if cost is not None})
    return next((k for k in spent if discovery(costs, k) >= level - 1e-12), None)


def versus_best_of_k(costs: Mapping[str, Costs], baseline: str) -> dict[str, object]:
    """The cost at which each strategy reaches the baseline's final discovery, divided by the cost at which the baseline does.

    ``"not reached"`` where it never does; None for all where the baseline discovered nothing.
    """
    final = discovery(costs[baseline], math.inf)
    own = attempts_to_reach(costs[baseline], final) if final > 0.0 else None
    found: dict[str, object] = {}
    for name, of_strategy in costs.items():
        needed = attempts_to_reach(of_strategy, final) if own is not None else None
        found[name] = None if own is None else "not reached" if needed is None else round(needed / own, 4)
    return found


def _resampled(costs: Costs, draw: random.Random) -> Costs:
    """Tasks drawn with replacement, and the seeds of each likewise."""
    return [draw.choices(seeds, k=len(seeds)) for seeds in draw.choices(costs, k=len(costs))]
