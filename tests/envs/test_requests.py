"""Requests and the calls that fulfil them: what is right, what is said of what is wrong, and that the splits are apart."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from sdpo.envs.base import Task
from sdpo.envs.tool_use.requests import MAX_WORDS, NUM_TASKS, Requests, Wanted

ENVIRONMENT = Requests()


def of(tool: str, split: str = "train") -> tuple[Task, Wanted]:
    task = next(task for task in ENVIRONMENT.tasks(split, 0) if task.id.endswith(f"-{tool}"))
    assert isinstance(task.payload, Wanted)
    return task, task.payload


def call(tool: str, **arguments: object) -> str:
    return f"Action: {tool}\nAction Input: {json.dumps(arguments)}"


def said(task: Task, answer: str) -> str:
    verdict = ENVIRONMENT.verify(task, answer)
    assert verdict.reward == 0.0
    assert verdict.feedback is not None
    return verdict.feedback


@pytest.mark.parametrize("split", list(NUM_TASKS))
def test_every_reference_is_right_and_no_answer_is_right_twice(split: str) -> None:
    """So a constant answer, or the commonest of a tool, solves nothing: what is right stands in the request."""
    tasks = ENVIRONMENT.tasks(split, 0)
    assert len(tasks) == NUM_TASKS[split]
    references = Counter(ENVIRONMENT.reference(task) for task in tasks)
    assert max(references.values()) <= 0.01 * len(tasks)
    assert all(ENVIRONMENT.verify(task, ENVIRONMENT.reference(task)).reward == 1.0 for task in tasks)


def test_the_splits_share_no_request() -> None:
    asked = {split: {task.messages[-1].content.split("\n\n")[1] for task in ENVIRONMENT.tasks(split, 0)} for split in NUM_TASKS}
    assert not asked["train"] & asked["heldout"]


def test_a_seed_orders_the_tasks_and_changes_none() -> None:
    first, second = (ENVIRONMENT.tasks("train", seed) for seed in (0, 1))
    assert first != second
    assert sorted(task.id for task in first) == sorted(task.id for task in second)


def test_a_value_is_read_as_a_person_would_read_it() -> None:
    task, wanted = of("set_alarm")
    label = wanted.values["label"]
    assert isinstance(label, str)
    answer = call("set_alarm", time=wanted.values["time"], label=f" {label.title()}. ")
    assert ENVIRONMENT.verify(task, answer).reward == 1.0


def test_a_free_text_has_many_right_forms_and_must_mention_both_things() -> None:
    task, wanted = of("send_message")
    first, second = wanted.mentions["text"]
    for text in (f"The {first} and the {second}!", f"{second.upper()}, {first}", f"Is the {second} near the {first}?"):
        assert ENVIRONMENT.verify(task, call("send_message", to=wanted.values["to"], text=text)).reward == 1.0
    feedback = said(task, call("send_message", to=wanted.values["to"], text=f"The {first}s are here."))
    assert "does not mention 2 of the things" in feedback, "part of another word is no mention"
    assert first not in feedback
    long = " ".join([first, second] + ["and"] * MAX_WORDS)
    assert f"of {MAX_WORDS + 2} words" in said(task, call("send_message", to=wanted.values["to"], text=long))


def test_feedback_says_what_is_wrong_and_never_what_was_expected() -> None:
    task, wanted = of("book_table")
    right = dict(wanted.values)
    assert "No tool call was found" in said(task, "I would like to help.")
    assert "There is no tool named" in said(task, call("book", **right))
    assert "lacks the argument city" in said(task, call("book_table", people=right["people"], time=right["time"]))
    assert "gives the argument people a string" in said(task, call("book_table", **{**right, "people": str(right["people"])}))
    other = next(tool.name for tool in wanted.tools if tool.name != "book_table")
    parameters = next(tool.parameters for tool in wanted.tools if tool.name == other)
    arguments = {parameter.name: 1 if parameter.kind == "integer" else "x" for parameter in parameters or ()}
    assert "does not do what was asked" in said(task, call(other, **arguments))
    feedback = said(task, call("book_table", **{**right, "city": "Atlantis"}))
    assert "gives city as 'Atlantis', which the request does not say" in feedback
    assert str(right["city"]) not in feedback
    twice = call("book_table", **right)
    assert "2 calls were made" in said(task, f"{twice}\n{twice}")


@pytest.mark.parametrize("hostile", ["Action: " * 10_000, "Action: set_alarm\nAction Input: " + "[" * 100_000, "\x00\ud800", ""])
def test_hostile_answers_are_wrong_answers(hostile: str) -> None:
    task, _ = of("set_alarm")
    assert ENVIRONMENT.verify(task, hostile).reward == 0.0


def test_what_is_asked_for_must_be_there() -> None:
    with pytest.raises(ValueError, match=r"env\.options\.kinds must be a list of one or more of set_alarm"):
        Requests(kinds=["dance"])
    with pytest.raises(ValueError, match="requests has the splits train and heldout; got 'test'"):
        ENVIRONMENT.tasks("test", 0)
    assert {task.id.rpartition("-")[2] for task in Requests(kinds=["translate"]).tasks("heldout", 0)} == {"translate"}
