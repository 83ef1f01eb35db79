"""Which tasks does a step ask? ``batch.order.name`` picks an order: each is a pure function of the seed and what it was told.

``Adaptive`` prefers tasks whose attempts are sometimes solved and sometimes not: sampling for learnability (arXiv 2502.12272).
The paper estimates success on a candidate set of its own before each draw; here it is what training tried anyway.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence

from sdpo.types import Metrics

_FAIR_COIN = (1.0, 0.5, 0.5)
"""Half a success and half a failure, in the terms of ``Adaptive``: what is assumed of every task."""


class Epochs:
    """All tasks, then all again, each epoch in an order of its own."""

    learns = False

    def __init__(self, num_tasks: int, seed: int) -> None:
        self._num_tasks, self._seed = num_tasks, seed

    def positions(self, step: int, num_before: int, num: int) -> Iterator[int]:
        """Stand-ins are drawn anew for each step: they take nothing away from the epochs."""
        places = range(num_before, num_before + num)
        orders = {epoch: self._order(epoch) for epoch in {place // self._num_tasks for place in places}}
        chosen = [orders[epoch][index] for epoch, index in (divmod(place, self._num_tasks) for place in places)]
        yield from chosen
        draw, seen = random.Random(f"{self._seed}/stand-ins/{step}"), set(chosen)
        while len(seen) < self._num_tasks:
            position = draw.randrange(self._num_tasks)
            if position not in seen:
                seen.add(position)
                yield position

    def learn(self, tried: Sequence[tuple[int, Sequence[float]]]) -> None:
        """Nothing."""

    def numbers(self) -> Metrics:
        return {}

    def _order(self, epoch: int) -> list[int]:
        order = list(range(self._num_tasks))
        random.Random(f"{self._seed}/epoch/{epoch}").shuffle(order)
        return order


class Adaptive:
    """Tasks in proportion to the variance of their rewards, which is p(1-p) where each attempt is solved or not.

    The variance is estimated over a task's attempts so far, of which each further visit makes the older ones count less. A task
    that was never tried is taken for a fair coin. A share of the draws is uniform, so no task is ever left out for good.
    """

    learns = True

    def __init__(self, num_tasks: int, seed: int, *, uniform_share: float = 0.2, memory: float = 0.5) -> None:
        """``uniform_share`` of the draws goes to all tasks alike. ``memory``: how much an attempt counts after its task was tried
        once more, beside the new ones."""
        if not 0.0 < uniform_share <= 1.0:
            raise ValueError(f"uniform_share must lie in (0, 1] (with 0 a task could be left out for good); got {uniform_share}.")
        if not 0.0 <= memory <= 1.0:
            raise ValueError(f"memory must lie between 0 and 1; got {memory}.")
        self._num_tasks, self._seed = num_tasks, seed
        self._uniform_share, self._memory = uniform_share, memory
        self._sums: dict[int, tuple[float, float, float]] = {}
        """By position: attempts, sum of their rewards, sum of the squares; older ones count less."""
        self._numbers: dict[str, float] = {}

    def learn(self, tried: Sequence[tuple[int, Sequence[float]]]) -> None:
        for position, rewards in tried:
            if not rewards:  # all set aside
                continue
            new = (float(len(rewards)), sum(rewards), sum(reward * reward for reward in rewards))
            kept = self._sums.get(position, (0.0, 0.0, 0.0))
            num, total, squares = (self._memory * old + added for old, added in zip(kept, new, strict=True))
            self._sums[position] = num, total, squares

    def positions(self, step: int, num_before: int, num: int) -> Iterator[int]:
        shares = self._shares()
        found: list[int] = []
        while len(found) < max(num, 1):  # more than once around where a step asks for more tasks than there are
            found += self._drawn(f"{self._seed}/adaptive/{step}/{len(found)}", shares)
        of_step = found[:num]
        self._numbers = {
            "tasks/tried": len(self._sums) / self._num_tasks,
            "tasks/preference": sum(shares[position] for position in of_step) / max(num, 1) * self._num_tasks,
            "tasks/effective": 1.0 / (self._num_tasks * sum(share * share for share in shares)),
        }
        return iter(found if num <= self._num_tasks else of_step)

    def numbers(self) -> Metrics:
        return dict(self._numbers)

    def _shares(self) -> list[float]:
        """Each task's probability to be drawn first."""
        weights = [_variance(*_FAIR_COIN)] * self._num_tasks
        for position, sums in self._sums.items():
            weights[position] = _variance(*(a + b for a, b in zip(sums, _FAIR_COIN, strict=True)))
        total, even = sum(weights), self._uniform_share / self._num_tasks
        return [even + (1.0 - self._uniform_share) * weight / total for weight in weights]

    def _drawn(self, seed: str, shares: Sequence[float]) -> list[int]:
        """All positions, as if one after the other was drawn by its share of those that are left.

        The waiting time until a task's first arrival is exponential, with its share as the rate (Efraimidis and Spirakis 2006).
        """
        draw = random.Random(seed)
        waits = [-math.log(1.0 - draw.random()) / share for share in shares]
        return sorted(range(len(shares)), key=waits.__getitem__)


def _variance(num: float, total: float, squares: float) -> float:
    mean = total / num
    return squares / num - mean * mean
