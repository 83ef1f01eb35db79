"""Which tasks does a step ask of a split in parts? Each part has a task order of its own, and its share of the tasks by weight.

The parts take turns: each place in the stream of tasks goes to the part that is furthest behind its share. So neither a step nor
a run strays from the weights by more than a task or so a part. Who begins is drawn by the seed. Tasks that stand in for others
are shared out in the same way, whichever part the replaced ones are of.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

from sdpo.protocols import TaskOrder
from sdpo.types import Metrics, Part


class MixedOrder:
    """The TaskOrder of a split in parts."""

    def __init__(self, parts: Sequence[Part], seed: int, make: Callable[[int, int], TaskOrder]) -> None:
        """``make`` is given the number of a part's tasks, and a seed."""
        self._parts = [part for part in parts if part.positions]
        self._orders = [
            make(len(part.positions), random.Random(f"{seed}/part/{part.name}").getrandbits(32)) for part in self._parts
        ]
        total = sum(part.weight for part in self._parts)
        self._shares = [part.weight / total for part in self._parts]
        self._owed = [share * random.Random(f"{seed}/turn/{part.name}").random() for share, part in self._with_shares]
        self._turns = array("H")
        """Of each place in the stream that was looked at, whose it is."""
        self.learns = any(order.learns for order in self._orders)

    @property
    def _with_shares(self) -> list[tuple[float, Part]]:
        return list(zip(self._shares, self._parts, strict=True))

    def positions(self, step: int, num_before: int, num: int) -> Iterator[int]:
        turns = [self._turn(place) for place in range(num_before, num_before + num)]
        before = self._turns[:num_before]
        found = [order.positions(step, before.count(index), turns.count(index)) for index, order in enumerate(self._orders)]
        return self._named(found, turns, num_before + num)

    def _named(self, found: Sequence[Iterator[int]], turns: Sequence[int], place: int) -> Iterator[int]:
        for index in turns:
            yield self._parts[index].positions[next(found[index])]
        left = set(range(len(found)))
        while left:
            index = self._turn(place)
            place += 1
            if index in left:
                position = next(found[index], None)
                if position is None:
                    left.remove(index)
                else:
                    yield self._parts[index].positions[position]

    def learn(self, tried: Sequence[tuple[int, Sequence[float]]]) -> None:
        for index, order in enumerate(self._orders):
            found = [(self._home[position], rewards) for position, rewards in tried]
            order.learn([(place, rewards) for (part, place), rewards in found if part == index])

    def numbers(self) -> Metrics:
        """Those of each part, its name behind them."""
        return {
            f"{name}/{part.name}": value
            for part, order in zip(self._parts, self._orders, strict=True)
            for name, value in order.numbers().items()
        }

    def _turn(self, place: int) -> int:
        while len(self._turns) <= place:
            self._owed = [owed + share for owed, share in zip(self._owed, self._shares, strict=True)]
            index = max(range(len(self._owed)), key=self._owed.__getitem__)
            self._owed[index] -= 1.0
            self._turns.append(index)
        return self._turns[place]

    @cached_property
    def _home(self) -> dict[int, tuple[int, int]]:
        """Of each position in the split its part, and its place there."""
        return {
            position: (index, place) for index, part in enumerate(self._parts) for place, position in enumerate(part.positions)
        }
