"""What runs inside the sandbox: how is an answer loaded, its function called, and what came back written down?

It knows the calls and not what they should return, so nothing in this process can decide the verdict. ``execution.py``
hands the text of this file to the sandbox as the program: standard library only, and as little of that as it can.

Request, on standard input, with ``marshal``: (nonce, source of the answer, name of the function, [arguments, ...]), the
arguments marshalled again. Results, on file descriptor 3, a line each: ``nonce index kind literal``, where index is
that of the call, -1 for the loading:

- ``loaded``: the answer defines the function; ``missing``: it does not
- ``value``: what the call returned
- ``object``: the name of the type that it returned, which has no literal
- ``error``: (name of the exception's type, its message, line of the answer or 0)
"""

import marshal
import os
import sys
from collections.abc import Callable, Iterator

_RESULT_FD = 3
_ANSWER = "<answer>"
_LOADING = -1
_MAX_VALUE_CHARS = 4000
_MAX_DEPTH = 20
_MAX_NAME_CHARS = 80
_MAX_MESSAGE_CHARS = 300


def main() -> None:
    nonce, source, function_name, calls = marshal.loads(sys.stdin.buffer.read())

    def write(index: int, kind: str, text: str = "None") -> None:
        line = f"{nonce} {index} {kind} {text}\n".encode("utf-8", "backslashreplace")
        while line:
            line = line[os.write(_RESULT_FD, line) :]

    def load() -> Callable[..., object] | None:
        namespace: dict[str, object] = {"__name__": "answer"}
        exec(compile(source, _ANSWER, "exec"), namespace)
        function = namespace.get(function_name)
        return function if callable(function) else None

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
            kind, text = _returned(function(*marshal.loads(call)))
        except MemoryError:
            raise
        except BaseException as error:  # noqa: BLE001 - likewise
            kind, text = "error", repr(_described(error))
        write(index, kind, text)


class _NoLiteral(Exception):
    pass


def _returned(value: object) -> tuple[str, str]:
    try:
        return "value", literal(value)
    except _NoLiteral as reason:
        return "object", repr(str(reason))


def literal(value: object) -> str:
    """The literal of a value built of exact built-in types only, since a subclass may lie about itself."""
    pieces: list[str] = []
    num_chars = 0
    for piece in _pieces(value, depth=0):
        pieces.append(piece)
        num_chars += len(piece)
        if num_chars > _MAX_VALUE_CHARS:
            raise _NoLiteral(f"{type(value).__name__} (too long)")
    return "".join(pieces)


def _pieces(value: object, depth: int) -> Iterator[str]:
    if depth > _MAX_DEPTH:
        raise _NoLiteral(f"{type(value).__name__} (nested too deeply)")
    if value is None or type(value) is bool:
        yield repr(value)
    elif type(value) is int:
        if value.bit_length() > 3 * _MAX_VALUE_CHARS:
            raise _NoLiteral("int (too long)")
        yield repr(value)
    elif type(value) is float:
        if value != value:
            raise _NoLiteral("float (not a number)")
        yield repr(value).replace("inf", "1e999")
    elif type(value) is str:
        yield repr(value[: _MAX_VALUE_CHARS + 1])
    elif type(value) is list:
        yield from _enclosed("[", value, "]", depth)
    elif type(value) is tuple:
        yield from _enclosed("(", value, ",)" if len(value) == 1 else ")", depth)
    elif type(value) is set and value:
        yield from _enclosed("{", value, "}", depth)
    elif type(value) is set:
        yield "set()"
    elif type(value) is dict:
        yield "{"
        for i, (key, item) in enumerate(value.items()):
            yield ", " if i else ""
            yield from _pieces(key, depth + 1)
            yield ": "
            yield from _pieces(item, depth + 1)
        yield "}"
    else:
        raise _NoLiteral(type(value).__name__[:_MAX_NAME_CHARS])


def _enclosed(start: str, items: list[object] | tuple[object, ...] | set[object], end: str, depth: int) -> Iterator[str]:
    yield start
    for i, item in enumerate(items):
        yield ", " if i else ""
        yield from _pieces(item, depth + 1)
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
