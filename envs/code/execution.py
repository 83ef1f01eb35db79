"""What did an answer do when its function was called, or when it was run as a program?

All calls of a function are made in one sandboxed process, each run of a program in its own. The process is told arguments or
standard input, never what is expected. What it says of itself is read here, as literals. All of it may be forged, but only by an
answer that could as well have returned what it forges.
"""

from __future__ import annotations

import marshal
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sdpo.envs import sandbox
from sdpo.envs.code.literals import parse_literal, shown
from sdpo.envs.code.trials import Arguments

_DRIVER = Path(__file__).with_name("driver.py").read_text(encoding="utf-8")
_LOADING, _RUN = -1, 0
_MIN_VALUE_CHARS = 4000
_MAX_RECORD_CHARS = 500
"""Most characters of a record without its value."""
_MOST_ESCAPED = 2
"""Characters that the driver's text may have beyond those it counts, as a factor: half a surrogate pair is written as six."""
_MOST_OUTPUT_BYTES = 1 << 26


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What is loaded into the process."""

    source: str
    preamble: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What the function is asked, and in which way its value is told."""

    arguments: Arguments
    views: tuple[str, ...] = ()
    is_plain: bool = False
    """Subclasses of built-in types are told as such types."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Returned:
    """A value came back."""

    value: object
    text: str
    """Its literal, as the answer's process wrote it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReturnedObject:
    """Something came back that has no literal, so it equals nothing."""

    type_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Raised:
    """An exception ended the loading, the call or the program."""

    type_name: str
    message: str
    line: int
    """Line of the answer's source, from 1; 0 where it is not known."""


Result = Returned | ReturnedObject | Raised


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """How one process with an answer's function went."""

    ending: sandbox.Ending
    limits: sandbox.Limits
    loading: Raised | None
    """What the answer raised before its function could be called."""
    is_missing: bool
    """It loaded, but without a function of that name."""
    is_loaded: bool
    results: tuple[Result | None, ...]
    """One a call; None for those that never came back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """How one process with an answer that is a program went."""

    ending: sandbox.Ending
    limits: sandbox.Limits
    is_loaded: bool
    """It is Python."""
    raised: Raised | None
    printed: str


def make_calls(answer: Answer, function: str, calls: Sequence[Call], limits: sandbox.Limits, *, longest: int = 0) -> Execution:
    """Load ``answer`` and make each call with fresh copies of its arguments. Raises SandboxUnavailable.

    ``longest``: characters of the longest expected literal, for which room is made.
    """
    max_value_chars = _MIN_VALUE_CHARS if longest <= _MIN_VALUE_CHARS else _power_of_two(longest)
    limits = _with_room(limits, (max_value_chars + _MAX_RECORD_CHARS) * len(calls))
    copies = [marshal.dumps(call.arguments) for call in calls]  # type: ignore[arg-type]  # literals, as Trial says
    ways = [(call.views, call.is_plain) for call in calls]
    outcome, records = _run(answer, (function, max_value_chars, copies, ways), b"", limits)
    return Execution(
        ending=outcome.ending,
        limits=limits,
        loading=_raised(records.get((_LOADING, "error"))),
        is_missing=(_LOADING, "missing") in records,
        is_loaded=(_LOADING, "loaded") in records,
        results=tuple(_result(records, index, max_value_chars) for index in range(len(calls))),
    )


def run_program(answer: Answer, stdin: str, limits: sandbox.Limits, *, longest: int = 0) -> Run:
    """Run ``answer`` with ``stdin`` to read. Raises SandboxUnavailable. ``longest``: bytes of the expected output."""
    limits = _with_room(limits, 2 * longest)
    outcome, records = _run(answer, None, stdin.encode("utf-8", "replace"), limits)
    raised = _raised(records.get((_LOADING, "error"), records.get((_RUN, "error"))))
    return Run(
        ending=outcome.ending,
        limits=limits,
        is_loaded=(_LOADING, "loaded") in records,
        raised=raised,
        printed=outcome.stdout.decode("utf-8", "backslashreplace"),
    )


def _run(
    answer: Answer,
    work: tuple[str, int, list[bytes], list[tuple[tuple[str, ...], bool]]] | None,
    stdin: bytes,
    limits: sandbox.Limits,
) -> tuple[sandbox.Outcome, dict[tuple[int, str], str]]:
    nonce = secrets.token_hex(8)
    request = marshal.dumps((nonce, answer.preamble, answer.source, work))
    outcome = sandbox.run(_DRIVER, stdin=len(request).to_bytes(8, "little") + request + stdin, limits=limits)
    return outcome, _records(outcome.result, nonce)


def _with_room(limits: sandbox.Limits, num_bytes: int) -> sandbox.Limits:
    """A right answer must be able to say what is expected of it."""
    return replace(limits, output_bytes=max(limits.output_bytes, min(_power_of_two(num_bytes), _MOST_OUTPUT_BYTES)))


def _power_of_two(number: int) -> int:
    """The next one, as the answer need not learn more of ``number``."""
    return 1 << number.bit_length()


def _records(written: bytes, nonce: str) -> dict[tuple[int, str], str]:
    """Literal by (index, kind); what is not in the form of a record is passed over, and the first of a kind counts."""
    records: dict[tuple[int, str], str] = {}
    for line in written.split(b"\n")[:-1]:  # what follows the last newline was cut off
        fields = line.decode("utf-8", "backslashreplace").split(" ", 3)
        if len(fields) == 4 and fields[0] == nonce and fields[1].removeprefix("-").isdecimal() and len(fields[1]) < 9:
            records.setdefault((int(fields[1]), fields[2]), fields[3])
    return records


def _result(records: dict[tuple[int, str], str], index: int, max_value_chars: int) -> Result | None:
    if (raised := _raised(records.get((index, "error")))) is not None:
        return raised
    if (text := records.get((index, "object"))) is not None:
        return ReturnedObject(type_name=text.strip("'\"")[:100])
    if (text := records.get((index, "value"))) is not None:
        if len(text) > _MOST_ESCAPED * max_value_chars:
            return ReturnedObject(type_name="object (too long)")  # forged, and parsing takes a hundred times its size
        try:
            value = parse_literal(text)
        except ValueError:  # forged: the driver writes literals only
            return ReturnedObject(type_name="object")
        return Returned(value=value, text=shown(value) if "0x" in text else text)  # long integers come in base 16
    return None


def _raised(text: str | None) -> Raised | None:
    if text is None:
        return None
    if len(text) > 8 * _MAX_RECORD_CHARS:  # a literal has up to ten characters for one of the driver's few hundred
        return Raised(type_name="Exception", message="", line=0)  # forged, and parsing takes a hundred times its size
    try:
        match parse_literal(text):
            case (str(type_name), str(message), int(line)):
                return Raised(type_name=type_name, message=message, line=line)
    except ValueError:
        pass  # forged, like any other shape
    return Raised(type_name="Exception", message="", line=0)
