"""Which tasks a step asks: today's order to the bit, what stands in for them, and the order that prefers what can be learned."""

from __future__ import annotations

from collections import Counter

import pytest

from sdpo.attempts.task_orders import Adaptive, Epochs
from sdpo.attempts.task_stream import TaskStream
from sdpo.config import TaskOrderConfig
from sdpo.types import Message, Role, Task, Tried

EPOCHS = [
    ["sums/3", "sums/5", "sums/1"],
    ["sums/6", "sums/0", "sums/2"],
    ["sums/4", "sums/5", "sums/1"],
    ["sums/4", "sums/2", "sums/6"],
    ["sums/0", "sums/3", "sums/2"],
]


def tasks(num: int) -> tuple[Task, ...]:
    question = (Message(role=Role.user, content="?"),)
    return tuple(Task(id=f"sums/{index}", env="sums", messages=question) for index in range(num))


def test_epochs_come_in_the_order_that_they_always_came_in() -> None:
    """Written down from before there were other orders: a run that goes on must see the tasks it would have seen."""
    stream = TaskStream(tasks=tasks(7), seed=3)
    assert [[task.id for task in stream.batch(step, 3)] for step in range(5)] == EPOCHS


@pytest.mark.parametrize("order", [Epochs(10, 1), Adaptive(10, 1)])
@pytest.mark.parametrize("num", [1, 4, 10])
def test_stand_ins_are_all_other_tasks_each_once(order: Epochs | Adaptive, num: int) -> None:
    positions = list(order.positions(2, 2 * num, num))
    assert set(positions) == set(range(10))
    assert len(positions[num:]) == 10 - len(set(positions[:num]))


@pytest.mark.parametrize("order", [Epochs(3, 1), Adaptive(3, 1)])
def test_a_step_may_ask_for_more_tasks_than_there_are(order: Epochs | Adaptive) -> None:
    positions = list(order.positions(0, 0, 7))
    assert len(positions) == 7
    assert set(Counter(positions).values()) <= {2, 3}


def test_stand_ins_differ_between_steps() -> None:
    order = Epochs(50, 0)
    assert list(order.positions(0, 0, 1))[1:] != list(order.positions(50, 50, 1))[1:], "the same task, with others to stand in"


def first_draws(order: Adaptive, num: int) -> Counter[int]:
    return Counter(next(order.positions(step, step, 1)) for step in range(num))


def test_tasks_whose_success_is_neither_0_nor_1_are_preferred() -> None:
    order = Adaptive(4, 0, uniform_share=0.2)
    for _ in range(20):
        order.learn([(0, [0.0] * 8), (1, [1.0] * 8), (2, [0.0, 1.0] * 4), (3, [1.0] + [0.0] * 7)])
    found = first_draws(order, 4000)
    assert found[2] > found[3] > 2 * max(found[0], found[1])
    assert min(found.values()) > 0.2 / 4 * 4000 * 0.7, "a share of the draws is even"
    assert order.numbers()["tasks/tried"] == 1.0
    assert 0.25 < order.numbers()["tasks/effective"] < 0.75


def test_rewards_that_do_not_differ_teach_nothing_whatever_they_are() -> None:
    order = Adaptive(2, 0)
    for _ in range(20):
        order.learn([(0, [0.5] * 8), (1, [0.2, 0.8] * 4)])
    found = first_draws(order, 1000)
    assert found[1] > 3 * found[0]


def test_a_task_that_was_never_tried_comes_before_those_that_are_hopeless() -> None:
    order = Adaptive(2, 0)
    order.learn([(0, [0.0] * 6)])
    found = first_draws(order, 1000)
    assert found[1] > 2 * found[0]


def test_what_became_of_a_task_lately_counts_more() -> None:
    """A policy that learns makes hopeless tasks learnable, and learnable ones easy."""
    rising, falling = Adaptive(2, 0), Adaptive(2, 0)
    mixed, solved = [(0, [0.0, 1.0] * 3)] * 5, [(0, [1.0] * 6)] * 5
    rising.learn([*solved, *mixed])
    falling.learn([*mixed, *solved])
    assert first_draws(falling, 500)[0] < first_draws(rising, 500)[0]


def test_before_anything_was_tried_nothing_is_preferred() -> None:
    order = Adaptive(10, 0)
    found = first_draws(order, 5000)
    assert all(380 < found[position] < 620 for position in range(10))
    assert order.numbers() == pytest.approx({"tasks/tried": 0.0, "tasks/preference": 1.0, "tasks/effective": 1.0})


def test_attempts_that_were_all_set_aside_say_nothing_of_a_task() -> None:
    order = Adaptive(3, 0)
    order.learn([(0, [])])
    next(order.positions(0, 0, 1))
    assert order.numbers()["tasks/tried"] == 0.0


@pytest.mark.parametrize("lag", [1, 2])
def test_an_order_knows_of_a_step_when_a_batch_that_is_generated_ahead_could(lag: int) -> None:
    def stream() -> TaskStream:
        return TaskStream(tasks=tasks(30), seed=0, order=TaskOrderConfig(name="adaptive"), lag=lag)

    def tried(reward: float) -> list[Tried]:
        return [Tried(task=task.id, rewards=(reward, 1.0)) for task in tasks(15)]

    told, untold = stream(), stream()
    for step in range(1, 5):
        told.learn(step, tried(0.0))
        untold.learn(step, tried(0.0) if step <= 4 - lag else tried(1.0))
    assert told.batch(4, 5) == untold.batch(4, 5)
    assert told.batch(4 + lag, 5) != untold.batch(4 + lag, 5)


def test_a_run_that_goes_back_forgets_what_it_tried_afterwards() -> None:
    def stream() -> TaskStream:
        return TaskStream(tasks=tasks(30), seed=0, order=TaskOrderConfig(name="adaptive"))

    def learned(stream: TaskStream, *steps: tuple[int, float]) -> TaskStream:
        for step, reward in steps:
            stream.learn(step, [Tried(task=task.id, rewards=(reward, 1.0)) for task in tasks(15)])
        return stream

    back = learned(stream(), (1, 0.0), (2, 1.0), (3, 1.0))
    back.batch(3, 5)
    assert back.batch(1, 5) == learned(stream(), (1, 0.0)).batch(1, 5)
    assert learned(back, (2, 0.0)).batch(2, 5) == learned(stream(), (1, 0.0), (2, 0.0)).batch(2, 5)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("adaptive", {"uniform_share": 0.0}, "uniform_share must lie in"),
        ("adaptive", {"memory": 1.5}, "memory must lie between"),
        ("epochs", {"memory": 0.5}, "batch.order with the options"),
        ("sdpo.types:Task", {}, "batch.order with the options"),
        ("builtins:range", {}, "lacks learns, positions, learn, numbers"),
    ],
)
def test_an_order_that_cannot_be_made_is_refused(name: str, options: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        TaskStream(tasks=tasks(3), seed=0, order=TaskOrderConfig(name=name, options=options))


def test_an_order_that_there_is_not_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"batch.order.name must be one of epochs, adaptive.*did you mean 'adaptive'"):
        TaskOrderConfig(name="adaptiv")
