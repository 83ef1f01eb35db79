"""What did an answer do when its function was called?

All calls are made in one sandboxed process, which is told the arguments only. What it says of itself is read here, as
literals, and may all be forged: by an answer that could as well have returned what it forges.
"""

from __future__ import annotations

import marshal
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sdpo.envs import sandbox
from sdpo.envs.code.literals import parse_literal
from sdpo.envs.code.problem import Arguments

_DRIVER = Path(__file__).with_name("driver.py").read_text(encoding="utf-8")
_LOADING = -1


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
    """An exception ended the loading or the call."""

    type_name: str
    message: str
    line: int
    """Of the answer's source, from 1; 0 where it is not known."""


Result = Returned | ReturnedObject | Raised


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """How one process with an answer went."""

    ending: sandbox.Ending
    loading: Raised | None
    """What the answer raised before its function could be called."""
    is_missing: bool
    """It loaded, but without a function of that name."""
    is_loaded: bool
    results: tuple[Result | None, ...]
    """One a call; None for those that never came back."""


def execute(source: str, function: str, calls: Sequence[Arguments], limits: sandbox.Limits) -> Execution:
    """Load ``source`` and make each call with fresh copies of its arguments. Raises SandboxUnavailable."""
    nonce = secrets.token_hex(8)
    copies = [marshal.dumps(arguments) for arguments in calls]  # type: ignore[arg-type]  # literals, as Trial says
    request = marshal.dumps((nonce, source, function, copies))
    outcome = sandbox.run(_DRIVER, stdin=request, limits=limits)
    records = _records(outcome.result, nonce)
    loading = records.get((_LOADING, "error"))
    return Execution(
        ending=outcome.ending,
        loading=_raised(loading) if loading is not None else None,
        is_missing=(_LOADING, "missing") in records,
        is_loaded=(_LOADING, "loaded") in records,
        results=tuple(_result(records, index) for index in range(len(calls))),
    )


def _records(written: bytes, nonce: str) -> dict[tuple[int, str], str]:
    """Literal by (index, kind); what is not in the form of a record is passed over, and the first of a kind counts."""
    records: dict[tuple[int, str], str] = {}
    for line in written.split(b"\n")[:-1]:  # what follows the last newline was cut off
        fields = line.decode("utf-8", "backslashreplace").split(" ", 3)
        if len(fields) == 4 and fields[0] == nonce and fields[1].removeprefix("-").isdecimal() and len(fields[1]) < 9:
            records.setdefault((int(fields[1]), fields[2]), fields[3])
    return records


def _result(records: dict[tuple[int, str], str], index: int) -> Result | None:
    if (text := records.get((index, "error"))) is not None:
        return _raised(text)
    if (text := records.get((index, "object"))) is not None:
        return ReturnedObject(type_name=text.strip("'\""))
    if (text := records.get((index, "value"))) is not None:
        try:
            return Returned(value=parse_literal(text), text=text)
        except ValueError:  # forged: the driver writes literals only
            return ReturnedObject(type_name="object")
    return None


def _raised(text: str) -> Raised:
    try:
        match parse_literal(text):
            case (str(type_name), str(message), int(line)):
                return Raised(type_name=type_name, message=message, line=line)
    except ValueError:
        pass  # forged, like any other shape
    return Raised(type_name="Exception", message="", line=0)
