"""Tell what was said of earlier attempts, and learn from what is said of these: the teacher is shown one thing more than the
student."""

from __future__ import annotations

from collections.abc import Sequence

from sdpo.config import HindsightConfig
from sdpo.hindsight.hints import choose_hints
from sdpo.solving.memory import FeedbackMemory
from sdpo.solving.strategy import FeedbackRenderer
from sdpo.types import Group, Hint, Task


class SelfDistillationInTurns:
    """Everything is told, everything is learned."""

    def question(self, task: Task, memory: FeedbackMemory, renderer: FeedbackRenderer) -> Task:
        return renderer.with_feedback(task, memory.feedbacks)

    def hints(
        self, group: Group, hindsight: HindsightConfig, seed: str, remembered: Sequence[str]
    ) -> tuple[Hint | None, ...] | None:
        return choose_hints(group, hindsight, seed, remembered=remembered)
