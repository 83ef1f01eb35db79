"""What an environment is. This module and ``sdpo.types`` are all that an environment author needs; neither imports torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from sdpo.types import Message, Role, Task, Verdict

__all__ = [
    "Conversational",
    "Environment",
    "HasReference",
    "LeavesOut",
    "Message",
    "ReadsFiles",
    "Role",
    "SingleTurn",
    "TakesTime",
    "Task",
    "Verdict",
]


@runtime_checkable
class Environment(Protocol):
    """A source of tasks, and the judge of their answers: also a ``SingleTurn`` or a ``Conversational``.

    Made by calling the class with the options of the ``env`` config group as keyword arguments. It judges in several worker
    processes, so an environment must be cheap to make twice and hold no state between calls.
    """

    name: str

    def tasks(self, split: str, seed: int) -> Sequence[Task]:
        """The tasks of ``split`` (``"train"`` or ``"heldout"``), disjoint between splits, the same for the same seed.

        The sequence may be lazy (procedural): only ``len`` and indexing are used.
        Raises ValueError for a split it does not have.
        """
        ...


@runtime_checkable
class SingleTurn(Environment, Protocol):
    """An environment that is given one answer, and judges it."""

    def verify(self, task: Task, completion: str) -> Verdict:
        """Judge one answer. May be slow. A wrong or malformed answer is a Verdict, never an exception."""
        ...


@runtime_checkable
class Conversational(Environment, Protocol):
    """An environment of several turns: it replies to the policy (``sampling.max_turns``), and then judges the conversation.

    A transcript holds what was said after the task's own messages, policy (``Role.assistant``) and environment (``Role.user``) in
    turn. It begins and ends with the policy. With one turn, or at the last one, no reply is asked for.
    """

    def reply(self, task: Task, transcript: Sequence[Message]) -> str | None:
        """What the environment says next, or None: the conversation is over, judge it."""
        ...

    def judge(self, task: Task, transcript: Sequence[Message]) -> Verdict:
        """Judge the whole conversation, as ``SingleTurn.verify`` does an answer; ``verify`` is then not needed, nor asked."""
        ...


@runtime_checkable
class HasReference(Protocol):
    """An environment that also knows a right answer to each of its tasks.

    ``sdpo envs check`` asks for it: it must get the reward 1, and it must not stand in the feedback to wrong answers.
    Training asks for it only where its config says so, and only for training tasks. The teacher is shown it with
    ``algorithm.hindsight.choice=reference``, and a warm-up learns to write it.
    """

    def reference(self, task: Task) -> str:
        """A complete answer, as the policy would have to write it."""
        ...


@runtime_checkable
class ReadsFiles(Protocol):
    """An environment that also takes tasks which the user brings, for ``sdpo solve task=FILE``."""

    def from_file(self, path: str) -> Sequence[Task]:
        """The tasks in a file, which the environment then judges without it. Raises ValueError for one that cannot be read."""
        ...


@runtime_checkable
class LeavesOut(Protocol):
    """An environment that reads files and cannot use everything in them. ``sdpo envs show`` and ``--dry-run`` say what."""

    @property
    def left_out(self) -> Mapping[str, int]:
        """How many, by reason: ``{"it has no tests": 2}``. Empty where all is used."""
        ...


@runtime_checkable
class TakesTime(Protocol):
    """An environment that knows how long its verdicts can take. A run whose verifiers do not wait as long is refused at once."""

    @property
    def longest_verdict_s(self) -> float:
        """Seconds that ``verify`` takes at most, whatever the answer does."""
        ...
