"""What does a strategy decide? What is asked next, and what is learned from the answers; everything else is the search's.

Ours are the four combinations of two booleans: is the policy told what was said of earlier attempts, and does it learn from it?
SDPO at test time (arXiv 2601.20802, the section on test time) learns and is not told. Before the end no sibling has solved the
task, so hindsight is an attempt's own feedback. The best of what was tried can demonstrate where the config lowers
``demonstration_reward``. Another strategy is a subclass, named in the table of ``sdpo/plugins/seams.py``, by an entry point or by
its file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sdpo.config import HindsightConfig
from sdpo.hindsight.hints import choose_hints
from sdpo.plugins.seams import STRATEGIES
from sdpo.protocols import Renderer
from sdpo.solving.memory import FeedbackMemory
from sdpo.types import Group, Hint, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """How a task is tried again."""

    shows_feedback: bool
    """The policy's prompt has what was said of earlier attempts, up to ``context_tokens``."""
    learns: bool
    """The policy learns from what is said of each step's attempts."""

    def question(self, task: Task, memory: FeedbackMemory, renderer: Renderer) -> Task:
        """What the policy is asked in the next step."""
        return renderer.with_feedback(task, memory.feedbacks) if self.shows_feedback else task

    def hints(
        self, group: Group, hindsight: HindsightConfig, seed: str, remembered: Sequence[str]
    ) -> tuple[Hint | None, ...] | None:
        """[G] what the teacher is shown of the step's attempts; None where nothing is learned. ``remembered`` are earlier
        attempts that demonstrate."""
        return choose_hints(group, hindsight, seed, remembered=remembered) if self.learns else None


BEST_OF_K = Strategy(shows_feedback=False, learns=False)
"""Ask again: the baseline, independent draws of the model as it is."""
MULTI_TURN = Strategy(shows_feedback=True, learns=False)
"""Ask again, with what was said of earlier attempts in the prompt."""
SDPO = Strategy(shows_feedback=False, learns=True)
"""Learn from what was said, and ask again."""
SDPO_MULTI_TURN = Strategy(shows_feedback=True, learns=True)
"""Both: the teacher is shown one thing more than the student."""


def strategy(name: str) -> Strategy:
    """The one of that name. Raises ValueError where there is none, or what is named is none."""
    found = STRATEGIES.load(name)
    if not isinstance(found, Strategy):
        raise ValueError(f"strategy {name!r} must name a sdpo.solving.strategy.Strategy; it is {found!r}")
    return found
