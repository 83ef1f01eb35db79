"""What judges an answer: which calls or which runs are made, and what must come of each?"""

from __future__ import annotations

from dataclasses import dataclass

Arguments = tuple[object, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One call and what it must return. Both are literals: numbers, strings, None, lists, tuples, dicts and sets."""

    arguments: Arguments
    expected: object
    tolerance: float = 0.0
    """How far a number may be from the expected one, beyond what ``literals.is_same`` allows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionTests:
    """The payload of a task whose answer is a function."""

    function: str
    """A function of the module, or a method of its class ``Solution``."""
    visible: tuple[Trial, ...]
    """May be told to the student; the first ones stand in the prompt."""
    hidden: tuple[Trial, ...]
    """May not be told to the student."""
    preamble: str = ""
    """Source that the answer may rely on, run before it: imports, and helpers that the question shows."""
    time_limit_s: float | None = None
    """The question's own; None: the environment's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramTrial:
    """One run: what stands on standard input, and what must be printed."""

    stdin: str
    expected: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramTests:
    """The payload of a task whose answer is a program that reads and prints. Its fields are those of ``FunctionTests``."""

    visible: tuple[ProgramTrial, ...]
    hidden: tuple[ProgramTrial, ...]
    preamble: str = ""
    time_limit_s: float | None = None


Tests = FunctionTests | ProgramTests


def call_text(function: str, arguments: Arguments) -> str:
    """``call_text("clamp", (5, 0, 3))`` is ``"clamp(5, 0, 3)"``."""
    return f"{function}({', '.join(map(repr, arguments))})"
