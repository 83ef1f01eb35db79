"""The environment ``requests``: somebody says what is wanted; the answer is one call of the right tool with what was said.

Made by a procedure, in the form of ``tool_use``: three documented tools, and an answer in two lines, ``Action:`` and
``Action Input:``. Every right answer can be read off its question, and another question has another one, so that no constant
answer and no commonest one is worth anything. Some tools take a text that only has to mention two things: many are right.

The kinds of request are the same in both splits; held-out requests name other people, places and things.

Feedback knows the documentation and the request. It says which argument is wrong and why, never the value that was expected.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from sdpo.envs.base import Message, Role, Task, Verdict
from sdpo.envs.tool_use.calls import Call, Json, Unreadable, read_calls, shown
from sdpo.envs.tool_use.judging import objection
from sdpo.envs.tool_use.request_kinds import MENTIONS, SPLITS, THINGS, Kind, values
from sdpo.envs.tool_use.request_kinds import kinds as _kinds
from sdpo.envs.tool_use.tools import Tool

__all__ = ["Requests", "Wanted"]

NUM_TASKS = {"train": 600, "heldout": 200}
NUM_TOOLS = 3
"""That a request documents, the right one among them."""
MAX_WORDS = 12
"""Of a text that is free."""
SYSTEM = "You call tools. Answer in two lines:\nAction: the tool\nAction Input: its arguments as JSON"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A task's payload."""

    tool: str
    values: Mapping[str, Json]
    """Of arguments with one right value, never to be shown to a student."""
    mentions: Mapping[str, tuple[str, ...]]
    """Of arguments that are free: what they have to mention."""
    tools: tuple[Tool, ...]
    """As the prompt documents them."""


class Requests:
    """Requests with three documented tools: reward 1 for the right call, else 0."""

    name = "requests"

    def __init__(self, *, kinds: Sequence[str] | None = None) -> None:
        """``kinds``: names of tools that requests are about; None: all. Raises ValueError for one that is not there."""
        known = [kind.tool for kind in _kinds()]
        unknown = [name for name in kinds or () if name not in known]
        if unknown or isinstance(kinds, str) or (kinds is not None and not kinds):
            raise ValueError(
                f"env.options.kinds must be a list of one or more of {', '.join(known)}; got {kinds!r}: try {known[:2]}"
            )
        self._kinds = tuple(kind for kind in _kinds() if kinds is None or kind.tool in kinds)

    def tasks(self, split: str, seed: int) -> Sequence[Task]:
        """Raises ValueError for another split."""
        if split not in SPLITS:
            raise ValueError(f"requests has the splits {' and '.join(SPLITS)}; got {split!r}: name one of them")
        tasks = list(_by_request(split, self._kinds).values())
        random.Random(f"requests/{split}/{seed}").shuffle(tasks)
        return tuple(tasks)

    def verify(self, task: Task, completion: str) -> Verdict:
        """1 for the right call, else 0 and what is wrong with it."""
        wanted = task.payload
        if not isinstance(wanted, Wanted):
            raise ValueError(f"requests verifies its own tasks only; got {task.id!r} of {task.env!r}")
        calls = read_calls(completion)
        if isinstance(calls, Unreadable):
            return _wrong(calls.reason, format_ok=0.0)
        if len(calls) > 1:
            return _wrong(f"{len(calls)} calls were made: make the one that does what was asked.", format_ok=1.0)
        against = objection(calls, wanted.tools)
        if against is not None:
            return _wrong(against, format_ok=1.0)
        [call] = calls
        if call.name != wanted.tool:
            return _wrong(f"{call.name} does not do what was asked: read again which tool does.", format_ok=1.0, schema_ok=1.0)
        wrong = next(filter(None, (_objection(call, name, wanted) for name in call.arguments)), None)
        if wrong is not None:
            return _wrong(wrong, format_ok=1.0, schema_ok=1.0, tools_ok=1.0)
        return Verdict(reward=1.0, metrics={"format_ok": 1.0, "schema_ok": 1.0, "tools_ok": 1.0})

    def reference(self, task: Task) -> str:
        """A right call."""
        wanted = task.payload
        assert isinstance(wanted, Wanted)
        free = {name: " and ".join(things) for name, things in wanted.mentions.items()}
        order = next(tool for tool in wanted.tools if tool.name == wanted.tool).parameters or ()
        return Call(name=wanted.tool, arguments={p.name: {**wanted.values, **free}[p.name] for p in order}).written


def _objection(call: Call, name: str, wanted: Wanted) -> str | None:
    """What is wrong with one argument of the right tool, whose type is right."""
    given = call.arguments[name]
    if name in wanted.values:
        if _plain(given) == _plain(wanted.values[name]):
            return None
        return f"The call of {call.name} gives {name} as {shown(str(given))}, which the request does not say: copy it from there."
    words = re.findall(r"[\w'-]+", str(given))
    if len(words) > MAX_WORDS:
        return f"The call of {call.name} gives a {name} of {len(words)} words: write at most {MAX_WORDS}."
    text = f" {' '.join(words).casefold()} "
    missing = sum(f" {thing.casefold()} " not in text for thing in wanted.mentions[name])
    if missing:
        return f"The call of {call.name} gives a {name} that does not mention {missing} of the things that the request names."
    return None


def _plain(value: Json) -> Json:
    """As far as a person would read a value alike: case, white space, a full stop."""
    return " ".join(value.casefold().split()).rstrip(".!") if isinstance(value, str) else value


def _wrong(feedback: str, *, format_ok: float, schema_ok: float = 0.0, tools_ok: float = 0.0) -> Verdict:
    return Verdict(reward=0.0, feedback=feedback, metrics={"format_ok": format_ok, "schema_ok": schema_ok, "tools_ok": tools_ok})


@cache
def _by_request(split: str, chosen: tuple[Kind, ...]) -> Mapping[str, Task]:
    """The same for a split and its kinds; none of the other split's requests."""
    others_have = _by_request("train", chosen) if split == "heldout" else {}
    draw = random.Random(f"requests/{split}")
    tasks: dict[str, Task] = {}
    for _ in range(20 * NUM_TASKS[split]):
        kind = draw.choice(chosen)
        request, said, mentions = _said(kind, split, draw)
        others = draw.sample([other for other in _kinds() if other != kind], NUM_TOOLS - 1)
        listed = draw.sample([kind, *others], NUM_TOOLS)
        if request not in tasks and request not in others_have:
            tasks[request] = _task(f"{split}-{len(tasks)}", kind, request, listed, said, mentions)
        if len(tasks) == NUM_TASKS[split]:
            break
    return tasks


def _said(kind: Kind, split: str, draw: random.Random) -> tuple[str, dict[str, Json], dict[str, tuple[str, ...]]]:
    """A request, the arguments that it says, and what the free ones have to mention."""
    spoken: dict[str, object] = {}
    said: dict[str, Json] = {}
    mentions: dict[str, tuple[str, ...]] = {}
    for name, pool in kind.parameters:
        if pool == MENTIONS:
            first, second = (str(thing) for thing in draw.sample(values(THINGS, split), 2))
            mentions[name] = first, second
            spoken |= {f"{name}_1": first, f"{name}_2": second}
        else:
            said[name] = spoken[name] = draw.choice(values(pool, split))
    return draw.choice(kind.requests).format(**spoken), said, mentions


def _task(
    number: str,
    kind: Kind,
    request: str,
    listed: Sequence[Kind],
    said: Mapping[str, Json],
    mentions: Mapping[str, tuple[str, ...]],
) -> Task:
    documentation = "\n".join(of.documentation for of in listed)
    return Task(
        id=f"requests/{number}-{kind.tool}",
        env=Requests.name,
        messages=(
            Message(role=Role.system, content=SYSTEM),
            Message(role=Role.user, content=f"{documentation}\n\n{request}"),
        ),
        payload=Wanted(tool=kind.tool, values=said, mentions=mentions, tools=tuple(of.as_tool for of in listed)),
    )
