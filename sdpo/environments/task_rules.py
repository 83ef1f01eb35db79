"""Do an environment's tasks keep the rules? Well formed, distinct, the same each time, and apart between the splits."""

from __future__ import annotations

import pickle
import time
from collections.abc import Iterator, Mapping, Sequence

from sdpo.environments.findings import Finding, error
from sdpo.environments.fingerprint import fingerprint
from sdpo.envs.base import Environment
from sdpo.envs.judging import is_encodable
from sdpo.types import Message, Role, Task

SEEDS = (0, 1, 20_260_102)
UNKNOWN_SPLIT = "no-such-split"
MOST_TASKS = 5_000
SEARCH_S = 30.0
"""Seconds spent on making a split's tasks. Only the first tasks of a split are looked at if it has more than ``MOST_TASKS``, or
takes longer to make."""


def tasks_of(environment: Environment, split: str, seed: int) -> tuple[Task, ...] | Finding:
    """The tasks of a split, or what keeps them from being listed."""
    where = f"tasks({split!r}, {seed})"
    try:
        sequence = environment.tasks(split, seed)
        num_tasks = len(sequence)
        until = time.monotonic() + SEARCH_S
        tasks = []
        for index in range(min(num_tasks, MOST_TASKS)):
            tasks.append(sequence[index])
            if time.monotonic() > until:
                break
    except Exception as failure:  # noqa: BLE001 - an environment may raise anything
        return error("tasks", where, f"raised {described(failure)}", "It must return a sequence with len() and indexing.")
    if not tasks:
        return error("tasks", where, "has no task", "Every split that is trained or evaluated on needs one.")
    for task in tasks:
        malformed = _malformed(where, task)
        if malformed is not None:
            return malformed
    return tuple(tasks)


def _malformed(where: str, task: object) -> Finding | None:
    """What keeps a task from being looked at any further."""
    if not isinstance(task, Task):
        return error("tasks", where, f"holds an object of type {type(task).__name__}", "It must hold sdpo.types.Task.")
    if not isinstance(task.id, str) or not task.id.strip():
        return error("ids", where, f"has a task with the id {task.id!r}", "An id is text, as in 'letters/a'.")
    remedy = "messages is a tuple of Message(role=Role…, content=text)."
    if not isinstance(task.messages, tuple):
        return error("messages", f"{where}, task {task.id!r}", f"its messages are a {type(task.messages).__name__}", remedy)
    for message in task.messages:
        if not isinstance(message, Message) or not isinstance(message.role, Role) or not isinstance(message.content, str):
            return error("messages", f"{where}, task {task.id!r}", f"one of its messages is {message!r}"[:200], remedy)
    return None


def finds_in_split(name: object, where: str, tasks: Sequence[Task]) -> Iterator[Finding]:
    """What is wrong within one split. ``name``: the environment's."""
    seen: set[str] = set()
    for task in tasks:
        place = f"{where}, task {task.id!r}"
        if task.id in seen:
            yield error("unique-ids", place, "the id occurs twice", "Put what distinguishes the tasks into their ids.")
        seen.add(task.id)
        if task.env != name:
            yield error("env-name", place, f"its env is {task.env!r}, and not {name!r}", "Write env=self.name.")
        problem = _problem_of_messages(task.messages)
        if problem is not None:
            yield error("messages", place, problem, "Every message says something that a tokenizer can read.")


def finds_in_repetition(where: str, tasks: Sequence[Task], again: Sequence[Task], circumstance: str) -> Iterator[Finding]:
    """``again``: the tasks of the same split and seed, made under another ``circumstance``."""
    one, other = ([fingerprint(task) for task in made] for made in (tasks, again))
    if one[: len(other)] != other[: len(one)]:
        index = next(index for index, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
        yield error(
            "repeatable-tasks",
            where,
            f"differs when called again {circumstance}, first at task {tasks[index].id!r}",
            'Draw from random.Random(f"name/{split}/{seed}"), never from the global generator, the clock or hash().',
        )


def finds_between_splits(
    train: Mapping[int, Sequence[Task]], heldout: Sequence[Task], splits: tuple[str, str]
) -> Iterator[Finding]:
    """A held-out task in training makes the evaluation a lie. ``train``: seed to tasks, as training may take any seed."""
    ids = {task.id for task in heldout}
    prompts = {prompt(task) for task in heldout}
    for seed, tasks in train.items():
        where = f"tasks({splits[0]!r}, {seed}) and tasks({splits[1]!r}, 0)"
        for task in tasks:
            if task.id in ids:
                yield error(
                    "disjoint-ids", where, f"both hold the id {task.id!r}", "Give each task to one split, whatever the seed."
                )
                break
        for task in tasks:
            if prompt(task) in prompts:
                yield error(
                    "disjoint-prompts",
                    where,
                    f"both ask what task {task.id!r} asks",
                    "Divide what is asked, not the ids, between the splits.",
                )
                break


def finds_in_unknown_split(environment: Environment) -> Iterator[Finding]:
    where = f"tasks({UNKNOWN_SPLIT!r}, 0)"
    remedy = "Raise ValueError with the names of the splits there are."
    try:
        num_tasks = len(environment.tasks(UNKNOWN_SPLIT, 0))
    except ValueError:
        return
    except Exception as failure:  # noqa: BLE001 - an environment may raise anything
        yield error("unknown-split", where, f"raised {described(failure)} and not ValueError", remedy)
    else:
        yield error("unknown-split", where, f"was not refused but gave {num_tasks} tasks", remedy)


def pickled(where: str, task: Task) -> bytes | Finding:
    """The task as it travels to a verifier's process."""
    try:
        return pickle.dumps(task)
    except Exception as failure:  # noqa: BLE001 - pickling calls the payload's own code
        return error(
            "picklable",
            f"{where}, task {task.id!r}",
            f"cannot be pickled: {described(failure)}",
            "Keep plain data in the payload: no function, lock, open file or class within a function.",
        )


def prompt(task: Task) -> str:
    """All that the student reads, white space evened out."""
    return " ".join(" ".join(message.content for message in task.messages).split())


def described(failure: BaseException) -> str:
    """Type and message, short enough for a sentence."""
    message = " ".join(str(failure).encode("utf-8", "backslashreplace").decode().split())
    return f"{type(failure).__name__}" + (f": {message[:200]}" if message else "")


def _problem_of_messages(messages: Sequence[Message]) -> str | None:
    for message in messages:
        if not message.content.strip():
            return f"the {message.role.value}'s message is empty"
        if not is_encodable(message.content) or "\0" in message.content:
            return f"the {message.role.value}'s message holds a null byte or half a surrogate pair"
    if any(message.role is Role.system for message in messages[1:]):
        return "a system message stands behind another message"
    return None
