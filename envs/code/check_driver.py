"""Run a question's own test inside the sandbox, with what an answer returned in the place of the answer.

No line of the answer is run here, so nothing that it does can reach the verdict. ``checks.py`` hands the text of this file to the
sandbox as the program: standard library only.

Standard input is with ``marshal`` (nonce, preamble, source of the test, names of the function, results). The results are lists by
the literal of the arguments, an entry for each time that the function is called with them. An entry is ``("value", literal)``,
``("object", type)`` or ``("raised", type, message)``. Literals are read here, within limits, whatever an answer put into them.

An assert that fails is noted and the test goes on, so that calls of which nothing is known yet are all found. One line goes to
file descriptor 3, ``nonce kind literal``:

- ``calls``: literals of the arguments of calls that are not among the results, so the test has to be run again
- ``unfit``: arguments without a literal, which the test itself has made
- ``failed``: the line of the first assert that failed, or at which the test ended with an exception
- ``passed``
"""

import ast
import builtins
import marshal
import os
import sys

_RESULT_FD = 3
_TEST = "<test>"
_MAX_SHOWN = 80
_EXCEPTION, _FAILED = "__exception__", "__failed__"
"""What a test has no other meaning for."""


class _Unknown:
    """What a call returns of which nothing is known yet. It can do nothing, so nothing is made of it."""

    def __repr__(self) -> str:
        raise LookupError


class _Object:
    """Stands for what the answer returned that has no literal. It equals nothing."""


class _Forgiving(ast.NodeTransformer):
    """Every assert notes that it failed, and lets the test go on."""

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        failed = ast.Call(func=ast.Name(_FAILED, ast.Load()), args=[ast.Constant(node.lineno)], keywords=[])
        handler = ast.ExceptHandler(type=ast.Name(_EXCEPTION, ast.Load()), name=None, body=[ast.Expr(failed)])
        noted = ast.Try(body=[node], handlers=[handler], orelse=[], finalbody=[])
        return ast.fix_missing_locations(ast.copy_location(noted, node))


def main() -> None:
    nonce, preamble, source, names, results = marshal.loads(sys.stdin.buffer.read())
    sys.set_int_max_str_digits(0)
    unknown: list[str] = []
    unfit: list[str] = []
    failed: list[int] = []
    times: dict[str, int] = {}

    def candidate(*arguments: object) -> object:
        try:
            key = repr(arguments)
            ast.literal_eval(key)
        except LookupError:  # a call with what another one returns: it has to wait
            return _Unknown()
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
            unfit.append(key[:_MAX_SHOWN])
            raise TypeError("what has no literal cannot be sent to the answer") from error
        times[key] = times.get(key, 0) + 1
        known = results.get(key, ())
        if times[key] > len(known):
            unknown.append(key)
            return _Unknown()
        kind, *what = known[times[key] - 1]
        if kind == "raised":
            raise _exception(*what)
        return ast.literal_eval(what[0]) if kind == "value" else _Object()

    def write(kind: str, value: object = None) -> None:
        line = f"{nonce} {kind} {value!r}\n".encode()
        while line:
            line = line[os.write(_RESULT_FD, line) :]

    namespace: dict[str, object] = {"__name__": "test", _EXCEPTION: Exception, _FAILED: failed.append}
    try:
        exec(preamble, namespace)
        namespace.update(dict.fromkeys(names, candidate))
        exec(compile(_Forgiving().visit(ast.parse(source)), _TEST, "exec"), namespace)
    except MemoryError:
        raise
    except BaseException as error:  # noqa: BLE001 - whatever ends a test is told
        failed.append(_line(error))
    if unfit and not results:  # nothing of an answer is known yet, so it is the test's own
        write("unfit", unfit[0])
    elif unknown:
        write("calls", unknown)
    elif failed:
        write("failed", failed[0])
    else:
        write("passed")


def _exception(name: str, message: str) -> Exception:
    known = getattr(builtins, name, None)
    if isinstance(known, type) and issubclass(known, Exception):
        try:
            return known(message)
        except Exception:  # noqa: BLE001 - some of them need more than a message
            pass
    own: Exception = type(name, (Exception,), {})(message)
    return own


def _line(error: BaseException) -> int:
    line, trace = 0, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == _TEST:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


if __name__ == "__main__":
    main()
    os._exit(0)
