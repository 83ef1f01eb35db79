"""What an answer is worth that reads no question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from sdpo.envs.base import Message, Role, Verdict
from sdpo.evaluation.constants import best_constants, kind_of
from sdpo.machines.local import LocalVerifier
from sdpo.types import Attempt, Completion, Finish, Group, Task

RIGHT = {"rings/1-a": "1", "rings/1-b": "1", "rings/1-c": "2", "atoms/6-a": "6", "atoms/6-b": "6", "odd": "seven"}


class Numbers:
    """Right is what RIGHT says."""

    name = "numbers"
    asked = 0

    def tasks(self, split: str, seed: int) -> Sequence[Task]:
        return [Task(id=name, env="numbers", messages=(Message(role=Role.user, content=name),), payload=None) for name in RIGHT]

    def verify(self, task: Task, completion: str) -> Verdict:
        self.asked += 1
        return Verdict(reward=float(completion == RIGHT[task.id]), feedback=None, metrics={})


def groups(environment: Numbers, said: Sequence[Sequence[str]]) -> tuple[Group, ...]:
    return tuple(
        Group(
            task=task,
            prompt_ids=(1,),
            attempts=tuple(
                Attempt(
                    completion=Completion(token_ids=(), logprobs=(), text=text, finish=Finish.stop, weights_version=0),
                    verdict=environment.verify(task, text),
                )
                for text in of_task
            ),
            set_aside=(),
        )
        for task, of_task in zip(environment.tasks("heldout", 0), said, strict=True)
    )


def test_the_commonest_answers_are_tried_on_every_task() -> None:
    """A policy that says 1 to everything solved a third of the tasks, and the table called that a sixth more than before."""
    environment = Numbers()
    found = best_constants(groups(environment, [["1", "1"]] * 5 + [["1", "6"]]), LocalVerifier(environment), num=4)
    assert found["heldout/constant"] == pytest.approx(2 / 6)  # 1 or 6
    assert found["heldout/constant_by_kind"] == pytest.approx(4 / 5)  # 1 and 6; the odd one has no like


def test_no_more_answers_are_tried_than_asked_for() -> None:
    environment = Numbers()
    judged = groups(environment, [["1"], ["1"], ["2"], ["6"], ["6"], ["5"]])
    environment.asked = 0
    found = best_constants(judged, LocalVerifier(environment), num=1)
    assert environment.asked <= 6 + 6
    assert found["heldout/constant"] == pytest.approx(2 / 6)


def test_without_tasks_there_is_nothing() -> None:
    assert best_constants((), LocalVerifier(Numbers()), num=4) == {}


class Breaks(Numbers):
    """Verdicts on answers are given once; later ones raise."""

    broken = False

    def verify(self, task: Task, completion: str) -> Verdict:
        if self.broken:
            raise RuntimeError("gone")
        return super().verify(task, completion)


def test_an_environment_that_breaks_over_constants_says_nothing_of_them() -> None:
    """Answers that were set aside counted as wrong, and the table said 0 %."""
    environment = Breaks()
    judged = groups(environment, [["1"]] * 6)
    environment.broken = True
    assert best_constants(judged, LocalVerifier(environment), num=4) == {}


def test_answers_of_several_turns_are_no_constants() -> None:
    """None was tried, and the table said 0 %."""
    environment = Numbers()
    (first, *others) = groups(environment, [["1"]] * 6)
    turns = (Message(role=Role.assistant, content="1"),)
    attempt = replace(first.attempts[0], completion=replace(first.attempts[0].completion, turns=turns))
    talked = [replace(group, attempts=(attempt,)) for group in (first, *others)]
    assert best_constants(talked, LocalVerifier(environment), num=4) == {}


@pytest.mark.parametrize(
    ("task_id", "kind"),
    [
        ("chemistry/rings/easy/19d9f5b8", "chemistry/rings/easy"),
        ("code/add-3", "code/add"),
        ("code/sum_list", "code/sum_list"),
        ("task7", "task"),
        ("tool_use/e3a1b2c4d5f60718", "tool_use"),
    ],
)
def test_a_kind_is_read_from_the_id(task_id: str, kind: str) -> None:
    assert kind_of(Task(id=task_id, env="any", messages=(Message(role=Role.user, content="?"),), payload=None)) == kind
