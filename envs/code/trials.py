"""What judges an answer: which calls or which runs are made, and what must come of each?"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from sdpo.envs.code.literals import shown

Arguments = tuple[object, ...]


class Equality(str, Enum):
    """When a value is the expected one (``literals.py``)."""

    strict = "strict"
    """Types count: ``1`` is not ``True``, and ``2.0`` is not ``2``."""
    python = "python"
    """What ``==`` says. Subclasses of built-in types are such types, so a Counter may be the expected dict."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One call and what it must return. Both are literals: numbers, strings, None, lists, tuples, dicts and sets."""

    arguments: Arguments
    expected: object
    views: tuple[str, ...] = ()
    """Built-in functions that are applied to what comes back, in this order: ``("set", "len")`` of ``len(set(f(x))) == 3``."""
    equality: Equality = Equality.strict
    is_json: bool = False
    """What is expected came as JSON, which has no tuples. So where ``==`` decides, one may stand for a list."""
    tolerance: float = 0.0
    """How far a number may be from the expected one, beyond what equality allows."""
    relative: float = 0.0
    """The same, as a share of the larger number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A question's own test in Python, for what no trial can say. It never shares a process with an answer (``checks.py``)."""

    source: str
    """Ends by itself where the answer is right; an assert fails where it is wrong. Each assert stands on one line."""
    names: tuple[str, ...]
    """What it calls the answer's function."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionTests:
    """The payload of a task whose answer is a function."""

    function: str
    """A function of the module, or a method of its class ``Solution``."""
    visible: tuple[Trial, ...]
    """May be told to the student; the first ones stand in the prompt."""
    hidden: tuple[Trial, ...]
    """May not be told to the student."""
    check: Check | None = None
    """One more test: hidden, unless there is no trial. Then it is the visible one."""
    preamble: str = ""
    """Source that the answer may rely on, run before it: imports, and helpers that the question shows."""
    time_limit_s: float | None = None
    """The question's own; None: the environment's."""

    @property
    def num_visible(self) -> int:
        return len(self.visible) or int(self.check is not None)

    @property
    def num_hidden(self) -> int:
        return len(self.hidden) + int(self.check is not None and bool(self.visible))


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

    @property
    def num_visible(self) -> int:
        return len(self.visible)

    @property
    def num_hidden(self) -> int:
        return len(self.hidden)


Tests = FunctionTests | ProgramTests


def call_text(function: str, arguments: Arguments, views: tuple[str, ...] = ()) -> str:
    """``call_text("clamp", (5, 0, 3), ("bool",))`` is ``"bool(clamp(5, 0, 3))"``."""
    text = f"{function}({', '.join(map(shown, arguments))})"
    for view in views:
        text = f"{view}({text})"
    return text
