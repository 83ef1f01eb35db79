"""What did an answer do when its function was called, or when it was run as a program?

All calls of a function are made in one sandboxed process, each run of a program in its own. The process is told arguments or
standard input, never what is expected. What it says of itself is read here, as literals. All of it may be forged, but only by an
answer that could as well have returned what it forges.
"""

from __future__ import annotations

import io
import marshal
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sdpo.envs import sandbox
from sdpo.envs.code.literals import shown_text
from sdpo.envs.code.trials import Arguments
from sdpo.envs.literal_text import MOST_VALUES, TooManyValues, read_literal

_DRIVER = Path(__file__).with_name("driver.py").read_text(encoding="utf-8")
_LOADING, _RUN = -1, 0
_MIN_VALUE_CHARS = 4000
_MAX_RECORD_CHARS = 500
"""Most characters of a record without its value."""
_MOST_ESCAPED = 2
"""Characters that the driver's text may have beyond those it counts, as a factor: half a surrogate pair is written as six."""
_MOST_OUTPUT_BYTES = 1 << 26
_VALUES_OF_ERROR = 4
"""The tuple, and what it holds."""
_KINDS = ("loaded", "missing", "value", "object", "error")
_TYPES = {"[": "list", "(": "tuple", "{": "dict or set"}


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
    num_expected: int = 1
    """Values in what is expected (``num_values``). A result that holds many more is not read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Returned:
    """A value came back."""

    value: object
    """With ``Pairs`` for dicts and ``Members`` for sets (``literal_text.py``)."""
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


def make_calls(
    answer: Answer, function: str, calls: Sequence[Call], limits: sandbox.Limits, *, is_hidden: bool, longest: int = 0
) -> Execution:
    """Load ``answer`` and make each call with fresh copies of its arguments. Raises SandboxUnavailable.

    ``is_hidden``: no later answer may learn of the arguments. ``longest``: characters of the longest expected literal, for which
    room is made.
    """
    max_value_chars = _MIN_VALUE_CHARS if longest <= _MIN_VALUE_CHARS else _power_of_two(longest)
    limits = _with_room(limits, (max_value_chars + _MAX_RECORD_CHARS) * len(calls))
    copies = [marshal.dumps(call.arguments) for call in calls]  # type: ignore[arg-type]  # literals, as Trial says
    ways = [(call.views, call.is_plain) for call in calls]
    outcome, records = _run(answer, (function, max_value_chars, copies, ways), b"", limits, is_hidden=is_hidden)
    return Execution(
        ending=outcome.ending,
        limits=limits,
        loading=_raised(records.get((_LOADING, "error"))),
        is_missing=(_LOADING, "missing") in records,
        is_loaded=(_LOADING, "loaded") in records,
        results=tuple(_result(records, index, call.num_expected, max_value_chars) for index, call in enumerate(calls)),
    )


def run_program(answer: Answer, stdin: str, limits: sandbox.Limits, *, is_hidden: bool, longest: int = 0) -> Run:
    """Run ``answer`` with ``stdin`` to read. Raises SandboxUnavailable.

    ``is_hidden``: no later answer may learn of ``stdin``. ``longest``: bytes of the expected output.
    """
    limits = _with_room(limits, 2 * longest)
    outcome, records = _run(answer, None, stdin.encode("utf-8", "replace"), limits, is_hidden=is_hidden)
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
    *,
    is_hidden: bool,
) -> tuple[sandbox.Outcome, dict[tuple[int, str], str]]:
    nonce = secrets.token_hex(8)
    request = marshal.dumps((nonce, answer.preamble, answer.source, work))
    sent = len(request).to_bytes(8, "little") + request + stdin
    outcome = sandbox.run(_DRIVER, stdin=sent, limits=limits, has_secret=is_hidden)
    return outcome, _records(outcome.result, nonce, num_calls=1 if work is None else len(work[2]))


def _with_room(limits: sandbox.Limits, num_bytes: int) -> sandbox.Limits:
    """A right answer must be able to say what is expected of it."""
    return replace(limits, output_bytes=max(limits.output_bytes, min(_power_of_two(num_bytes), _MOST_OUTPUT_BYTES)))


def _power_of_two(number: int) -> int:
    """The next one, as the answer need not learn more of ``number``."""
    return 1 << number.bit_length()


def _records(written: bytes, nonce: str, *, num_calls: int) -> dict[tuple[int, str], str]:
    """Literal by (index, kind); what is not in the form of a record is passed over, and the first of a kind counts."""
    indices = {str(index): index for index in (_LOADING, *range(num_calls))}
    records: dict[tuple[int, str], str] = {}
    for line in io.BytesIO(written):  # one at a time: what is forged may be lines alone
        if not (line.startswith(nonce.encode()) and line.endswith(b"\n")):  # what follows the last newline was cut off
            continue
        fields = line[:-1].decode("utf-8", "backslashreplace").split(" ", 3)
        if len(fields) == 4 and fields[0] == nonce and fields[1] in indices and fields[2] in _KINDS:
            records.setdefault((indices[fields[1]], fields[2]), fields[3])
    return records


def _result(records: dict[tuple[int, str], str], index: int, num_expected: int, max_value_chars: int) -> Result | None:
    if (raised := _raised(records.get((index, "error")))) is not None:
        return raised
    if (text := records.get((index, "object"))) is not None:
        return ReturnedObject(type_name=text[: 4 * _MAX_RECORD_CHARS].strip("'\"")[:100])
    if (text := records.get((index, "value"))) is not None:
        if len(text) > _MOST_ESCAPED * max_value_chars:
            return ReturnedObject(type_name="object (too long)")  # forged
        try:
            value = read_literal(text, most_values=max(MOST_VALUES, _power_of_two(num_expected)))
        except TooManyValues:
            return ReturnedObject(type_name=f"{_TYPES.get(text[:1], 'object')} (too long)")
        except ValueError:  # forged: the driver writes literals only
            return ReturnedObject(type_name="object")
        return Returned(value=value, text=shown_text(text, value))  # long integers come in base 16
    return None


def _raised(text: str | None) -> Raised | None:
    if text is None:
        return None
    if len(text) > 8 * _MAX_RECORD_CHARS:  # a literal has up to ten characters for one of the driver's few hundred
        return Raised(type_name="Exception", message="", line=0)  # forged
    try:
        match read_literal(text, most_values=_VALUES_OF_ERROR):
            case (str(type_name), str(message), int(line)):
                return Raised(type_name=type_name, message=message, line=line)
    except ValueError:
        pass  # forged, like any other shape
    return Raised(type_name="Exception", message="", line=0)
