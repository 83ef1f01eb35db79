"""Several environments in one run: each task is judged by the environment that it comes from.

A task keeps its question, and its id gets its member's label in front, so that no two members' ids are alike. Weights decide how
often training asks whom (``sdpo.attempts.mixed_order``); held-out tasks come from each member in turn, so that each is measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import overload

from sdpo.envs import registry
from sdpo.envs.base import Conversational, Environment, HasReference, LeavesOut, Message, TakesTime, Task, Verdict
from sdpo.envs.judging import reference_of, reply_of, verdict_of, verdict_on
from sdpo.envs.listing import LIMIT_S, TakesLong
from sdpo.types import Part

__all__ = ["Mix"]

_KEYS = ("name", "options", "weight")


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    """The payload of a mixed task."""

    label: str
    task: Task
    """As its own environment gave it."""


class Mix:
    """Tasks of several environments, each judged by its own.

    ``members`` maps labels to ``name``, the member's environment (the label itself, if nothing is said), its ``options``, and
    ``weight``, its share of the tasks that training asks beside the others' (1). Raises ValueError where one cannot be made.
    """

    name = "mix"

    def __init__(self, *, members: Mapping[str, Mapping[str, object] | None]) -> None:
        if not isinstance(members, Mapping) or not members:
            raise ValueError(
                "env.options.members must map labels to environments, as in {code: {weight: 2}, chemistry: {}}; "
                f"got {members!r}: name one at least"
            )
        self._members: dict[str, Environment] = {}
        self._weights: dict[str, float] = {}
        self._longest_s: list[float] = []
        for label, said in members.items():
            self._add(label, said or {})
        self.tasks_limit_s = sum(
            member.tasks_limit_s if isinstance(member, TakesLong) else LIMIT_S for member in self._members.values()
        )
        # What only some environments can do is there where the members can: who asks looks for the method.
        if any(isinstance(member, Conversational) for member in self._members.values()):
            self.reply, self.judge = self._reply, self._judge
        if all(isinstance(member, HasReference) for member in self._members.values()):
            self.reference = self._reference

    @property
    def longest_verdict_s(self) -> float:
        """Seconds that the slowest answer to the slowest member can take, as far as they say."""
        said = [member.longest_verdict_s for member in self._members.values() if isinstance(member, TakesTime)]
        return max((*said, *self._longest_s), default=0.0)

    @property
    def left_out(self) -> Mapping[str, int]:
        """What the members' files hold and they cannot use."""
        return {
            f"{label}: {reason}": number
            for label, member in self._members.items()
            if isinstance(member, LeavesOut)
            for reason, number in member.left_out.items()
        }

    def tasks(self, split: str, seed: int) -> Sequence[Task]:
        """Those of the members in turn, as long as each has some."""
        return MixedTasks(
            {label: member.tasks(split, seed) for label, member in self._members.items()}, self._weights, env=self.name
        )

    def verify(self, task: Task, completion: str) -> Verdict:
        inner, member = self._whose(task)
        return _labelled(inner.label, verdict_on(member, inner.task, completion))

    def _reply(self, task: Task, transcript: Sequence[Message]) -> str | None:
        inner, member = self._whose(task)
        return reply_of(member, inner.task, transcript) if isinstance(member, Conversational) else None

    def _judge(self, task: Task, transcript: Sequence[Message]) -> Verdict:
        inner, member = self._whose(task)
        return _labelled(inner.label, verdict_of(member, inner.task, transcript))

    def _reference(self, task: Task) -> str:
        inner, member = self._whose(task)
        assert isinstance(member, HasReference)
        return reference_of(member, inner.task)

    def _whose(self, task: Task) -> tuple[Inner, Environment]:
        inner = task.payload
        if not isinstance(inner, Inner) or inner.label not in self._members:
            raise ValueError(f"mix judges its own tasks only; got {task.id!r} of {task.env!r}")
        return inner, self._members[inner.label]

    def _add(self, label: str, said: Mapping[str, object]) -> None:
        key = f"env.options.members.{label}"
        if not isinstance(label, str) or not label.isprintable() or not label or "/" in label:
            raise ValueError(f"a label of env.options.members must be printable text without a slash; got {label!r}")
        if not isinstance(said, Mapping):
            raise ValueError(f"{key} must map some of {', '.join(_KEYS)} to values; got {said!r}")
        unknown = [word for word in said if word not in _KEYS]
        if unknown:
            raise ValueError(f"{key} takes {', '.join(_KEYS)}; got {unknown[0]!r}: what is the member's own goes into options")
        spec, options, weight = said.get("name", label), said.get("options") or {}, said.get("weight", 1.0)
        if not isinstance(spec, str) or not isinstance(options, Mapping):
            raise ValueError(f"{key} needs a text as its name and a mapping as its options; got {spec!r} and {options!r}")
        if not isinstance(weight, int | float) or isinstance(weight, bool) or not (math.isfinite(weight) and weight > 0):
            raise ValueError(
                f"{key}.weight must be a positive number; got {weight!r}: leave out a member that shall not be asked"
            )
        try:
            self._members[label] = registry.make(spec, options)
            timeout_s = registry.timeout_s(spec, options)
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from error
        self._weights[label] = float(weight)
        if timeout_s is not None:
            self._longest_s.append(timeout_s)


class MixedTasks(Sequence[Task]):
    """The members' tasks in turn; as lazy as theirs are."""

    def __init__(self, members: Mapping[str, Sequence[Task]], weights: Mapping[str, float], *, env: str) -> None:
        self._members, self._weights, self._env = members, weights, env
        self._places = list(_in_turn({label: len(tasks) for label, tasks in members.items()}))

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """The positions of each member's tasks, in its own order. See ``sdpo.types.InParts``."""
        positions: dict[str, list[int]] = {label: [] for label in self._members}
        for position, (label, _) in enumerate(self._places):
            positions[label].append(position)
        return tuple(Part(name=label, weight=self._weights[label], positions=tuple(of)) for label, of in positions.items())

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> Task: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Task]: ...
    def __getitem__(self, index: int | slice) -> Task | Sequence[Task]:
        if isinstance(index, slice):
            return [self[position] for position in range(len(self))[index]]
        label, place = self._places[index]
        task = self._members[label][place]
        return replace(task, id=f"{label}/{task.id}", env=self._env, payload=Inner(label=label, task=task))


def _in_turn(sizes: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    for place in range(max(sizes.values())):
        yield from ((label, place) for label, size in sizes.items() if place < size)


def _labelled(label: str, verdict: Verdict) -> Verdict:
    """The member's verdict, whose numbers are averaged over its own attempts alone."""
    own = {f"{label}/{name}": value for name, value in verdict.metrics.items()}
    return replace(verdict, metrics={**own, f"{label}/success": float(verdict.is_solved), f"{label}/reward": verdict.reward})
