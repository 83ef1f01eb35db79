"""What does a strategy decide? What is asked next, and what is learned from the answers; everything else is the search's.

A strategy is a file beside this one, and a line in ``strategies.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from sdpo.config import HindsightConfig
from sdpo.protocols import Renderer
from sdpo.solving.memory import FeedbackMemory
from sdpo.types import Group, Hint, Task


class FeedbackRenderer(Renderer, Protocol):
    """A Renderer that can put to the policy itself what was said of earlier attempts."""

    def with_feedback(self, task: Task, feedbacks: Sequence[str]) -> Task:
        """The task with its question followed by those of ``feedbacks`` that fit, the oldest, the first ones, left out first."""
        ...


class Strategy(Protocol):
    """How a task is tried again."""

    def question(self, task: Task, memory: FeedbackMemory, renderer: FeedbackRenderer) -> Task:
        """What the policy is asked in the next step."""
        ...

    def hints(
        self, group: Group, hindsight: HindsightConfig, seed: str, remembered: Sequence[str]
    ) -> tuple[Hint | None, ...] | None:
        """[G] what the teacher is shown of the step's attempts; None for a strategy that does not learn. ``remembered`` are
        earlier attempts that demonstrate."""
        ...
