"""The environment ``tool_use``: choose the right tool for a request, with the right arguments. Nothing is executed.

This is the task of the SDPO paper (arXiv 2601.20802), in the format of its data, which descends from ToolAlpaca (arXiv
2306.05301). A prompt documents tools and asks for lines ``Thought:``, ``Action:``, ``Action Input:``. The columns are those of
``datasets/tooluse`` of the authors' repository:

- ``prompt``: a text, or messages
- ``system``
- ``answer``: a list of ``{"Action": name, "Action_Input": JSON}``, as JSON or as text of it; also under the name
  ``golden_answer``

A column ``tools`` may hold the documentation as JSON (``tools.py``).

Departures: each call is compared by itself, not merged with the others. Arguments are compared by type. Feedback never says what
was expected (the authors' says it in full). As there, the order of the calls does not matter, and the reward is 1 or 0.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from sdpo.envs.adapters.rows import SPLITS, Row, Source, digest, messages_of
from sdpo.envs.base import Message, Task, Verdict
from sdpo.envs.tool_use.calls import Call, Unreadable, golden_calls, read_calls
from sdpo.envs.tool_use.judging import difference, equals, objection
from sdpo.envs.tool_use.tools import Tool, documented_tools, listed_tools

__all__ = ["Calls", "ToolUse"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Calls:
    """A task's payload."""

    golden: tuple[Call, ...]
    """The right calls, never to be shown to a student."""
    tools: tuple[Tool, ...]
    """As the prompt documents them; empty where that could not be read."""

    @property
    def names(self) -> frozenset[str]:
        return frozenset((*(call.name for call in self.golden), *(tool.name for tool in self.tools)))


class ToolUse:
    """Requests with documented tools: reward 1 for exactly the right calls, else 0."""

    name = "tool_use"
    tasks_limit_s = 120.0

    def __init__(
        self,
        *,
        path: str,
        heldout_path: str | None = None,
        heldout_share: float | None = None,
        prompt: str = "prompt",
        answer: str | None = None,
        loose_types: bool = False,
    ) -> None:
        """``path``, ``heldout_path``, ``heldout_share``: see ``Source``. ``prompt``, ``answer``: the columns; None: answer
        or golden_answer.

        ``loose_types``: numbers and booleans equal texts that read the same, ``1`` and ``"1"``. Raises ValueError for a
        share out of range.
        """
        self._source = Source(path=path, heldout_path=heldout_path, heldout_share=heldout_share)
        self._prompt = prompt
        self._answers = (answer,) if answer is not None else ("answer", "golden_answer")
        self._is_loose = loose_types

    def tasks(self, split: str, seed: int) -> Sequence[Task]:
        """The rows of ``split`` in an order given by ``seed``; a prompt that stands in two rows counts once, with the
        first's answer.

        Rows whose own answer cannot be read are left out, with a warning.
        """
        if split not in SPLITS:
            raise ValueError(f"tool_use's split must be one of {', '.join(SPLITS)}; got {split!r}")
        tasks: dict[tuple[Message, ...], Task] = {}
        broken: list[str] = []
        for number, row in self._source.rows(split, prompt=self._prompt):
            messages = messages_of(row, number, prompt=self._prompt)
            try:
                golden = golden_calls(self._answer(row))
            except ValueError as error:
                broken.append(f"row {number}: {error}")
                continue
            tools = listed_tools(row["tools"]) if row.get("tools") else documented_tools("\n".join(m.content for m in messages))
            task = Task(
                id=f"tool_use/{digest([[message.role.value, message.content] for message in messages])}",
                env=self.name,
                messages=messages,
                payload=Calls(golden=golden, tools=tools),
            )
            tasks.setdefault(messages, task)
        if broken:
            warnings.warn(f"tool_use left out {len(broken)} rows whose answer cannot be read; {broken[0]}", stacklevel=2)
        if not tasks:
            raise ValueError(f"a split needs a row whose answer can be read; {split!r} has none: {'; '.join(broken[:3])}")
        shuffled = list(tasks.values())
        random.Random(f"tool_use/{split}/{seed}").shuffle(shuffled)
        return shuffled

    def verify(self, task: Task, completion: str) -> Verdict:
        """1 for exactly the right calls, else 0 and what is wrong with those made; no answer makes it raise."""
        payload = task.payload
        if not isinstance(payload, Calls):
            raise ValueError(f"tool_use verifies its own tasks only; got {task.id!r} of {task.env!r}")
        calls = read_calls(completion, payload.names)
        if isinstance(calls, Unreadable):
            return _wrong(calls.reason, format_ok=0.0)
        if equals(calls, payload.golden, is_loose=self._is_loose):
            return Verdict(reward=1.0, metrics={"format_ok": 1.0, "schema_ok": 1.0, "tools_ok": 1.0})
        are_tools_right = sorted(call.name for call in calls) == sorted(call.name for call in payload.golden)
        # If the right calls break the documentation, the documentation is wrong.
        is_documented = bool(payload.tools) and objection(payload.golden, payload.tools) is None
        against = objection(calls, payload.tools) if is_documented else None
        feedback = against or difference(calls, payload.golden, is_loose=self._is_loose)
        return _wrong(feedback, format_ok=1.0, schema_ok=float(against is None), tools_ok=float(are_tools_right))

    def reference(self, task: Task) -> str:
        """The right calls as the prompt asks for them."""
        assert isinstance(task.payload, Calls)
        return "\n".join(call.written for call in task.payload.golden)

    def _answer(self, row: Row) -> object:
        for column in self._answers:
            if column in row:
                return row[column]
        raise ValueError(f"every row must have a column {' or '.join(self._answers)}; this one has {', '.join(sorted(row))}")


def _wrong(feedback: str, *, format_ok: float, schema_ok: float = 0.0, tools_ok: float = 0.0) -> Verdict:
    return Verdict(reward=0.0, feedback=feedback, metrics={"format_ok": format_ok, "schema_ok": schema_ok, "tools_ok": tools_ok})
