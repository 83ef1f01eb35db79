"""Which tasks a step learns from: a pure function of the seed and the step."""

import itertools
from collections import Counter

import pytest

from sdpo.attempts.task_stream import TaskStream
from sdpo.types import Message, Role, Task


def tasks(num: int) -> tuple[Task, ...]:
    question = (Message(role=Role.user, content="?"),)
    return tuple(Task(id=f"sums/{index}", env="sums", messages=question) for index in range(num))


def ids(stream: TaskStream, steps: range, num_tasks: int) -> list[str]:
    return [task.id for step in steps for task in stream.batch(step, num_tasks)]


def test_a_step_is_the_same_whatever_was_asked_before():
    used = TaskStream(tasks=tasks(10), seed=3)
    ids(used, range(20), 4)
    fresh = TaskStream(tasks=tasks(10), seed=3)
    assert used.batch(13, 4) == fresh.batch(13, 4)


@pytest.mark.parametrize(("num", "num_tasks"), [(10, 5), (10, 4), (10, 1), (7, 3), (3, 8)])
def test_each_task_comes_once_an_epoch(num, num_tasks):
    """Also where steps straddle epochs, or hold several."""
    seen = ids(TaskStream(tasks=tasks(num), seed=0), range(num * 3), num_tasks)
    epochs = [seen[first : first + num] for first in range(0, len(seen), num)]
    assert all(Counter(epoch) == Counter(task.id for task in tasks(num)) for epoch in epochs)


def test_orders_differ_between_epochs_and_between_seeds():
    epochs = [tuple(ids(TaskStream(tasks=tasks(20), seed=0), range(epoch, epoch + 1), 20)) for epoch in range(4)]
    epochs += [tuple(ids(TaskStream(tasks=tasks(20), seed=seed), range(1), 20)) for seed in (1, 2)]
    assert all(one != other for one, other in itertools.combinations(epochs, 2))


def test_steps_of_different_sizes_see_the_same_order():
    stream = TaskStream(tasks=tasks(10), seed=5)
    assert ids(stream, range(12), 1) == ids(stream, range(6), 2) == ids(stream, range(3), 4)
