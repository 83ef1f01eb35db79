"""The tasks of each step: the split in the order that ``batch.order`` says, with what it learned on the way.

An order that learns is told of a step's groups only ``rollout.staleness`` steps later. So it knows the same whether the batch is
generated ahead or not, and whether the run was continued or not: a step's tasks follow from the seed and the records.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from itertools import islice
from typing import cast

from sdpo.attempts.mixed_order import MixedOrder
from sdpo.config import TaskOrderConfig
from sdpo.plugins.seam import made
from sdpo.plugins.seams import TASK_ORDERS
from sdpo.protocols import TaskOrder
from sdpo.types import InParts, Metrics, Task, Tasks, Tried


class TaskStream:
    """The tasks that are asked, step by step."""

    def __init__(
        self,
        *,
        tasks: Tasks,
        seed: int,
        order: TaskOrderConfig | None = None,
        lag: int = 0,
        tried: Sequence[Sequence[Tried]] = (),
    ) -> None:
        """``order``: None stands for the default. ``lag``: steps that a batch may be generated ahead. ``tried``: what a continued
        run has tried, step by step. Raises ValueError where the order cannot be made."""
        self._tasks, self._seed, self._config, self._lag = tasks, seed, order or TaskOrderConfig(), lag
        self._order, self._num_learned = self._new_order(), 0
        self._tried = {number: tuple(of_step) for number, of_step in enumerate(tried, start=1)}

    @property
    def learns(self) -> bool:
        return self._order.learns

    def batch(self, step: int, num_tasks: int) -> tuple[Task, ...]:
        """[P] the tasks that are asked after ``step`` finished steps."""
        return tuple(islice(self.drawn(step, num_tasks), num_tasks))

    def drawn(self, step: int, num_tasks: int) -> Iterator[Task]:
        """The same, followed by the tasks that may stand in for them, each once."""
        self._catch_up(step - self._lag)
        return (self._tasks[position] for position in self._order.positions(step, step * num_tasks, num_tasks))

    def numbers(self) -> Metrics:
        """What the order says of the tasks that were drawn last."""
        return self._order.numbers()

    def learn(self, step: int, tried: Sequence[Tried]) -> None:
        """What step number ``step`` tried; what was said of later ones, which the run has gone back from, is forgotten."""
        self._tried = {number: of_step for number, of_step in self._tried.items() if number < step}
        self._tried[step] = tuple(tried)

    def _new_order(self) -> TaskOrder:
        if isinstance(self._tasks, InParts):
            return MixedOrder(self._tasks.parts, self._seed, partial(task_order, self._config))
        return task_order(self._config, len(self._tasks), self._seed)

    def _catch_up(self, last: int) -> None:
        """Bring the order to what it may know after ``last`` steps."""
        if not self._order.learns:
            return
        if self._num_learned > max(last, 0):
            self._order, self._num_learned = self._new_order(), 0
        for number in range(self._num_learned + 1, last + 1):
            found = [(self._places.get(one.task), one.rewards) for one in self._tried[number]]
            self._order.learn([(place, rewards) for place, rewards in found if place is not None])
            self._num_learned = number

    @cached_property
    def _places(self) -> dict[str, int]:
        return {task.id: place for place, task in enumerate(self._tasks)}


def task_order(config: TaskOrderConfig, num_tasks: int, seed: int) -> TaskOrder:
    """The order that the config names. Raises ValueError where it cannot be made."""
    make = TASK_ORDERS.load(config.name)
    found = made(make, f"batch.order with the options {config.options!r}", num_tasks, seed, **config.options)
    lacking = [name for name in ("learns", "positions", "learn", "numbers") if not hasattr(found, name)]
    if lacking:
        raise ValueError(
            f"batch.order.name must name a class like sdpo.protocols.TaskOrder; {config.name!r} is {make!r}, and what it makes "
            f"lacks {', '.join(lacking)}"
        )
    return cast(TaskOrder, found)
