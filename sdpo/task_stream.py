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
        first = step * num_tasks
        return tuple(self._at(position) for position in range(first, first + num_tasks))

    def _at(self, position: int) -> Task:
        epoch, index = divmod(position, len(self.tasks))
        order = list(range(len(self.tasks)))
        random.Random(f"{self.seed}/epoch/{epoch}").shuffle(order)
        return self.tasks[order[index]]
