"""Which calls does a completion make? From text to names and arguments, or the reason why it has none.

A call is a line ``Action: name`` and, after it, ``Action Input:`` with a JSON object, which may go over several lines. Both words
are read in any case and in bold, the object also in a fence, and as Python writes it. Everything here reads untrusted text:
nothing raises but ``golden_calls``, which reads the data set's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sdpo.envs.answers import without_thinking
from sdpo.envs.tool_use.literals import python_object

Json = object
"""What JSON says: None, bool, int, float, str, and lists and dicts of them."""

MAX_CALLS = 32
MAX_CALL_CHARS = 20_000
SHOWN_CHARS = 40

_BEFORE = r"^[ \t]*(?:(?:[-*+>#]{1,6}|\d{1,3}[.)])[ \t]+)?[*`]{0,3}"
_AFTER = r"[*`]{0,3}[ \t]*:[*`]{0,3}"
_ACTION = re.compile(rf"{_BEFORE}Action[ \t]*{_AFTER}[ \t]*([^\n]*)", re.MULTILINE | re.IGNORECASE)
_INPUT = re.compile(rf"{_BEFORE}Action[ \t_]?Input[ \t]*{_AFTER}", re.MULTILINE | re.IGNORECASE)
_FENCE = re.compile(r"(?:`{3,}|~{3,})[ \t]*[A-Za-z0-9]*\s*|`")
_BRACKETS = re.compile(r"[\[\]]")
_MAX_PEELS, _MAX_NAME_CHARS = 12, 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of a tool."""

    name: str
    arguments: Mapping[str, Json]

    @property
    def written(self) -> str:
        return f"Action: {self.name}\nAction Input: {json.dumps(self.arguments, ensure_ascii=False)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """Why no calls could be read, as a sentence to the one who wrote them."""

    reason: str


def read_calls(completion: str, names: Collection[str] = ()) -> tuple[Call, ...] | Unreadable:
    """Every call outside the thoughts, in order. ``names``: those of tools, which are taken as they stand."""
    text = without_thinking(completion)
    starts = []
    for match in _ACTION.finditer(text):
        starts.append(match)
        if len(starts) > MAX_CALLS:
            return Unreadable(reason=f"Too many calls were made: at most {MAX_CALLS} are read.")
    if not starts:
        return Unreadable(
            reason="No tool call was found: write a line 'Action: ' with a tool's name, then 'Action Input: ' with a JSON object."
        )
    ends = [match.start() for match in starts[1:]] + [len(text)]
    calls = []
    for place, (start, end) in enumerate(zip(starts, ends, strict=True), start=1):
        rest = text[start.end() : min(end, start.end() + MAX_CALL_CHARS)]
        call = _read_call(_name(start.group(1), names), rest, which(place, len(starts)))
        if isinstance(call, Unreadable):
            return call
        calls.append(call)
    return tuple(calls)


def golden_calls(answer: Json) -> tuple[Call, ...]:
    """The data set's own: a list of ``{"Action": …, "Action_Input": …}``, each input as JSON or as text of it. Raises
    ValueError."""
    listed = _loads(answer) if isinstance(answer, str) else answer
    calls = []
    for call in listed if isinstance(listed, list) else [listed]:
        match call:
            case {"Action": str(name), "Action_Input": arguments}:
                arguments = _loads(arguments) if isinstance(arguments, str) else arguments
                if isinstance(arguments, dict):
                    calls.append(Call(name=name.strip(), arguments=arguments))
                    continue
        raise ValueError(f"an answer must be a list of calls with Action and Action_Input, a JSON object; got {call!r:.200}")
    if not calls:
        raise ValueError("an answer must have at least one call")
    return tuple(calls)


def which(place: int, num_calls: int) -> str:
    """``"the call"``, or ``"call 2"`` where there are several."""
    return "the call" if num_calls == 1 else f"call {place}"


def shown(text: str) -> str:
    """A text of the completion's own, short and printable, in quotes."""
    return (
        repr(text if len(text) <= SHOWN_CHARS else text[:SHOWN_CHARS] + "…").encode("utf-8", "backslashreplace").decode("utf-8")
    )


def _name(written: str, names: Collection[str]) -> str:
    """The tool's name in what stands behind ``Action:``. Decoration goes, unless it belongs to one of ``names``.

    ``"**[search]**"`` is ``"search"``, but where there is a tool ``[Optional]update``, its brackets stay.
    """
    name = written.strip()
    for _ in range(_MAX_PEELS):
        if name in names or len(name) > _MAX_NAME_CHARS or not (peeled := _peeled(name)) or peeled == name:
            break
        name = peeled
    return "" if not name.strip("*`\"'[]") else name


def _peeled(name: str) -> str:
    """The name without its outermost decoration, a pair of marks, quotes or brackets, or a full stop."""
    inner = name[1:-1].strip()
    if len(name) > 2 and ((name[0] == name[-1] and name[0] in "*`\"'") or (name[0] + name[-1] == "[]" and _is_balanced(inner))):
        return inner
    return name.removesuffix(".").rstrip() if name.endswith(".") else name.strip("*`")


def _is_balanced(text: str) -> bool:
    depth = 0
    for bracket in _BRACKETS.findall(text):
        depth += 1 if bracket == "[" else -1
        if depth < 0:
            return False
    return depth == 0


def _read_call(name: str, rest: str, call: str) -> Call | Unreadable:
    if not name:
        return Unreadable(reason=f"There is no tool's name after 'Action:' in {call}.")
    asked = _INPUT.search(rest)
    if asked is None:
        return Unreadable(
            reason=f"There is no 'Action Input:' after 'Action: {shown(name)[1:-1]}': give the arguments as a JSON object."
        )
    source = rest[asked.end() :].lstrip()
    if (fence := _FENCE.match(source)) is not None:
        source = source[fence.end() :].lstrip()
    if not source:
        return Unreadable(reason=f"The input of {call} is empty: give the arguments as a JSON object, {{}} where there are none.")
    arguments = _arguments(source, call)
    if isinstance(arguments, Unreadable):
        return arguments
    if not isinstance(arguments, dict):
        return Unreadable(reason=f"The input of {call} must be a JSON object of named arguments; it is {json_type(arguments)}.")
    return Call(name=name, arguments=arguments)


def _arguments(source: str, call: str) -> Json | Unreadable:
    """What stands at the beginning of ``source``, as JSON or as Python writes it."""
    try:
        value: Json = _DECODER.raw_decode(source)[0]
        return value
    except json.JSONDecodeError as error:
        why = f"is no valid JSON: {error.msg} at character {error.pos} of the input."
    except (ValueError, RecursionError):
        return Unreadable(
            reason=f"The input of {call} is no usable JSON: it is nested too deeply, or holds a number that is none."
        )
    written = python_object(source)
    return Unreadable(reason=f"The input of {call} {why}") if written is None else written


def json_type(value: Json) -> str:
    """The JSON name of a value's type, with its article."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int():
            return "an integer"
        case float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "an array"
    return "an object"


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse)


def _loads(text: str) -> Json:
    value: Json = json.loads(text)
    return value
