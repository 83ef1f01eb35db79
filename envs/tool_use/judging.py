"""Are the calls right, and what is said of them if not?

There are two critics. The first knows the tools' documentation only, so it may speak freely. The second knows the right calls. It
says only which of the calls that were made, and which of their arguments, is not right. It never says a name or a value that was
expected.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches

from sdpo.envs.tool_use.calls import Call, Json, json_type, shown, which
from sdpo.envs.tool_use.tools import Tool, takes

_MAX_NAME_CHARS = 80


def equals(calls: Sequence[Call], golden: Sequence[Call], *, is_loose: bool) -> bool:
    """The same calls, each as often, in any order."""
    return not _unmatched(calls, golden, is_loose=is_loose) and len(calls) == len(golden)


def is_same(expected: Json, actual: Json, *, is_loose: bool) -> bool:
    """Equal as JSON: ``1`` is ``1.0`` but neither ``"1"`` nor ``true``. Loosely, a text equals a number or boolean that
    reads the same."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        return expected.keys() == actual.keys() and all(
            is_same(expected[key], actual[key], is_loose=is_loose) for key in expected
        )
    if isinstance(expected, list) and isinstance(actual, list):
        pairs = zip(expected, actual, strict=False)
        return len(expected) == len(actual) and all(is_same(one, other, is_loose=is_loose) for one, other in pairs)
    if _is_number(expected) and _is_number(actual):
        return expected == actual
    if is_loose and isinstance(expected, str) != isinstance(actual, str):
        text, value = (expected, actual) if isinstance(expected, str) else (actual, expected)
        assert isinstance(text, str)
        return _reads_as(text, value)
    return type(expected) is type(actual) and expected == actual


def objection(calls: Sequence[Call], tools: Sequence[Tool]) -> str | None:
    """What the documentation has against the calls, the first thing; None if nothing."""
    by_name = {tool.name: tool for tool in tools}
    for place, call in enumerate(calls, start=1):
        tool = by_name.get(call.name)
        if tool is None:
            near = get_close_matches(call.name[:_MAX_NAME_CHARS], by_name, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            return f"There is no tool named {shown(call.name)}{hint}: choose one of those in the documentation."
        if tool.parameters is None:
            continue
        of = f"{which(place, len(calls))}, of {call.name},".capitalize() if len(calls) > 1 else f"The call of {call.name}"
        parameters = {parameter.name: parameter for parameter in tool.parameters}
        for name, value in call.arguments.items():
            if name not in parameters:
                return f"{of} has an argument {shown(name)}, which that tool does not take."
            if not takes(parameters[name], value):
                return f"{of} gives the argument {name} {json_type(value)}; the documentation says {parameters[name].kind}."
        for parameter in tool.parameters:
            if parameter.is_required and parameter.name not in call.arguments:
                return f"{of} lacks the argument {parameter.name}, which that tool requires."
    return None


def difference(calls: Sequence[Call], golden: Sequence[Call], *, is_loose: bool) -> str:
    """What is not right, given that something is not."""
    wrong = _unmatched(calls, golden, is_loose=is_loose)
    if not wrong:
        return "Each call is right by itself, but more calls are needed to do what was asked."
    if len(calls) > len(golden):
        return f"More calls were made than what was asked needs: {len(calls)}. Make only those that are needed."
    missing = _unmatched(golden, calls, is_loose=is_loose)
    place, call = wrong[0]
    named = f"The call of {shown(call.name)[1:-1]}" if len(calls) == 1 else f"Call {place}, of {shown(call.name)[1:-1]},"
    same_tool = [expected for _, expected in missing if expected.name == call.name]
    if not same_tool:
        return f"{named} does not do what was asked: read again which tool does."
    expected = min(same_tool, key=lambda other: len(_wrong_values(call.arguments, other.arguments, is_loose=is_loose)))
    if surplus := [name for name in call.arguments if name not in expected.arguments]:
        return f"{named} is of the right tool, but the argument {shown(surplus[0])} should not be given here."
    if values := _wrong_values(call.arguments, expected.arguments, is_loose=is_loose):
        given = call.arguments[values[0]]
        kind = json_type(given)
        return (
            f"{named} is of the right tool, but the value of {shown(values[0])} ({kind}) is not what was asked "
            "for: check it exactly."
        )
    return f"{named} is of the right tool and what it gives is right, but an argument is missing: the documentation has more."


def _wrong_values(given: Mapping[str, Json], expected: Mapping[str, Json], *, is_loose: bool) -> list[str]:
    return [name for name, value in given.items() if name in expected and not is_same(expected[name], value, is_loose=is_loose)]


def _unmatched(calls: Sequence[Call], others: Sequence[Call], *, is_loose: bool) -> list[tuple[int, Call]]:
    """The calls, with their place from 1, that no call of ``others`` is left to equal, when as many as possible find one.

    A call may loosely equal several, so one that has found its equal gives it up where it finds another (augmenting paths).
    """
    taker: dict[int, int] = {}
    equal_to = [[index for index, other in enumerate(others) if _equals(call, other, is_loose=is_loose)] for call in calls]

    def finds(place: int, tried: set[int]) -> bool:
        for index in equal_to[place]:
            if index not in tried:
                tried.add(index)
                if index not in taker or finds(taker[index], tried):
                    taker[index] = place
                    return True
        return False

    return [(place, call) for place, call in enumerate(calls, start=1) if not finds(place - 1, set())]


def _equals(call: Call, other: Call, *, is_loose: bool) -> bool:
    return call.name == other.name and is_same(other.arguments, call.arguments, is_loose=is_loose)


def _is_number(value: Json) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _reads_as(text: str, value: Json) -> bool:
    if isinstance(value, bool):
        return text.strip().lower() == str(value).lower()
    if isinstance(value, int | float):
        try:
            return float(text) == value
        except (ValueError, OverflowError):
            return False
    return False
