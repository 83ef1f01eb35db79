"""Which tasks does a step learn from? A pure function of the seed and the step, so that a resumed run sees the same ones."""

from __future__ import annotations

import random
from dataclasses import dataclass

from sdpo.types import Task, Tasks


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskStream:
    """Epochs over a split, each in an order of its own."""

    tasks: Tasks
    seed: int

    def batch(self, step: int, num_tasks: int) -> tuple[Task, ...]:
        """[P] the tasks of step ``step``; epoch after epoch, none twice before all have come once."""
        positions = range(step * num_tasks, (step + 1) * num_tasks)
        orders = {epoch: self._order(epoch) for epoch in {position // len(self.tasks) for position in positions}}
        places = (divmod(position, len(self.tasks)) for position in positions)
        return tuple(self.tasks[orders[epoch][index]] for epoch, index in places)

    def _order(self, epoch: int) -> list[int]:
        order = list(range(len(self.tasks)))
        random.Random(f"{self.seed}/epoch/{epoch}").shuffle(order)
        return order
