"""What an environment is. This module and ``sdpo.types`` are all that an environment author needs; neither imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from sdpo.types import Message, Role, Task, Verdict

__all__ = ["Environment", "Message", "Role", "Task", "Verdict"]


@runtime_checkable
class Environment(Protocol):
    """A source of tasks and the judge of their answers.

    Made by calling the class with the options of the ``env`` config group as keyword arguments. ``verify`` is called from
    several worker processes, so an environment must be cheap to make twice and hold no state between calls.
    """

    name: str

    def tasks(self, split: str, seed: int) -> Sequence[Task]:
        """The tasks of ``split`` (``"train"`` or ``"heldout"``), disjoint between splits, the same for the same seed.

        The sequence may be lazy (procedural): only ``len`` and indexing are used.
        Raises ValueError for a split it does not have.
        """
        ...

    def verify(self, task: Task, completion: str) -> Verdict:
        """Judge one answer. May be slow. A wrong or malformed answer is a Verdict, never an exception."""
        ...
