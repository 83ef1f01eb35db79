"""When does a program's output equal the expected one?

White space at the end of lines and blank lines at the end do not count. All else must agree to the character, with one exception.
Where a decimal number is expected (``0.5``, ``2e-9``), any number within 1e-6 of it will do, absolutely or relatively.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from itertools import zip_longest

_TOLERANCE = 1e-6
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_TOKENS = re.compile(r"\s+|\S+")


def is_same_output(expected: str, printed: str) -> bool:
    """Whether ``printed`` will do where ``expected`` was asked for."""
    wanted = lines_of(expected)
    got = lines_of(printed, most=len(wanted) + 1)
    return len(wanted) == len(got) and all(map(is_same_line, wanted, got))


def lines_of(output: str, *, most: int | None = None) -> list[str]:
    """The lines that count, without what stands invisible at their ends. Beyond ``most``, the rest is one line."""
    output = output.rstrip()
    return [line.rstrip() for line in output.split("\n", -1 if most is None else most - 1)] if output else []


def is_same_line(expected: str, printed: str) -> bool:
    if expected == printed:
        return True
    tokens = zip_longest(_tokens(expected), _tokens(printed))
    return all(wanted is not None and got is not None and _is_same_token(wanted, got) for wanted, got in tokens)


def _tokens(line: str) -> Iterator[str]:
    """Words and what stands between them, one at a time: what is printed may be words alone."""
    return (token[0] for token in _TOKENS.finditer(line))


def _is_same_token(expected: str, printed: str) -> bool:
    if expected == printed:
        return True
    if not (_is_decimal(expected) and _NUMBER.fullmatch(printed)):
        return False
    wanted, got = float(expected), float(printed)
    return math.isfinite(got) and math.isclose(wanted, got, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)


def _is_decimal(token: str) -> bool:
    return any(mark in token for mark in ".eE") and _NUMBER.fullmatch(token) is not None
