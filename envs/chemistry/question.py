"""What is a question of this environment? The seam between the families and the environment that serves them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Protocol, runtime_checkable

from sdpo.envs.chemistry.answers import Unreadable


class Difficulty(str, Enum):
    """How hard a question is meant to be: by the size of its molecule or by the number of its steps, as its family says."""

    easy = "easy"
    medium = "medium"
    hard = "hard"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What a question says of an answer."""

    is_well_formed: bool
    """It reads as what was asked for: an integer, a formula, or a SMILES of a molecule."""
    feedback: str | None
    """What is wrong with it; None where it is right."""


@runtime_checkable
class Question(Protocol):
    """A task's payload: frozen and picklable, it knows its wording and judges answers."""

    @property
    def key(self) -> str:
        """What the question is about, unique within its family: a SMILES, a formula, bounds."""
        ...

    @property
    def difficulty(self) -> Difficulty: ...

    @property
    def prompt(self) -> str:
        """The question in words."""
        ...

    @property
    def reference(self) -> str:
        """One right answer, never to be shown to a student."""
        ...

    def judge(self, answer: str) -> Judgement:
        """Say what is wrong with ``answer``, without giving the reference away."""
        ...


RIGHT = Judgement(is_well_formed=True, feedback=None)


def wrong(feedback: str) -> Judgement:
    """A readable answer that is not right."""
    return Judgement(is_well_formed=True, feedback=feedback)


def unreadable(answer: Unreadable) -> Judgement:
    """An answer that is not of the form asked for."""
    return Judgement(is_well_formed=False, feedback=answer.reason)
