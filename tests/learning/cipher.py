"""The gym's environment: digits to be translated with a cipher, by a model that half believes in another one.

A task names a level and some digits; the answer is each digit's translation. The gym's model was trained
(``pretrain.py``) to give each digit the right translation with the level's probability r and else the one of an old cipher, so
that it solves a task of L digits with probability r^L: base success is chosen from a fraction of a per cent to any height, for
answers of any length, and no sharpening of its distribution reaches the right one where r is below a half. Shown a solution or
what was expected, it is nearly always right. What it has to learn is one thing that all tasks share: which cipher is meant.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from sdpo.types import Message, Role, Task, Verdict

LEVELS = "abcdefghijklmnopqrstuvwxyz"
BASE_SUCCESS = (0.0001, 0.001, 0.01, 0.05, 0.3)
LENGTHS = (4, 8, 12)
NUM_TASKS = {"train": 1024, "heldout": 128}


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """How well the gym's model does without hindsight."""

    letter: str
    length: int
    """Digits of a task."""
    base_success: float

    @property
    def right(self) -> float:
        """Probability that a digit is translated with the right cipher."""
        return float(self.base_success ** (1.0 / self.length))


@cache
def levels() -> tuple[Level, ...]:
    """Every length with every base success, each under a letter that the model sees."""
    pairs = [(length, success) for length in LENGTHS for success in BASE_SUCCESS]
    return tuple(
        Level(letter=letter, length=length, base_success=success)
        for letter, (length, success) in zip(LEVELS, pairs, strict=False)
    )


def level(length: int, base_success: float) -> Level:
    """Raises ValueError where the model was not trained for it."""
    for one in levels():
        if one.length == length and one.base_success == base_success:
            return one
    raise ValueError(f"the gym has the lengths {LENGTHS} and base successes {BASE_SUCCESS}; got {length} and {base_success}.")


NEW = str.maketrans("0123456789", "7294063815")
"""The cipher that is right."""
OLD = str.maketrans("0123456789", "2940638157")
"""The one that the model half believes in; they agree on no digit."""


def question(digits: str, letter: str) -> str:
    """What the policy is asked."""
    return f"Cipher {letter}: {digits}"


def expected(answer: str, given: str) -> str:
    """The environment's feedback."""
    return f"Got {given}, expected {answer}."


class Cipher:
    """Tasks of one level."""

    name = "cipher"

    def __init__(self, length: int = 8, base_success: float = 0.001, misleading: bool = False) -> None:
        """``misleading``: the feedback insists on the old cipher."""
        self._level = level(length, base_success)
        self._misleading = misleading

    def tasks(self, split: str, seed: int) -> Sequence[Task]:
        """Held-out tasks have even digit sums, those of training odd ones."""
        if split not in NUM_TASKS:
            raise ValueError(f"the splits are {', '.join(NUM_TASKS)}; got {split!r}")
        parity = 1 if split == "train" else 0
        draw = random.Random(f"{split}/{seed}")
        tasks: dict[str, Task] = {}
        while len(tasks) < NUM_TASKS[split]:
            digits = "".join(draw.choice("0123456789") for _ in range(self._level.length))
            if sum(map(int, digits)) % 2 == parity:
                name = f"cipher/{self._level.letter}-{digits}"
                text = question(digits, self._level.letter)
                tasks[name] = Task(id=name, env=self.name, messages=(Message(role=Role.user, content=text),), payload=digits)
        return list(tasks.values())

    def verify(self, task: Task, completion: str) -> Verdict:
        """Solved or not: no partial credit."""
        given, digits = completion.strip(), str(task.payload)
        if given == digits.translate(NEW):
            return Verdict(reward=1.0)
        answer = digits.translate(OLD if self._misleading else NEW)
        return Verdict(reward=0.0, feedback=expected(answer, given))

    def reference(self, task: Task) -> str:
        """The right answer."""
        return str(task.payload).translate(NEW)
