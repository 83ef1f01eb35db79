"""When does a returned value equal the expected one? Compared outside the program that returned it, on its literal.

Strictly, types must agree, so that True is not 1; an integer may stand only where a float is expected. As Python compares, what
``==`` calls equal is the same as well: ``2.0`` for ``2``, ``1`` for ``True``. Either way floats are close enough within 1e-6 of
their size or 1e-9.
"""

from __future__ import annotations

import ast
import math
import warnings
from decimal import Decimal
from threading import Lock

_RELATIVE, _ABSOLUTE = 1e-6, 1e-9
_PARSING = Lock()
"""Python 3.11 keeps the depth of the tree that it builds in one place for all threads, and raises SystemError if two build."""
_NO_PYTHON = (ValueError, SyntaxError, TypeError, ArithmeticError, MemoryError, RecursionError)


def parse_literal(text: str) -> object:
    """The value of a Python literal. Raises ValueError for anything else, however deep or long."""
    try:
        with _PARSING, warnings.catch_warnings(action="ignore"):  # the answer's text, not ours, is what is warned of
            return ast.literal_eval(text)
    except _NO_PYTHON as error:
        raise ValueError(f"a result must be a Python literal; got {text[:80]!r}") from error


def parse_module(source: str) -> ast.Module | None:
    """The tree of somebody else's source; None where it is not Python, for whatever reason."""
    try:
        with _PARSING, warnings.catch_warnings(action="ignore"):
            return ast.parse(source)
    except _NO_PYTHON:
        return None


def shown(value: object) -> str:
    """``repr`` of a literal's value, also where Python refuses it: for an integer of more than 4300 digits."""
    try:
        return repr(value)
    except ValueError:
        pass
    match value:
        case int():
            return str(Decimal(value))  # which knows no such limit
        case dict():
            return "{" + ", ".join(f"{shown(key)}: {shown(item)}" for key, item in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(shown, value)) + "]"
        case tuple():
            return "(" + ", ".join(map(shown, value)) + (",)" if len(value) == 1 else ")")
        case set() | frozenset():
            return "{" + ", ".join(map(shown, value)) + "}"
        case _:
            return f"a {type(value).__name__}"


def is_same(expected: object, actual: object) -> bool:
    """Whether ``actual``, a literal's value, is what was expected, types included."""
    if isinstance(expected, float) and isinstance(actual, (int, float)) and not isinstance(actual, bool):
        return _is_close(expected, actual)
    if type(expected) is not type(actual):
        return False
    if isinstance(expected, (list, tuple)):
        assert isinstance(actual, (list, tuple))
        return len(expected) == len(actual) and all(map(is_same, expected, actual))
    if isinstance(expected, dict):
        assert isinstance(actual, dict)
        theirs = {key: (key, value) for key, value in actual.items()}
        return len(expected) == len(actual) and all(
            key in theirs and is_same(key, theirs[key][0]) and is_same(value, theirs[key][1]) for key, value in expected.items()
        )
    if isinstance(expected, (set, frozenset)):
        assert isinstance(actual, (set, frozenset))
        members = {item: item for item in actual}  # equal ones have one place there, whatever their types
        return len(expected) == len(actual) and all(item in members and is_same(item, members[item]) for item in expected)
    return expected == actual


def is_equal(expected: object, actual: object, *, tuples_are_lists: bool = False) -> bool:
    """Whether ``actual`` is what was expected as Python compares. ``tuples_are_lists``: the expected value came as JSON."""

    def same(ours: object, theirs: object) -> bool:
        return is_equal(ours, theirs, tuples_are_lists=tuples_are_lists)

    if isinstance(expected, float) and isinstance(actual, (int, float)):
        return expected == actual or _is_close(expected, actual)
    if tuples_are_lists and isinstance(expected, list) and isinstance(actual, tuple):
        actual = list(actual)
    if isinstance(expected, list):
        return isinstance(actual, list) and len(expected) == len(actual) and all(map(same, expected, actual))
    if isinstance(expected, tuple):
        return isinstance(actual, tuple) and len(expected) == len(actual) and all(map(same, expected, actual))
    if isinstance(expected, dict) and isinstance(actual, dict):
        return expected.keys() == actual.keys() and all(same(value, actual[key]) for key, value in expected.items())
    return expected == actual


def _is_close(expected: float, actual: float) -> bool:
    try:
        return math.isclose(expected, actual, rel_tol=_RELATIVE, abs_tol=_ABSOLUTE)
    except OverflowError:  # an integer beyond every float
        return False
