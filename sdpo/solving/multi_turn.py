"""Ask again, and tell what was said of earlier attempts: in context, up to ``context_tokens``, the weights as they are."""

from __future__ import annotations

from collections.abc import Sequence

from sdpo.config import HindsightConfig
from sdpo.solving.memory import FeedbackMemory
from sdpo.solving.strategy import FeedbackRenderer
from sdpo.types import Group, Hint, Task


class MultiTurn:
    """Everything is told, nothing is learned."""

    def question(self, task: Task, memory: FeedbackMemory, renderer: FeedbackRenderer) -> Task:
        return renderer.with_feedback(task, memory.feedbacks)

    def hints(
        self, group: Group, hindsight: HindsightConfig, seed: str, remembered: Sequence[str]
    ) -> tuple[Hint | None, ...] | None:
        return None
