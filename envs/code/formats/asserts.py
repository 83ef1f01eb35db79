"""Which calls, with which results, does a test in Python assert?

Its text is parsed and never run. These forms can be read, all of them with literal arguments, and the rest is counted:

- ``f(…) == literal`` either way around, ``f(…) is True``
- ``assert f(…)``, ``assert not f(…)``
- ``abs(f(…) - literal) < literal``
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator
from dataclasses import dataclass

from sdpo.envs.code.trials import Arguments, Trial


@dataclass(frozen=True, slots=True, kw_only=True)
class Asserted:
    """What was read of one test."""

    trials: tuple[Trial, ...]
    num_left_out: int


def read_asserts(source: str, function: str) -> Asserted:
    """The trials of ``function``. Raises ValueError where ``source`` is not Python."""
    tree = parsed(source)
    asserts = [node for node in ast.walk(tree) if isinstance(node, ast.Assert) and not isinstance(node.test, ast.Constant)]
    straight = {id(node) for node in _straight(tree)}
    read = [_trial(node.test, function) if id(node) in straight else None for node in asserts]
    trials = tuple(trial for trial in read if trial is not None)
    return Asserted(trials=trials, num_left_out=len(asserts) - len(trials))


def asserted_function(asserts: str, code: str) -> str | None:
    """The first function that the asserts call and ``code`` defines; where it defines none, the first that is no built-in."""
    defined = {node.name for node in parsed(code).body if isinstance(node, ast.FunctionDef)}
    tests = [node for node in parsed(asserts).body if isinstance(node, ast.Assert)]
    calls = [node for test in tests for node in ast.walk(test) if isinstance(node, ast.Call)]
    names = [call.func.id for call in calls if isinstance(call.func, ast.Name)]
    return next((name for name in names if (name in defined if defined else not hasattr(builtins, name))), None)


def parsed(source: str) -> ast.Module:
    """Raises ValueError where it is not Python, for whatever reason."""
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise ValueError(f"must be Python; parsing raised {type(error).__name__}: {error}") from error


def _straight(tree: ast.Module) -> Iterator[ast.stmt]:
    """Statements that run once and in order: of the module, and of a function ``check`` in it."""
    for statement in tree.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == "check":
            yield from statement.body
        else:
            yield statement


def _trial(test: ast.expr, function: str) -> Trial | None:
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return _expecting(test.operand, function, expected=False)
    if not (isinstance(test, ast.Compare) and len(test.ops) == 1):
        return _expecting(test, function, expected=True)
    left, relation, right = test.left, test.ops[0], test.comparators[0]
    if isinstance(relation, (ast.Lt, ast.LtE)):
        return _near(left, right, function)
    if not isinstance(relation, (ast.Eq, ast.Is)):
        return None
    if _arguments(left, function) is None:
        left, right = right, left
    try:
        return _expecting(left, function, expected=_literal(right))
    except ValueError:
        return None


def _near(difference: ast.expr, bound: ast.expr, function: str) -> Trial | None:
    """``abs(f(x) - 2.5) < 1e-6``, also with math.fabs and the other way around."""
    if not (isinstance(difference, ast.Call) and len(difference.args) == 1 and not difference.keywords):
        return None
    if ast.unparse(difference.func) not in ("abs", "math.fabs"):
        return None
    inside = difference.args[0]
    if not (isinstance(inside, ast.BinOp) and isinstance(inside.op, ast.Sub)):
        return None
    call, number = inside.left, inside.right
    if _arguments(call, function) is None:
        call, number = number, call
    try:
        expected, tolerance = _literal(number), _literal(bound)
    except ValueError:
        return None
    if isinstance(expected, bool) or not isinstance(expected, (int, float)) or not isinstance(tolerance, (int, float)):
        return None
    return _expecting(call, function, expected=float(expected), tolerance=float(tolerance))


def _expecting(call: ast.expr, function: str, *, expected: object, tolerance: float = 0.0) -> Trial | None:
    arguments = _arguments(call, function)
    return None if arguments is None else Trial(arguments=arguments, expected=expected, tolerance=tolerance)


def _arguments(call: ast.expr, function: str) -> Arguments | None:
    """What ``function`` is called with; None where this is no call of it with literals alone."""
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == function and not call.keywords):
        return None
    try:
        return tuple(_literal(argument) for argument in call.args)
    except ValueError:
        return None


def _literal(node: ast.expr) -> object:
    """Raises ValueError for what is neither a plain literal nor a sum, difference, product or quotient of numbers."""
    if isinstance(node, ast.BinOp):
        left, right = _literal(node.left), _literal(node.right)
        if not (isinstance(left, (int, float)) and isinstance(right, (int, float))):
            raise ValueError("only numbers are reckoned with")
        return _reckoned(left, node.op, right)
    try:
        value: object = ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, ArithmeticError, MemoryError, RecursionError) as error:
        raise ValueError("no literal") from error
    if not _is_plain(value):
        raise ValueError("bytes, complex numbers and ellipses are no values of a trial")
    return value


def _reckoned(left: float, operator: ast.operator, right: float) -> float:
    try:
        match operator:
            case ast.Add():
                value = left + right
            case ast.Sub():
                value = left - right
            case ast.Mult():
                value = left * right
            case ast.Div():
                value = left / right
            case _:
                raise ValueError("another operator")
        float(value)  # an integer beyond every float could not even be shown
    except ArithmeticError as error:
        raise ValueError("no number") from error
    return value


def _is_plain(value: object) -> bool:
    if isinstance(value, (list, tuple, set)):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(_is_plain(key) and _is_plain(item) for key, item in value.items())
    return value is None or isinstance(value, (bool, int, float, str))
