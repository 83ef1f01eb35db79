"""Ask again, after learning from what was said: test-time self-distillation (arXiv 2601.20802, the section on test time).

Before the end no sibling has solved the task, so hindsight is an attempt's own feedback; where the config lowers
``demonstration_reward``, the best of what was tried can demonstrate.
"""

from __future__ import annotations

from collections.abc import Sequence

from sdpo.config import HindsightConfig
from sdpo.hindsight.hints import choose_hints
from sdpo.solving.memory import FeedbackMemory
from sdpo.solving.strategy import FeedbackRenderer
from sdpo.types import Group, Hint, Task


class SelfDistillation:
    """Nothing is told, everything is learned."""

    def question(self, task: Task, memory: FeedbackMemory, renderer: FeedbackRenderer) -> Task:
        return task

    def hints(
        self, group: Group, hindsight: HindsightConfig, seed: str, remembered: Sequence[str]
    ) -> tuple[Hint | None, ...] | None:
        return choose_hints(group, hindsight, seed, remembered=remembered)
