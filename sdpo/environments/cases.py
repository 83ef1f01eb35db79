"""Which answers to which tasks are judged? The battery, and around a known right answer, that one and near misses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sdpo.environments.battery import Answer, near_misses, wrong_answers
from sdpo.environments.findings import error
from sdpo.environments.records import Began, Request, Send
from sdpo.environments.task_rules import described
from sdpo.envs.base import Environment, HasReference, Task

REFERENCE = "the reference"
NUM_OTHERS = 2
"""References of other tasks that a task is answered with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One answer to one task."""

    task: Task
    answer: Answer
    is_heldout: bool
    reference: str | None
    """A right answer to the task, where the environment gives one."""

    @property
    def key(self) -> tuple[str, str]:
        return self.task.id, self.answer.name

    @property
    def where(self) -> str:
        return f"verify, task {self.task.id!r}, answer {self.answer.name!r}"


def cases_of(environment: Environment, sampled: Mapping[str, tuple[Task, ...]], request: Request, send: Send) -> list[Case]:
    """Every answer of the battery to every sampled task; all answers of one kind before those of the next."""
    references: dict[str, str] = {}
    for task in (task for tasks in sampled.values() for task in tasks):
        reference = _reference(environment, task, request.verdict_limit_s, send)
        if reference is not None:
            references[task.id] = reference
    cases = [
        Case(task=task, answer=answer, is_heldout=split == request.heldout_split, reference=references.get(task.id))
        for split, tasks in sampled.items()
        for task in tasks
        for answer in _answers(task, references)
    ]
    position = {name: index for index, name in enumerate(dict.fromkeys(case.answer.name for case in cases))}
    return sorted(cases, key=lambda case: position[case.answer.name])


def _answers(task: Task, references: Mapping[str, str]) -> Iterator[Answer]:
    reference = references.get(task.id)
    if reference is not None:
        yield Answer(name=REFERENCE, text=reference)
    yield from wrong_answers(task)
    if reference is not None:
        others = [other for other in references.values() if other != reference]
        yield from near_misses(reference, tuple(others[:NUM_OTHERS]))


def _reference(environment: Environment, task: Task, limit_s: float, send: Send) -> str | None:
    if not isinstance(environment, HasReference):
        return None
    where = f"reference, task {task.id!r}"
    send(Began(where=where, limit_s=limit_s))
    try:
        reference: object = environment.reference(task)
    except Exception as failure:  # noqa: BLE001 - an environment may raise anything
        send(error("reference", where, f"raised {described(failure)}", "It must return a complete, right answer."))
        return None
    if not isinstance(reference, str) or not reference:
        send(error("reference", where, f"returned {reference!r:.80}", "It must return a complete, right answer, as text."))
        return None
    return reference
