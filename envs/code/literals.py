"""When does a returned value equal the expected one? Compared outside the program that returned it, on its literal.

Strictly, types must agree, so that True is not 1; an integer may stand only where a float is expected. As Python compares, what
``==`` calls equal is the same as well: ``2.0`` for ``2``, ``1`` for ``True``. Either way floats are close enough within 1e-6 of
their size or 1e-9.
"""

from __future__ import annotations

import ast
import math
import warnings
from collections.abc import Callable, Collection
from decimal import Decimal

from sdpo.envs.literal_text import PARSING, Members, Pairs

_RELATIVE, _ABSOLUTE = 1e-6, 1e-9
_NO_PYTHON = (ValueError, SyntaxError, TypeError, ArithmeticError, MemoryError, RecursionError)
_MOST_SHOWN = 40_000
"""Characters of an integer in base 16 that is shown in base 10, since that takes quadratic time."""


def parse_module(source: str) -> ast.Module | None:
    """The tree of somebody else's source; None where it is not Python, for whatever reason."""
    try:
        with PARSING, warnings.catch_warnings(action="ignore"):
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
        case dict() | Pairs():
            items = value.items if isinstance(value, Pairs) else value.items()
            return "{" + ", ".join(f"{shown(key)}: {shown(item)}" for key, item in items) + "}"
        case list():
            return "[" + ", ".join(map(shown, value)) + "]"
        case tuple():
            return "(" + ", ".join(map(shown, value)) + (",)" if len(value) == 1 else ")")
        case set() | frozenset() | Members():
            return "{" + ", ".join(map(shown, value.items if isinstance(value, Members) else value)) + "}"
        case _:
            return f"a {type(value).__name__}"


def shown_text(text: str, value: object) -> str:
    """The literal ``text`` of ``value`` with its integers in base 10, where that can be worked out at once."""
    return shown(value) if "0x" in text and len(text) <= _MOST_SHOWN else text


def is_same(expected: object, actual: object) -> bool:
    """Whether ``actual``, a literal's value, is what was expected, types included."""
    if isinstance(expected, float) and isinstance(actual, (int, float)) and not isinstance(actual, bool):
        return _is_close(expected, actual)
    if isinstance(expected, dict):
        return isinstance(actual, dict | Pairs) and _is_same_dict(expected, actual, is_same, is_strict=True)
    if isinstance(expected, set):
        return isinstance(actual, set | Members) and _is_same_set(expected, actual, is_strict=True)
    if type(expected) is not type(actual):
        return False
    if isinstance(expected, (list, tuple)):
        assert isinstance(actual, (list, tuple))
        return len(expected) == len(actual) and all(map(is_same, expected, actual))
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
    if isinstance(expected, dict):
        return isinstance(actual, dict | Pairs) and _is_same_dict(expected, actual, same, is_strict=False)
    if isinstance(expected, set | frozenset):
        return isinstance(actual, set | frozenset | Members) and _is_same_set(expected, actual, is_strict=False)
    return expected == actual


def _is_same_dict(
    expected: dict[object, object],
    actual: dict[object, object] | Pairs,
    same: Callable[[object, object], bool],
    *,
    is_strict: bool,
) -> bool:
    """Keys are looked up in a table of the expected ones, so no choice of theirs makes that slow."""
    if len(expected) != len(actual):
        return False
    entries = {key: (key, value) for key, value in expected.items()}
    for key, value in actual.items if isinstance(actual, Pairs) else actual.items():
        found = entries.pop(key, None)  # what is forged may hold a key twice
        if found is None or not same(found[1], value) or (is_strict and not is_same(found[0], key)):
            return False
    return True


def _is_same_set(expected: set[object] | frozenset[object], actual: Collection[object] | Members, *, is_strict: bool) -> bool:
    if len(expected) != len(actual):
        return False
    members = {member: (member,) for member in expected}
    for member in actual.items if isinstance(actual, Members) else actual:
        found = members.pop(member, None)
        if found is None or (is_strict and not is_same(found[0], member)):
            return False
    return True


def _is_close(expected: float, actual: float) -> bool:
    try:
        return math.isclose(expected, actual, rel_tol=_RELATIVE, abs_tol=_ABSOLUTE)
    except OverflowError:  # an integer beyond every float
        return False
