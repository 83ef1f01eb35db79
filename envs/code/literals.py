"""When does a returned value equal the expected one? Compared outside the program that returned it, on its literal.

Types must agree, so that True is not 1. An integer may stand only where a float is expected. Floats are close enough within a
relative 1e-6 or an absolute 1e-9.
"""

from __future__ import annotations

import ast
import math
import warnings
from threading import Lock

_RELATIVE, _ABSOLUTE = 1e-6, 1e-9
_PARSING = Lock()
"""Python 3.11 keeps the depth of the tree that it builds in one place for all threads, and raises SystemError if two build."""


def parse_literal(text: str) -> object:
    """The value of a Python literal. Raises ValueError for anything else, however deep or long."""
    try:
        with _PARSING, warnings.catch_warnings(action="ignore"):  # the answer's text, not ours, is what is warned of
            return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, ArithmeticError, MemoryError, RecursionError) as error:
        raise ValueError(f"a result must be a Python literal; got {text[:80]!r}") from error


def is_same(expected: object, actual: object) -> bool:
    """Whether ``actual``, a literal's value, is what was expected."""
    if isinstance(expected, float) and isinstance(actual, (int, float)) and not isinstance(actual, bool):
        try:
            return math.isclose(expected, actual, rel_tol=_RELATIVE, abs_tol=_ABSOLUTE)
        except OverflowError:  # an integer beyond every float
            return False
    if type(expected) is not type(actual):
        return False
    if isinstance(expected, (list, tuple)):
        assert isinstance(actual, (list, tuple))
        return len(expected) == len(actual) and all(map(is_same, expected, actual))
    if isinstance(expected, dict):
        assert isinstance(actual, dict)
        theirs = {(type(key), key): value for key, value in actual.items()}
        return len(expected) == len(actual) and all(
            (type(key), key) in theirs and is_same(value, theirs[type(key), key]) for key, value in expected.items()
        )
    if isinstance(expected, set):
        assert isinstance(actual, set)
        return {(type(item), item) for item in expected} == {(type(item), item) for item in actual}
    return expected == actual
