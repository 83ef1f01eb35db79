"""What is read from a row: a question with its tests, or the reason why the row is left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from sdpo.envs.code.formats.asserts import Asserted
from sdpo.envs.code.formats.rows import Row
from sdpo.envs.code.trials import Equality, FunctionTests, ProgramTests, ProgramTrial, Tests, Trial

CONTEST_PREAMBLE = """\
from typing import *
from operator import *
from string import *
from bisect import *
from collections import *
from copy import *
from functools import *
from heapq import *
from itertools import *
from math import *
from builtins import *
import bisect, collections, copy, functools, heapq, itertools, math, operator, random, re, string, sys
sys.setrecursionlimit(50_000)
"""
"""What contest sites have imported already, and how deep they let a function call itself: answers to their questions rely on it.
A later line wins where two give the same name: ``pow`` is the built-in, ``Counter`` that of collections, ``copy`` the module."""

_MAX_DEPTH = 20
"""What comes back from an answer may be nested no deeper (``driver.py``)."""
_Test = TypeVar("_Test")
Pair = tuple[object, object]
"""What a test gives and what it expects, as the row has them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One problem, in whatever format it came."""

    identity: str
    system: str | None
    """None: the question says itself in which form it wants its answer."""
    text: str
    tests: Tests
    num_left_out: int = 0
    """Tests of the row that cannot be used: ``formats/asserts.py`` says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A row that makes no task, which is no fault of the row."""

    identity: str
    reason: str
    """The same words for the same reason."""
    num_left_out: int = 0
    """Its tests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """How many tests of a question are used, and how many of them may be told where its format makes no difference."""

    max_tests: int
    num_visible: int
    equality: Equality = Equality.python


NO_ASSERT = "it has no usable assert"
"""The reason to leave out a row whose tests are asserts."""
FUNCTION_SYSTEM = (
    "You are a Python programmer. Reply with the Python code that is asked for in one ```python block and nothing else."
)
PROGRAM_SYSTEM = (
    "You are a Python programmer. Reply with one Python program, which reads standard input and prints, "
    "in a ```python block and nothing else."
)


def split_tests(tests: Sequence[_Test], examples: Examples) -> tuple[list[_Test], list[_Test]]:
    """The visible and the hidden ones: at least one is visible, and at least one hidden if there are two."""
    used = tests[: examples.max_tests]
    num_visible = max(1, min(examples.num_visible, len(used) - 1))
    return list(used[:num_visible]), list(used[num_visible:])


def asserted_tests(
    asserted: Asserted, examples: Examples, *, function: str, preamble: str, time_limit_s: float | None = None
) -> FunctionTests:
    """Tests of a function that were written as asserts, of which at least one can be used."""
    visible, hidden = split_tests(asserted.trials, examples) if asserted.trials else ([], [])
    return FunctionTests(
        function=function,
        visible=tuple(visible),
        hidden=tuple(hidden),
        check=asserted.check,
        preamble=preamble,
        time_limit_s=time_limit_s,
    )


def contest_tests(
    row: Row,
    visible: Sequence[Pair],
    hidden: Sequence[Pair],
    *,
    function: str | None,
    equality: Equality,
    time_limit_s: float | None = None,
) -> Tests:
    """Tests of a contest's question: of a function of that name, or of a program where there is none."""
    if function is None:
        return ProgramTests(
            visible=tuple(_program_trial(row, *pair) for pair in visible),
            hidden=tuple(_program_trial(row, *pair) for pair in hidden),
            preamble=CONTEST_PREAMBLE,
            time_limit_s=time_limit_s,
        )
    return FunctionTests(
        function=function,
        visible=tuple(_trial(row, *pair, equality) for pair in visible),
        hidden=tuple(_trial(row, *pair, equality) for pair in hidden),
        preamble=CONTEST_PREAMBLE,
        time_limit_s=time_limit_s,
    )


def _trial(row: Row, given: object, expected: object, equality: Equality) -> Trial:
    """A call whose arguments and value are JSON: one argument a line of a text. A list of arguments comes with a plain value."""
    if isinstance(given, str):
        arguments = [row.parsed("input of a test", line) for line in given.split("\n") if line.strip()]
        expected = row.parsed("output of a test", expected)
    else:
        arguments = row.items("input of a test", given)
    if not _is_shallow([*arguments, expected], _MAX_DEPTH):
        raise row.refused(f"a test's values must be nested no deeper than {_MAX_DEPTH} times: remove the test or the row")
    return Trial(arguments=tuple(arguments), expected=expected, equality=equality, is_json=True)


def _is_shallow(value: object, depth: int) -> bool:
    items = value if isinstance(value, list) else list(value.values()) if isinstance(value, dict) else []
    return depth >= 0 and all(_is_shallow(item, depth - 1) for item in items)


def _program_trial(row: Row, given: object, expected: object) -> ProgramTrial:
    return ProgramTrial(stdin=_joined(row, "input of a test", given), expected=_joined(row, "output of a test", expected))


def _joined(row: Row, what: str, text: object) -> str:
    """A list of lines stands for their text."""
    if isinstance(text, list) and all(isinstance(line, str) for line in text):
        return "\n".join(text)
    if not isinstance(text, str):
        raise row.refused(f"{what!r} must be a text, to read or to print; got a {type(text).__name__}: correct or remove the row")
    return text


def starting_from(text: str, starter: str | None) -> str:
    """A question and the code that its answer has to complete."""
    return text.strip() if starter is None else f"{text.strip()}\n\nComplete this code:\n```python\n{starter.rstrip()}\n```"
