"""Drawn one-line functions: every instance is solvable, told from its neighbours, and never solved by a constant."""

from __future__ import annotations

import ast
import re

import pytest

from sdpo.envs.base import Task
from sdpo.envs.code.one_liners import OneLiners
from sdpo.envs.code.problem import compiled
from sdpo.envs.code.trials import FunctionTests, Trial
from sdpo.envs.registry import make

ENVIRONMENT = OneLiners()
TRAIN, HELDOUT = ENVIRONMENT.tasks("train", 0), ENVIRONMENT.tasks("heldout", 0)


def function_of(task: Task) -> str:
    assert isinstance(task.payload, FunctionTests)
    return task.payload.function


def trials_of(task: Task) -> tuple[Trial, ...]:
    assert isinstance(task.payload, FunctionTests)
    return (*task.payload.visible, *task.payload.hidden)


def source_of(task: Task) -> str:
    return ENVIRONMENT.reference(task).removeprefix("```python\n").removesuffix("```")


def passes(source: str, task: Task) -> bool:
    """In this process: our own source."""
    solve = compiled(source, function_of(task))
    return all(solve(*trial.arguments) == trial.expected for trial in trials_of(task))


FAMILIES = sorted({function_of(task) for task in TRAIN})


def test_both_splits_have_every_family_and_no_task_in_common() -> None:
    assert {function_of(task) for task in HELDOUT} == set(FAMILIES)
    assert len({task.id for task in (*TRAIN, *HELDOUT)}) == len(TRAIN) + len(HELDOUT)
    assert len({task.messages[-1].content for task in (*TRAIN, *HELDOUT)}) == len(TRAIN) + len(HELDOUT)
    assert len(TRAIN) > 400
    assert len(HELDOUT) > 150


def test_tasks_are_the_same_in_every_process_and_the_seed_orders_them() -> None:
    assert [task.id for task in OneLiners().tasks("train", 0)] == [task.id for task in TRAIN]
    shuffled = ENVIRONMENT.tasks("train", 1)
    assert {task.id for task in shuffled} == {task.id for task in TRAIN}
    assert shuffled != TRAIN


@pytest.mark.parametrize("family", FAMILIES)
def test_a_reference_is_right_and_a_neighbours_is_not(family: str) -> None:
    """A call that both answer alike would reward an answer that never read the number in its question."""
    tasks = [task for task in (*TRAIN, *HELDOUT) if function_of(task) == family]
    assert ENVIRONMENT.verify(tasks[0], ENVIRONMENT.reference(tasks[0])).reward == 1.0
    for task in tasks:
        for other in tasks:
            assert passes(source_of(other), task) == (other is task), (task.id, other.id)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_answer_that_is_one_off_is_wrong(family: str) -> None:
    """Bounds that were off by one passed in a third of the tasks: calls told drawn instances apart, and nothing nearer."""
    passed, num = [], 0
    for task in (task for task in (*TRAIN, *HELDOUT) if function_of(task) == family):
        tree = ast.parse(source_of(task))
        asked = task.messages[-1].content.partition("def ")[0]
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and type(node.value) is int and f"{node.value}" in asked:
                value = node.value
                for near in (value - 1, value + 1):
                    node.value = near
                    num += 1
                    if passes(ast.unparse(tree), task):
                        passed.append((task.id, near))
                node.value = value
    assert len(passed) <= num * 0.02, passed


@pytest.mark.parametrize("family", FAMILIES)
def test_no_constant_solves_a_task_nor_what_knows_the_examples_alone(family: str) -> None:
    for task in (*TRAIN, *HELDOUT):
        if function_of(task) == family:
            assert isinstance(task.payload, FunctionTests)
            assert len({repr(trial.expected) for trial in task.payload.hidden}) > 1, task.id


def test_what_is_asked_stands_in_the_question_and_the_answer_does_not() -> None:
    for task in (*TRAIN, *HELDOUT):
        question = task.messages[-1].content
        body = source_of(task).splitlines()[1].removeprefix("    return ")
        assert body not in question, task.id
        literals = {str(node.value) for node in ast.walk(ast.parse(body)) if isinstance(node, ast.Constant)}
        assert all(literal in question for literal in literals - {"0", "1", "100", ""}), task.id


def test_feedback_says_after_what_went_wrong_how_it_is_written() -> None:
    """In letters a model of 135 M parameters seldom found what it was told: 17 % solved became 32 %, a solution shown 100 %."""
    task = next(task for task in TRAIN if function_of(task) == "keep_greater")
    instance = re.search(r"greater than (\d+)", task.messages[-1].content)
    assert instance is not None
    wrong = "```python\ndef keep_greater(xs):\n    return xs\n```"
    feedback = ENVIRONMENT.verify(task, wrong).feedback
    assert feedback is not None
    seen, remark = feedback.split("\n")
    assert "was expected" in seen
    number = instance[1]
    assert remark == f"[x for x in xs if x > {number}] returns the list of the numbers in xs that are greater than {number}."
    in_letters = OneLiners(idioms="letters").verify(task, wrong).feedback
    assert in_letters == f"{seen}\n[x for x in xs if x > k] keeps what is greater than k."
    assert OneLiners(idioms="none").verify(task, wrong).feedback == seen
    assert ENVIRONMENT.verify(task, ENVIRONMENT.reference(task)).feedback is None


@pytest.mark.parametrize("idioms", ["values,letters", True, None, ["values"]])
def test_another_way_to_say_it_is_refused(idioms: object) -> None:
    with pytest.raises(ValueError, match=r"idioms must be one of values, letters, none; got .*: try values"):
        OneLiners(idioms=idioms)  # type: ignore[arg-type]


def test_families_can_be_chosen() -> None:
    environment = make("one_liners", {"families": ["add", "clamp"]})
    assert {function_of(task) for task in environment.tasks("train", 0)} == {"add", "clamp"}


@pytest.mark.parametrize("families", [["ad"], [], "add"])
def test_unknown_families_are_refused(families: object) -> None:
    with pytest.raises(
        ValueError, match=r"^env\.options\.families must be a list of one or more of add, .*; got .*: try \['add'"
    ):
        OneLiners(families=families)  # type: ignore[arg-type]


def test_another_split_and_another_environments_task_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^one_liners has the splits train and heldout; got 'test': name one of them$"):
        ENVIRONMENT.tasks("test", 0)
    stranger = make("code", {}).tasks("train", 0)[0]
    with pytest.raises(ValueError, match=r"^one_liners judges its own tasks; got .* of 'code': ask that environment$"):
        ENVIRONMENT.verify(stranger, "")
