"""Do an environment's tasks keep the rules? Well formed, distinct, the same each time, and apart between the splits."""

from __future__ import annotations

import pickle
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from sdpo.environments.findings import Finding, error, warning
from sdpo.environments.fingerprint import fingerprint
from sdpo.environments.leaks import MIN_DISTINCTIVE_CHARS, bare
from sdpo.envs import listing
from sdpo.envs.base import Environment
from sdpo.envs.judging import is_encodable
from sdpo.types import Message, Role, Task

SEEDS = (0, 1, 20_260_102)
UNKNOWN_SPLIT = "no-such-split"
MOST_TASKS = 5_000
"""Of a split with more, half of these are its first ones, and the others lie evenly over the rest."""
SEARCH_S = 30.0
"""Seconds spent on indexing a split; what takes longer is not looked at."""
MOST_PROMPT_CHARS = 200_000
"""Some fifty thousand tokens."""
SPECIAL_TOKENS = re.compile(
    r"<[|｜][\w▁]{1,40}[|｜]>|<(?:start|end)_of_turn>|\[/?INST\]|<</?SYS>>|<(?:bos|eos|pad)>|</s>", re.IGNORECASE
)
"""What the chat templates of well-known models have between the turns."""
_ANSWER = r"\b(?:answer|solution|result|target|gold|reference)(?: is|:| =|=)\W{1,8}"
"""What stands before an answer that was left in a question."""


class Listing(NamedTuple):
    """What was seen of a split."""

    num_tasks: int
    tasks: tuple[Task, ...]
    """Those that are looked at."""
    took_s: float
    """How long ``tasks()`` took."""


def tasks_of(environment: Environment, split: str, seed: int, limit: listing.Limit) -> Listing | Finding:
    """The tasks of a split, or what keeps them from being listed. Raises ``listing.Endless``."""
    where = f"tasks({split!r}, {seed})"
    try:
        began = time.monotonic()
        sequence = listing.listed(environment, split, seed, limit)
        took_s = time.monotonic() - began
        num_tasks = len(sequence)
        tasks = []
        for index in _looked_at(num_tasks):
            tasks.append(sequence[index])
            if time.monotonic() > began + took_s + SEARCH_S:
                break
    except listing.Endless:
        raise
    except Exception as failure:  # noqa: BLE001 - an environment may raise anything
        return error("tasks", where, f"raised {described(failure)}", "It must return a sequence with len() and indexing.")
    if not tasks:
        return error("tasks", where, "has no task", "Every split that is trained or evaluated on needs one.")
    for task in tasks:
        malformed = _malformed(where, task)
        if malformed is not None:
            return malformed
    return Listing(num_tasks=num_tasks, tasks=tuple(tasks), took_s=took_s)


def _looked_at(num_tasks: int) -> Sequence[int]:
    """Positions in a split."""
    if num_tasks <= MOST_TASKS:
        return range(num_tasks)
    half = MOST_TASKS // 2
    return (*range(half), *(half + index * (num_tasks - half) // half for index in range(half)))


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
        text = prompt(task)
        if len(text) > MOST_PROMPT_CHARS:
            what = f"its messages have {len(text):,} characters"
            remedy = "sampling.max_prompt_tokens must hold every prompt: shorten it, or leave the task out."
            yield warning("long-prompt", place, what, remedy)
        special = SPECIAL_TOKENS.search(text)
        if special is not None:
            what = f"its messages hold {special[0]!r}"
            yield warning("special-tokens", place, what, "A chat template may take it for the end of a turn: say it in words.")


def finds_in_questions(tasks: Sequence[tuple[str, Task, str]]) -> Iterator[Finding]:
    """Answers that were left in their questions. ``tasks``: a place, a task and its reference."""
    found = []
    for place, task, reference in tasks:
        core = bare(reference)
        if core and re.search(_ANSWER + re.escape(core) + r"(?!\w)", prompt(task), re.IGNORECASE):
            found.append((place, core))
    by_chance = len({core for _, core in found}) < 2 or len(found) < len(tasks)
    for place, core in found:
        if len(core) >= MIN_DISTINCTIVE_CHARS or not by_chance:
            what = "the question holds its answer, and calls it so"
            yield warning("answer-in-question", place, what, "The model would learn to copy it: take it out.")


def finds_in_repetition(where: str, listing: Listing, again: Listing, circumstance: str) -> Iterator[Finding]:
    """``again``: the tasks of the same split and seed, made under another ``circumstance``."""
    one, other = ([fingerprint(task) for task in made.tasks] for made in (listing, again))
    remedy = 'Draw from random.Random(f"name/{split}/{seed}"), never from the global generator, the clock or hash().'
    if listing.num_tasks != again.num_tasks:
        what = f"has {again.num_tasks} tasks and not {listing.num_tasks} when called again {circumstance}"
        yield error("repeatable-tasks", where, what, remedy)
    elif one[: len(other)] != other[: len(one)]:
        index = next(index for index, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
        what = f"differs when called again {circumstance}, first at task {listing.tasks[index].id!r}"
        yield error("repeatable-tasks", where, what, remedy)


def finds_in_change(task: Task, before: str) -> Iterator[Finding]:
    """``before``: the task's fingerprint before its answers were judged."""
    if fingerprint(task) != before:
        remedy = "Copy what you sort, pop or fill: where tasks do not travel, the next answer is judged with what is left."
        yield error("mutates-payload", f"verify, task {task.id!r}", "changes the task's payload", remedy)


def finds_between_splits(
    train: Mapping[int, Sequence[Task]], heldout: Sequence[Task], splits: tuple[str, str]
) -> Iterator[Finding]:
    """A held-out task in training makes the evaluation a lie. ``train``: seed to tasks, as training may take any seed."""
    places = tuple(f"tasks({split!r}, 0)" for split in splits)
    by_id = {task.id: task for task in heldout}
    by_prompt = {prompt(task): task for task in heldout}
    by_words = {_without_form(prompt(task)): task for task in heldout}
    for seed, tasks in train.items():
        where = f"tasks({splits[0]!r}, {seed}) and {places[1]}"
        shared = [task.id for task in tasks if task.id in by_id]
        if shared:
            what = f"both hold the id {shared[0]!r}{_and_more(shared)}"
            yield error("disjoint-ids", where, what, "Give each task to one split, whatever the seed.")
        remedy = "Divide what is asked, not the ids, between the splits."
        pairs = [(task, by_prompt[prompt(task)]) for task in tasks if prompt(task) in by_prompt]
        if pairs:
            yield error("disjoint-prompts", where, _both_ask(splits, pairs, "the same"), remedy)
            continue
        alike = [(task, by_words[words]) for task in tasks if (words := _without_form(prompt(task))) in by_words]
        if alike:
            yield warning("disjoint-prompts", where, _both_ask(splits, alike, "the same but for case and white space"), remedy)


def _both_ask(splits: tuple[str, str], pairs: Sequence[tuple[Task, Task]], what: str) -> str:
    one, other = pairs[0]
    return f"{one.id!r} of {splits[0]!r} and {other.id!r} of {splits[1]!r} ask {what}{_and_more(pairs)}"


def _and_more(found: Sequence[object]) -> str:
    return f", and {len(found) - 1} more" if len(found) > 1 else ""


def _without_form(text: str) -> str:
    """The text without white space, and without the case of words; ``c1ccccc1`` is no word, and another molecule in capitals."""
    return "".join(word.casefold() if word.isalpha() and _is_written_as_a_word(word) else word for word in _PARTS.findall(text))


_PARTS = re.compile(r"\w+|[^\w\s]")


def _is_written_as_a_word(word: str) -> bool:
    return word.islower() or word.isupper() or word.istitle()


def finds_in_unknown_split(environment: Environment, limit: listing.Limit) -> Iterator[Finding]:
    where = f"tasks({UNKNOWN_SPLIT!r}, 0)"
    remedy = "Raise ValueError with the names of the splits there are."
    try:
        num_tasks = len(listing.listed(environment, UNKNOWN_SPLIT, 0, limit))
    except ValueError:
        return
    except listing.Endless:
        raise
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
    return _flat(task.messages)


@lru_cache(maxsize=4 * MOST_TASKS)
def _flat(messages: tuple[Message, ...]) -> str:
    return " ".join(" ".join(message.content for message in messages).split())


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
