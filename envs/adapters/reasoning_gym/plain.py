"""Is an answer plain data? Asked before a scorer of reasoning-gym that executes its text gets to see it.

Nine scorers of reasoning-gym hand the answer to ``eval``, or to sympy's ``parse_expr``, which is ``eval`` with rewriting first. A
text passes here in one of three forms:

- a list of numbers and strings
- a bare word that names nothing
- an expression of numbers, one-letter variables, ``+ - * / **`` and the usual functions

An expression has no attribute, no subscript, no keyword and no lambda, and calls only those functions. The check is stricter than
the scorers, never looser. Some texts that they would have scored as an expression are refused here (implicit multiplication,
factorials). Such a text gets nothing, with the reason.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping

MAX_PLAIN_CHARS = 4_000
"""Python's own parser reads this much however it is nested; a longer answer is of a size that no default puzzle has."""

_MAX_EXPONENT = 1_000
_FUNCTIONS = frozenset(
    (
        *("sin", "cos", "tan", "sec", "csc", "cot", "asin", "acos", "atan"),
        *("sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "exp", "log", "ln", "sqrt", "Abs"),
    )
)
_CONSTANTS = frozenset({"pi", "E"})
_VARIABLE = re.compile(r"[A-Za-z]")
_CALLABLE_LETTERS = frozenset("NOQSI")
"""One-letter names that sympy has taken: functions and registries, no variables."""

_NOT_A_LIST = "The answer is neither in the format of the question nor a plain list of numbers or strings, so it was not scored."
_NOT_ARITHMETIC = (
    "The answer is not a plain arithmetic expression, so it was not scored: write only integers, + - * / and parentheses, "
    "without an equals sign or words."
)
_NOT_ALGEBRA = (
    "The answer is not a plain expression, so it was not scored: write only numbers, one-letter variables, + - * "
    "/ **, parentheses and "
    "functions like sin(x), with every multiplication written out."
)
_TOO_DEEP = "The answer is too deeply nested to be scored: write it in a simpler form."
_TOO_LONG = f"The answer is too long to be scored: write the final answer only, in at most {MAX_PLAIN_CHARS} characters."


def refusal(dataset: str, answer: str) -> str | None:
    """Why the answer may not be scored, as a sentence to the one who wrote it; None where it may be."""
    check = EXECUTING.get(dataset)
    if check is None:
        return None
    if len(answer) > MAX_PLAIN_CHARS:
        return _TOO_LONG
    try:
        return check(answer)
    except RecursionError:
        return _TOO_DEEP


def _list_or(pattern: str) -> Callable[[str], str | None]:
    """A list, or a text in the question's own format, whose words (matched by ``pattern``) name nothing in Python."""
    plain = re.compile(pattern, re.ASCII)

    def check(answer: str) -> str | None:
        return None if plain.fullmatch(answer) or _is_list(answer) else _NOT_A_LIST

    return check


def _is_list(answer: str) -> bool:
    tree = _parsed(answer)
    return isinstance(tree, ast.List | ast.Tuple) and all(map(_is_item, ast.walk(tree)))


def _is_item(node: ast.AST) -> bool:
    match node:
        case ast.List() | ast.Tuple() | ast.Load() | ast.UnaryOp(op=ast.USub(), operand=ast.Constant()) | ast.USub():
            return True
        case ast.Constant(value=value):
            return type(value) in (int, float, str)
    return False


def _arithmetic(answer: str) -> str | None:
    if re.fullmatch(r"[0-9+\-*/()\s]+", answer, re.ASCII) is None or "**" in answer or "//" in answer:
        return _NOT_ARITHMETIC
    tree = _parsed(answer)
    return None if tree is not None and all(map(_is_arithmetic, ast.walk(tree))) else _NOT_ARITHMETIC


def _is_arithmetic(node: ast.AST) -> bool:
    match node:
        case ast.BinOp() | ast.UnaryOp() | ast.Add() | ast.Sub() | ast.Mult() | ast.Div() | ast.UAdd() | ast.USub():
            return True
        case ast.Constant(value=value):
            return type(value) is int
    return False


def _algebra(answer: str) -> str | None:
    if "^" in answer:
        return "The answer was not scored: ^ is no power here; write powers with **."
    if re.fullmatch(r"[A-Za-z0-9+\-*/()., \t\n]+", answer, re.ASCII) is None:
        return _NOT_ALGEBRA
    tree = _parsed(answer)
    return None if tree is not None and _is_algebra(tree) else _NOT_ALGEBRA


def _is_algebra(node: ast.AST) -> bool:
    match node:
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return _is_algebra(left) and _is_algebra(right) and _is_small_exponent(right)
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub() | ast.Mult() | ast.Div(), right=right):
            return _is_algebra(left) and _is_algebra(right)
        case ast.UnaryOp(op=ast.UAdd() | ast.USub(), operand=operand):
            return _is_algebra(operand)
        case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]):
            return name in _FUNCTIONS and _is_algebra(argument)
        case ast.Name(id=name):
            is_variable = _VARIABLE.fullmatch(name) is not None and name not in _CALLABLE_LETTERS
            return is_variable or name in _CONSTANTS
        case ast.Constant(value=value):
            return type(value) in (int, float)
    return False


def _is_small_exponent(exponent: ast.AST) -> bool:
    """No tower of powers, no number that takes the machine's memory to write down."""
    return not any(
        isinstance(node, ast.Pow)
        or (isinstance(node, ast.Constant) and isinstance(node.value, int) and node.value > _MAX_EXPONENT)
        for node in ast.walk(exponent)
    )


def _parsed(answer: str) -> ast.expr | None:
    try:
        return ast.parse(answer.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None


EXECUTING: Mapping[str, Callable[[str], str | None]] = {
    "binary_matrix": _list_or(r"[0-9\s-]+"),
    "countdown": _arithmetic,
    "intermediate_integration": _algebra,
    "n_queens": _list_or(r"[Q_\s]+"),
    "polynomial_multiplication": _algebra,
    "puzzle24": _arithmetic,
    "simple_integration": _algebra,
    "spiral_matrix": _list_or(r"[0-9\s-]+"),
    "string_insertion": _list_or(r"[A-Z]+"),
}
"""Datasets whose scorer executes the answer, and what such an answer may be. Found by reading version 0.1.25."""
