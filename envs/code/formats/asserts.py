"""Which calls, with which results, does a test in Python assert?

Its text is parsed and never run here. An assert becomes a trial where it has one of these forms, with literal arguments. There
``f(…)`` may also stand inside ``bool``, ``dict``, ``frozenset``, ``len``, ``list``, ``set``, ``sorted``, ``sum`` or ``tuple``:

- ``f(…) == literal`` either way around, ``f(…) is True``
- ``assert f(…)``, ``assert not f(…)``: what comes back is true or false as Python sees it
- ``abs(f(…) - literal) < literal``, ``math.isclose(f(…), literal, rel_tol=literal)``

The rest is a check: the test as it stands, less the asserts that became trials (``checks.py`` says how it is run). Left out and
counted is an assert that cannot be run apart from an answer: that calls with names which only an answer defines, that needs more
than the standard library, or that could run what an answer returns.
"""

from __future__ import annotations

import ast
import builtins
import copy
import importlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from sdpo.envs.code.literals import parse_module
from sdpo.envs.code.trials import Arguments, Check, Equality, Trial

_VIEWS = ("bool", "dict", "frozenset", "len", "list", "set", "sorted", "sum", "tuple")
_MAKERS: Mapping[str, Callable[..., object]] = {
    "set": set,
    "frozenset": frozenset,
    "list": list,
    "tuple": tuple,
    "dict": dict,
    "sorted": sorted,
    "float": float,
}
"""What may make a literal of a literal."""
_DANGEROUS = frozenset(
    (
        "eval",
        "exec",
        "compile",
        "open",
        "input",
        "globals",
        "locals",
        "vars",
        "getattr",
        "setattr",
        "delattr",
        "__import__",
        "breakpoint",
    )
)
"""What could turn a text that an answer returned into something that runs, or that names something."""
_MODULES = frozenset(
    ("bisect", "cmath", "collections", "copy", "datetime", "decimal", "fractions", "functools", "heapq", "itertools", "json",
     "math", "numbers", "operator", "random", "re", "statistics", "string", "sys", "time", "typing")
)  # fmt: skip
_LONG_INTEGER = re.compile(r"(?<![\w.\"'])[0-9]{4301,200000}(?![\w.\"'])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asserted:
    """What was read of one test."""

    trials: tuple[Trial, ...]
    check: Check | None
    num_left_out: int

    @property
    def is_usable(self) -> bool:
        return bool(self.trials) or self.check is not None


def read_asserts(
    source: str, function: str, *, also: Sequence[str] = (), given: str = "", equality: Equality = Equality.strict
) -> Asserted:
    """The tests of ``function``, which ``source`` may also call by other names. ``given`` is run before it.

    Raises ValueError where either is not Python.
    """
    tree, before = parsed(source), parsed(given)
    asserts = [node for node in ast.walk(tree) if isinstance(node, ast.Assert) and not isinstance(node.test, ast.Constant)]
    straight = {id(node) for node in _straight(tree)}
    read = {id(node): trial for node in asserts if id(node) in straight and (trial := _trial(node.test, function, equality))}
    check, num_checked = _check(tree, before, frozenset(read), (function, *also))
    return Asserted(trials=tuple(read.values()), check=check, num_left_out=len(asserts) - len(read) - num_checked)


def asserted_function(asserts: str, code: str) -> str | None:
    """The first function that the asserts call and ``code`` defines; where it defines none, the first that is no built-in."""
    defined = {node.name for node in parsed(code).body if isinstance(node, ast.FunctionDef)}
    body = parsed(asserts).body
    tests = [*(node for node in body if isinstance(node, ast.Assert)), *body]  # some call it before they assert
    calls = [node for test in tests for node in ast.walk(test) if isinstance(node, ast.Call)]
    names = [call.func.id for call in calls if isinstance(call.func, ast.Name)]
    return next((name for name in names if (name in defined if defined else not hasattr(builtins, name))), None)


def is_run_apart(source: str) -> bool:
    """Whether it can be run where there is no answer. Raises ValueError where it is not Python."""
    tree = parsed(source)
    return all(_is_fit(node, {*dir(builtins), *_bound(tree)} - _DANGEROUS, ()) for node in tree.body)


def parsed(source: str) -> ast.Module:
    """Raises ValueError where it is not Python, for whatever reason."""
    source = source.lstrip("\ufeff")
    tree = parse_module(source) or parse_module(_LONG_INTEGER.sub(lambda digits: hex(int(Decimal(digits[0]))), source))
    if tree is None:
        raise ValueError(f"must be Python; {_fault(source)}")
    return tree


def unparsed(tree: ast.AST) -> str:
    """The source of a tree, also where it holds integers that are too long for Python's own writer."""
    try:
        return ast.unparse(tree)
    except ValueError:
        return ast.unparse(_Hexadecimal().visit(copy.deepcopy(tree)))


class _Hexadecimal(ast.NodeTransformer):
    def visit_Constant(self, node: ast.Constant) -> ast.expr:
        return ast.Name(hex(node.value), ast.Load()) if type(node.value) is int else node


def _fault(source: str) -> str:
    try:
        ast.parse(source)
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        return f"parsing raised {type(error).__name__}: {error}"
    return "it could not be parsed"


def _straight(tree: ast.Module) -> Iterator[ast.stmt]:
    """Statements that run once and in order: of the module, and of a function ``check`` in it."""
    for statement in tree.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == "check":
            yield from statement.body
        else:
            yield statement


def _check(tree: ast.Module, before: ast.Module, read: frozenset[int], names: tuple[str, ...]) -> tuple[Check | None, int]:
    """The test without what was read, and how many of its asserts can be run; None where none can."""
    known = {*dir(builtins), *_bound(before), *_bound(tree), *names, "__name__"} - _DANGEROUS
    unfit = {id(node) for node in ast.walk(tree) if isinstance(node, ast.Assert) and not _is_fit(node, known, names)}
    without = ast.Module(body=_without(read | unfit, tree.body), type_ignores=[])
    num_left = sum(isinstance(node, ast.Assert) and not isinstance(node.test, ast.Constant) for node in ast.walk(without))
    is_run_apart = all(_is_fit(node, known, names) for node in (*before.body, *without.body))
    if not num_left or not is_run_apart or any(_changes_arguments(node, names) for node in ast.walk(without)):
        return None, 0
    source = unparsed(without)
    if any(isinstance(node, ast.FunctionDef) and node.name == "check" and node.args.args for node in without.body):
        source += f"\ncheck({names[0]})"
    return Check(source=source + "\n", names=names), num_left


def _without(removed: frozenset[int], statements: Sequence[ast.stmt]) -> list[ast.stmt]:
    """A copy of statements without some asserts, which are known by identity; the statements themselves are not changed."""

    def copied(statement: ast.stmt) -> ast.stmt:
        if id(statement) in removed:
            return ast.Pass()
        made = copy.copy(statement)
        for name, value in ast.iter_fields(statement):
            if isinstance(value, list) and value and all(isinstance(item, ast.stmt) for item in value):
                setattr(made, name, _without(removed, value))
        return made

    return [copied(statement) for statement in statements]


def _bound(tree: ast.AST) -> Iterator[str]:
    """Every name that gets a meaning somewhere in it."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name):
                yield name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.ExceptHandler(name=str(name)):
                yield name
            case ast.ImportFrom(module=str(module), names=[ast.alias(name="*")]) if module in {*_MODULES, "builtins"}:
                yield from dir(importlib.import_module(module))
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                yield from (alias.asname or alias.name.partition(".")[0] for alias in aliases)


def _is_fit(node: ast.AST, known: set[str], names: Sequence[str]) -> bool:
    """Whether all in it can be run where there is no answer, and runs nothing that an answer could return."""
    for part in ast.walk(node):
        match part:
            case ast.Name(id=name, ctx=ast.Load()) if name not in known:
                return False
            case ast.Import(names=aliases) if any(alias.name.partition(".")[0] not in _MODULES for alias in aliases):
                return False
            case ast.ImportFrom(module=module) if (module or "").partition(".")[0] not in {*_MODULES, "builtins"}:
                return False
            case ast.Attribute(attr=name) if name.startswith("__"):
                return False
            case ast.Call(func=ast.Name(id=name), args=arguments, keywords=keywords) if name in names:
                if keywords or any(isinstance(argument, ast.Lambda) for argument in arguments):
                    return False
    return True


def _changes_arguments(node: ast.AST, names: Sequence[str]) -> bool:
    """Whether the function is called for what it does to its arguments, which does not come back."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Call)
        and isinstance(node.value.func, ast.Name)
        and node.value.func.id in names
    )


def _trial(test: ast.expr, function: str, equality: Equality) -> Trial | None:
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return _expecting(test.operand, function, expected=False, also=("bool",))
    if isinstance(test, ast.Call) and _last_name(test.func) == "isclose":
        return _close(test, function, equality)
    if not isinstance(test, ast.Compare):
        return _expecting(test, function, expected=True, also=("bool",))
    if len(test.ops) != 1:
        return None
    left, relation, right = test.left, test.ops[0], test.comparators[0]
    if isinstance(relation, (ast.Lt, ast.LtE)):
        return _near(left, right, function, equality)
    if isinstance(relation, ast.Is):
        equality = Equality.strict
    elif not isinstance(relation, ast.Eq):
        return None
    if _called(left, function) is None:
        left, right = right, left
    try:
        return _expecting(left, function, expected=_literal(right), equality=equality)
    except ValueError:
        return None


def _last_name(function: ast.expr) -> str | None:
    """``isclose`` of ``math.isclose``."""
    match function:
        case ast.Name(id=name) | ast.Attribute(value=ast.Name(id="math"), attr=name):
            return name
    return None


def _near(difference: ast.expr, bound: ast.expr, function: str, equality: Equality) -> Trial | None:
    """``abs(f(x) - 2.5) < 1e-6``, also with math.fabs and the other way around."""
    if not (isinstance(difference, ast.Call) and len(difference.args) == 1 and not difference.keywords):
        return None
    if _last_name(difference.func) not in ("abs", "fabs"):
        return None
    inside = difference.args[0]
    if not (isinstance(inside, ast.BinOp) and isinstance(inside.op, ast.Sub)):
        return None
    call, number = inside.left, inside.right
    if _called(call, function) is None:
        call, number = number, call
    try:
        expected, tolerance = _number(number), _number(bound)
    except ValueError:
        return None
    return _expecting(call, function, expected=expected, tolerance=tolerance, equality=equality)


def _close(test: ast.Call, function: str, equality: Equality) -> Trial | None:
    """``math.isclose(f(x), 1.5, rel_tol=0.001)``, also with abs_tol and the other way around."""
    limits = {keyword.arg: keyword.value for keyword in test.keywords}
    if len(test.args) != 2 or not limits.keys() <= {"rel_tol", "abs_tol"}:
        return None
    call, number = test.args
    if _called(call, function) is None:
        call, number = number, call
    try:
        relative, tolerance = (_number(limits[name]) if name in limits else 0.0 for name in ("rel_tol", "abs_tol"))
        expected = _number(number)
    except ValueError:
        return None
    return _expecting(call, function, expected=expected, tolerance=tolerance, relative=relative, equality=equality)


def _expecting(
    call: ast.expr,
    function: str,
    *,
    expected: object,
    also: tuple[str, ...] = (),
    tolerance: float = 0.0,
    relative: float = 0.0,
    equality: Equality = Equality.strict,
) -> Trial | None:
    if (called := _called(call, function)) is None:
        return None
    arguments, views = called
    return Trial(
        arguments=arguments, expected=expected, views=views + also, tolerance=tolerance, relative=relative, equality=equality
    )


def _called(call: ast.expr, function: str) -> tuple[Arguments, tuple[str, ...]] | None:
    """What ``function`` is called with, and in which built-in functions that stands; None where this is no call of it with
    literals alone."""
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and not call.keywords):
        return None
    if call.func.id != function:
        if call.func.id not in _VIEWS or len(call.args) != 1 or (inner := _called(call.args[0], function)) is None:
            return None
        return inner[0], (*inner[1], call.func.id)
    try:
        return tuple(_literal(argument) for argument in call.args), ()
    except ValueError:
        return None


def _number(node: ast.expr) -> float:
    value = _literal(node)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError("no number")
    return float(value)


def _literal(node: ast.expr) -> object:
    """Raises ValueError for all but plain literals, sums, differences, products and quotients of numbers, and ``set([1, 2])``."""
    if isinstance(node, ast.BinOp) and not _is_complex(node):
        left, right = _literal(node.left), _literal(node.right)
        if not (isinstance(left, (int, float)) and isinstance(right, (int, float))):
            raise ValueError("only numbers are reckoned with")
        return _reckoned(left, node.op, right)
    try:
        value: object
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _MAKERS and not node.keywords:
            value = _MAKERS[node.func.id](*map(_literal, node.args))
        else:
            value = ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, ArithmeticError, MemoryError, RecursionError) as error:
        raise ValueError("no literal") from error
    if not _is_plain(value):
        raise ValueError("ellipses and what is no number are no values of a trial")
    return value


def _is_complex(node: ast.BinOp) -> bool:
    """``1 + 2j``, which Python itself takes for a literal."""
    return isinstance(node.right, ast.Constant) and isinstance(node.right.value, complex)


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
        float(value)  # a bound on the size of what is reckoned
    except ArithmeticError as error:
        raise ValueError("no number") from error
    return value


def _is_plain(value: object) -> bool:
    if isinstance(value, (list, tuple, set, frozenset)):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(_is_plain(key) and _is_plain(item) for key, item in value.items())
    return value is None or (isinstance(value, (bool, int, float, str, bytes, complex)) and value == value)
