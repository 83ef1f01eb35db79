"""Ask again, and hope: the baseline. The attempts are independent draws of the model as it is."""

from __future__ import annotations

from collections.abc import Sequence

from sdpo.config import HindsightConfig
from sdpo.solving.memory import FeedbackMemory
from sdpo.solving.strategy import FeedbackRenderer
from sdpo.types import Group, Hint, Task


class BestOfK:
    """Nothing is told, nothing is learned."""

    def question(self, task: Task, memory: FeedbackMemory, renderer: FeedbackRenderer) -> Task:
        return task

    def hints(
        self, group: Group, hindsight: HindsightConfig, seed: str, remembered: Sequence[str]
    ) -> tuple[Hint | None, ...] | None:
        return None
