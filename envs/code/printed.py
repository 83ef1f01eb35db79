"""When does a program's output equal the expected one?

White space at the end of lines and blank lines at the end do not count. All else must agree to the character, with one exception.
Where a decimal number is expected (``0.5``, ``2e-9``), any number within 1e-6 of it will do, absolutely or relatively.
"""

from __future__ import annotations

import math
import re

_TOLERANCE = 1e-6
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_TOKENS = re.compile(r"(\s+)")


def is_same_output(expected: str, printed: str) -> bool:
    """Whether ``printed`` will do where ``expected`` was asked for."""
    wanted, got = lines_of(expected), lines_of(printed)
    return len(wanted) == len(got) and all(map(is_same_line, wanted, got))


def lines_of(output: str) -> list[str]:
    """The lines that count, without what stands invisible at their ends."""
    lines = [line.rstrip() for line in output.split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def is_same_line(expected: str, printed: str) -> bool:
    if expected == printed:
        return True
    wanted, got = _TOKENS.split(expected), _TOKENS.split(printed)
    return len(wanted) == len(got) and all(map(_is_same_token, wanted, got))


def _is_same_token(expected: str, printed: str) -> bool:
    if expected == printed:
        return True
    if not (_is_decimal(expected) and _NUMBER.fullmatch(printed)):
        return False
    wanted, got = float(expected), float(printed)
    return math.isfinite(got) and math.isclose(wanted, got, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)


def _is_decimal(token: str) -> bool:
    return any(mark in token for mark in ".eE") and _NUMBER.fullmatch(token) is not None
