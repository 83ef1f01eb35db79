"""Load an answer inside the sandbox, put it to work, and write down what came of it.

The process knows the calls and not what they should return, so nothing in it can decide the verdict. ``execution.py`` hands the
text of this file to the sandbox as the program: standard library only, and as little of that as it can.

Standard input begins with a request: its size in 8 bytes, then with ``marshal`` (nonce, preamble, source of the answer, work).
The work of a function is (its name, the most characters of a value, [arguments, ...], [way, ...]), the arguments being marshalled
once more. A way is (built-in functions that are applied to the value, whether subclasses of built-in types are written as those).
The work of a program is None, and what follows the request is the program's to read.

Results go to file descriptor 3, a line each: ``nonce index kind literal``. The index is that of the call, -1 for the loading, 0
for a program. The kinds are:

- ``loaded``: the answer defines the function, or is a program; ``missing``: it does not
- ``value``: what the call returned
- ``object``: the name of the type that it returned, which has no literal
- ``error``: (name of the exception's type, its message, line of the answer or 0)
"""

import atexit
import builtins
import io
import marshal
import os
import sys
from collections.abc import Callable, Iterator

_RESULT_FD = 3
_ANSWER = "<answer>"
_LOADING = -1
_MAX_DEPTH = 20
_DECIMAL_BITS = 12_000
"""Integers of more are written in base 16: in time that grows with their length alone, and read back without Python's limit."""
_MAX_NAME_CHARS = 80
_MAX_MESSAGE_CHARS = 300
_STDIN_NAMES = ("/dev/stdin", "/dev/fd/0", "/proc/self/fd/0")
_BASES: tuple[tuple[type, Callable[..., object]], ...] = (
    (int, int.__int__),
    (float, float.__float__),
    (str, str.__str__),
    (list, lambda value: [*list.__iter__(value)]),
    (tuple, lambda value: (*tuple.__iter__(value),)),
    (set, lambda value: {*set.__iter__(value)}),
    (frozenset, lambda value: {*frozenset.__iter__(value)}),
    (dict, lambda value: dict(dict.items(value))),
)
"""What a subclass of a built-in type really holds, whatever it says of itself."""


def main() -> None:
    sys.set_int_max_str_digits(0)  # contest sites have no such limit, and the clock bounds what a conversion may take
    for name in ("exit", "quit"):  # an ordinary interpreter has them from site.py, which is not read here
        setattr(builtins, name, sys.exit)
    nonce, preamble, source, work = marshal.loads(_read(int.from_bytes(_read(8), "little")))

    def write(index: int, kind: str, text: str = "None") -> None:
        line = f"{nonce} {index} {kind} {text}\n".encode("utf-8", "backslashreplace")
        while line:
            line = line[os.write(_RESULT_FD, line) :]

    if work is None:
        run_program(write, preamble, source)
    else:
        make_calls(write, preamble, source, *work)


def make_calls(
    write: Callable[..., None],
    preamble: str,
    source: str,
    function_name: str,
    max_value_chars: int,
    calls: list[bytes],
    ways: list[tuple[tuple[str, ...], bool]],
) -> None:
    applied = [([getattr(builtins, view) for view in views], is_plain) for views, is_plain in ways]

    def load() -> Callable[..., object] | None:
        module = type(sys)("answer")
        sys.modules["answer"] = module  # where dataclasses look for the names of annotations that are text
        exec(preamble, module.__dict__)
        given = dict(module.__dict__)
        leaving = None
        try:
            exec(compile(source, _ANSWER, "exec"), module.__dict__)
        except SystemExit as error:  # scripts end so, and what they defined is defined
            leaving = error
        names = {name: value for name, value in module.__dict__.items() if given.get(name) is not value}
        function = _find(names, function_name)
        if leaving is not None and (function is None or not _is_good(leaving)):
            raise leaving
        return function

    try:
        function = load()
    except MemoryError:
        raise
    except BaseException as error:  # noqa: BLE001 - SystemExit too: an answer may not leave early
        write(_LOADING, "error", repr(_described(error)))
        return
    if function is None:
        write(_LOADING, "missing")
        return
    write(_LOADING, "loaded")
    for index, call in enumerate(calls):
        try:
            value = function(*marshal.loads(call))
            views, is_plain = applied[index]
            for view in views:
                value = view(value)
            kind, text = _returned(value, max_value_chars, is_plain)
        except MemoryError:
            raise
        except BaseException as error:  # noqa: BLE001 - likewise
            kind, text = "error", repr(_described(error))
        write(index, kind, text)


def run_program(write: Callable[..., None], preamble: str, source: str) -> None:
    atexit._clear()  # what was registered before the answer came is not its own
    builtins.open = io.open = _opening_stdin(io.open)  # type: ignore[assignment]
    namespace: dict[str, object] = {"__name__": "__main__"}
    index = _LOADING
    try:
        exec(preamble, namespace)
        code = compile(source, _ANSWER, "exec")
        write(_LOADING, "loaded")
        index = 0
        try:
            exec(code, namespace)
        except SystemExit as leaving:
            if not _is_good(leaving):
                raise
        _finish()
    except MemoryError:
        raise
    except BaseException as error:  # noqa: BLE001 - whatever ends a program is told
        write(index, "error", repr(_described(error)))


def _is_good(leaving: SystemExit) -> bool:
    return leaving.code is None or (type(leaving.code) in (int, bool) and not leaving.code)  # a subclass may lie about itself


def _opening_stdin(open_file: Callable[..., object]) -> Callable[..., object]:
    """``open``, for which standard input has its usual names: there is no /dev in the sandbox."""

    def opening(file: object, *arguments: object, **named: object) -> object:
        try:
            is_stdin = os.fspath(file) in _STDIN_NAMES  # type: ignore[call-overload]
        except TypeError:
            is_stdin = False
        return open_file(os.dup(0) if is_stdin else file, *arguments, **named)

    return opening


def _finish() -> None:
    """What the interpreter does at its end: wait for threads, call what waits for that, write out what was printed."""
    threading = sys.modules.get("threading")
    if threading is not None:
        for thread in threading.enumerate():
            if thread is not threading.current_thread() and not thread.daemon:
                thread.join()
    atexit._run_exitfuncs()
    sys.stdout.flush()


def _read(size: int) -> bytes:
    """So much of standard input and no more, as the rest is a program's."""
    read = b""
    while len(read) < size and (piece := os.read(0, size - len(read))):
        read += piece
    return read


def _find(namespace: dict[str, object], name: str) -> Callable[..., object] | None:
    """The function of that name, or the method of a class Solution, of which each call gets a new object."""
    function = namespace.get(name)
    if callable(function):
        return function
    solution = namespace.get("Solution")
    if not isinstance(solution, type) or not callable(getattr(solution, name, None)):
        return None
    return lambda *arguments: getattr(solution(), name)(*arguments)


class _NoLiteral(Exception):
    pass


def _returned(value: object, max_chars: int, is_plain: bool) -> tuple[str, str]:
    try:
        return "value", literal(value, max_chars, is_plain)
    except _NoLiteral as reason:
        return "object", repr(str(reason))


def literal(value: object, max_chars: int, is_plain: bool) -> str:
    """The literal of a value built of exact built-in types only, since a subclass may lie about itself.

    If it ``is_plain``, a subclass is written as what it holds as such a type: a Counter as a dict.
    """
    pieces: list[str] = []
    num_chars = 0
    for piece in _pieces(value, 0, max_chars, is_plain):
        pieces.append(piece)
        num_chars += len(piece)
        if num_chars > max_chars:
            raise _NoLiteral(f"{type(value).__name__} (too long)")
    return "".join(pieces)


def _pieces(value: object, depth: int, max_chars: int, is_plain: bool) -> Iterator[str]:
    if depth > _MAX_DEPTH:
        raise _NoLiteral(f"{type(value).__name__} (nested too deeply)")
    if is_plain and type(value) is not bool:
        value = _plain(value)
    if value is None or type(value) is bool:
        yield repr(value)
    elif type(value) is int:
        if value.bit_length() > 4 * max_chars:
            raise _NoLiteral("int (too long)")
        yield repr(value) if value.bit_length() <= _DECIMAL_BITS else hex(value)
    elif type(value) is float:
        if value != value:
            raise _NoLiteral("float (not a number)")
        yield repr(value).replace("inf", "1e999")
    elif type(value) is str or type(value) is bytes:
        yield repr(value[: max_chars + 1])
    elif type(value) is complex:
        yield repr(value)
    elif type(value) is list:
        yield from _enclosed("[", value, "]", depth, max_chars, is_plain)
    elif type(value) is tuple:
        yield from _enclosed("(", value, ",)" if len(value) == 1 else ")", depth, max_chars, is_plain)
    elif type(value) is set and value:
        yield from _enclosed("{", value, "}", depth, max_chars, is_plain)
    elif type(value) is set:
        yield "set()"
    elif type(value) is dict:
        yield "{"
        for i, (key, item) in enumerate(value.items()):
            yield ", " if i else ""
            yield from _pieces(key, depth + 1, max_chars, is_plain)
            yield ": "
            yield from _pieces(item, depth + 1, max_chars, is_plain)
        yield "}"
    else:
        raise _NoLiteral(type(value).__name__[:_MAX_NAME_CHARS])


def _plain(value: object) -> object:
    kind = type(value)
    for base, held in _BASES:
        if kind is base and kind is not frozenset:
            return value
        if issubclass(kind, base):
            return held(value)
    return value


def _enclosed(
    start: str, items: list[object] | tuple[object, ...] | set[object], end: str, depth: int, max_chars: int, is_plain: bool
) -> Iterator[str]:
    yield start
    for i, item in enumerate(items):
        yield ", " if i else ""
        yield from _pieces(item, depth + 1, max_chars, is_plain)
    yield end


def _described(error: BaseException) -> tuple[str, str, int]:
    line = 0
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == _ANSWER:
            line = trace.tb_lineno
        trace = trace.tb_next
    name = type(error).__name__
    try:
        message = str(error)
        if isinstance(error, SyntaxError) and error.filename == _ANSWER:
            line, message = int(error.lineno or 0), str(error.msg)
    except MemoryError:
        raise
    except BaseException:  # noqa: BLE001 - an exception's own __str__ may raise anything
        message = "(its message cannot be shown)"
    return name[:_MAX_NAME_CHARS], message[:_MAX_MESSAGE_CHARS], line


if __name__ == "__main__":
    main()
    os._exit(0)  # no exit handlers, no waiting for threads
