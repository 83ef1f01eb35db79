"""What the teacher is shown that the student is not."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from sdpo.config.rules import at_least
from sdpo.plugins.seam import short
from sdpo.plugins.seams import HINT_SOURCES


class HintChoice(Enum):
    """Which hint an attempt gets when both kinds are at hand."""

    demonstration_first = "demonstration_first"
    """Feedback only where no sibling solved the task."""
    both = "both"
    demonstration_only = "demonstration_only"
    feedback_only = "feedback_only"
    reference = "reference"
    """The environment's own right answer in place of a sibling's, and nothing else (OPSD, arXiv 2601.18734)."""
    none = "none"
    """The teacher sees the student's prompt. With an external teacher this is generalised knowledge distillation (arXiv
    2306.13649). With a self-teacher, who then knows nothing more than the student, it is the control that shows what hints
    teach."""


_TAKEN = {"demonstration", "feedback", "both", "remembered", "se", "plain", "hindsight", "share"}
"""What metrics and hints are called already."""
_WITHOUT_SIBLINGS = (HintChoice.feedback_only, HintChoice.reference, HintChoice.none)
"""Choices that show nobody's demonstration."""


@dataclass
class HindsightConfig:
    """Which attempts get a hint, and how it is put to the teacher."""

    choice: HintChoice = HintChoice.demonstration_first
    solved_get_hints: bool = True
    """A solved attempt is shown a solved sibling too, and so reinforced where they agree."""
    repeats_get_hints: bool = True
    """A solved attempt may be shown a sibling that says just what it says itself. That makes the policy surer of that answer and
    teaches nothing else. False: it is shown one that says something else; where there is none it gets no hint."""
    max_prompt_tokens: int = 1024
    """Longest hindsight prompt, in tokens. Over it the feedback and then the demonstration are cut, never the question."""
    demonstration_reward: float = 1.0
    """A sibling demonstrates from this reward on."""
    success_buffer: int = 0
    """Latest demonstrations of a task that are remembered over steps; 0: none. One is shown where no sibling of the present group
    demonstrates (DRIFT, arXiv 2606.30345)."""
    sources: list[str] = field(default_factory=list)
    """Further sources of hints, shown after what ``choice`` shows: an installed package's name, module:Class or file.py:Class."""

    @property
    def shows_nothing(self) -> bool:
        """Whether no attempt gets a hint, so that the teacher sees the student's prompt."""
        return self.choice is HintChoice.none and not self.sources

    @property
    def is_measurable(self) -> bool:
        """Whether its lift says something: hints are made of attempts, and are not the answer, which is copied without skill."""
        return self.choice not in (HintChoice.none, HintChoice.reference) or bool(self.sources)

    @property
    def least_attempts(self) -> int:
        """The fewest attempts at a task that let its lift be measured: one in each half.

        A sibling is needed too where only its demonstration would help.
        """
        return 3 if self.choice is HintChoice.demonstration_only else 2

    def __post_init__(self) -> None:
        at_least("algorithm.hindsight.max_prompt_tokens", self.max_prompt_tokens, 1, "the question alone needs some")
        if not 0.0 < self.demonstration_reward <= 1.0:
            raise ValueError(
                "algorithm.hindsight.demonstration_reward must lie in (0, 1] (a worthless answer demonstrates nothing); got "
                f"{self.demonstration_reward}."
            )
        if not self.repeats_get_hints and self.choice is HintChoice.reference:
            raise ValueError(
                "algorithm.hindsight.repeats_get_hints=false chooses among solved siblings, and choice=reference shows none; "
                "choose another, or leave it true."
            )
        for name in self.sources:
            HINT_SOURCES.check("algorithm.hindsight.sources", name)
        names = [short(name) for name in self.sources]
        if len(set(names)) != len(names) or _TAKEN & set(names):
            raise ValueError(
                f"algorithm.hindsight.sources must have names of their own, other than {', '.join(sorted(_TAKEN))} (metrics are "
                f"called by them); got {', '.join(names)}."
            )
        at_least("algorithm.hindsight.success_buffer", self.success_buffer, 0, "it counts demonstrations")
        if self.success_buffer > 0 and self.choice in _WITHOUT_SIBLINGS:
            raise ValueError(
                "algorithm.hindsight.success_buffer stands in for a solved sibling, so it needs a choice that shows one "
                f"(demonstration_first, both or demonstration_only); got {self.success_buffer} with choice={self.choice.value}."
            )
