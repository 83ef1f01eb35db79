"""Who teaches, and what the teacher is shown that the student is not."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from sdpo.config.rules import at_least, between
from sdpo.plugins.seam import short
from sdpo.plugins.seams import HINT_SOURCES


class TeacherKind(Enum):
    """Which weights the teacher has."""

    live = "live"
    """The policy's own, now."""
    frozen = "frozen"
    """The policy's at the start."""
    ema = "ema"
    """An exponential moving average of the policy's, kept in fp32."""
    on_gain = "on_gain"
    """A copy of the policy's in fp32, made anew only when success has risen and responses have not grown (Consolidation-Gated
    Teacher Refresh, arXiv 2606.03532)."""
    trust_region = "trust_region"
    """The policy's at the start and now: their logits are mixed, so that the teacher never strays far."""
    external = "external"
    """Another model's, with the same vocabulary."""


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
class TeacherConfig:
    """The self-teacher."""

    kind: TeacherKind = TeacherKind.ema
    ema_rate: float = 0.05
    """Share of the policy mixed in once a step. The paper: 0.05 without environment feedback, 0.01 with."""
    live_weight: float = 0.05
    """Weight of the policy's logits in a trust region's mixture; the start's have the rest."""
    min_gain: float = 0.02
    """Success that ``on_gain`` asks for beyond that of the last refresh."""
    max_length_growth: float = 0.1
    """Share by which the mean response may have grown since the last refresh, for ``on_gain`` to refresh."""
    gain_window: int = 8
    """Steps whose training success ``on_gain`` compares, where evaluation.every is 0; else it compares held-out success."""
    path: str | None = None
    """The external teacher: a folder, a hub id, or ``package:NAME``."""
    offload: bool = False
    """Keep the average in the host's memory instead of the GPU's."""

    @property
    def keeps_average(self) -> bool:
        """Whether the teacher has fp32 weights of its own, which follow the policy's or are set to them."""
        return self.kind in (TeacherKind.ema, TeacherKind.on_gain)

    @property
    def is_another_self(self) -> bool:
        """Whether the teacher is one model, the policy's earlier self, which an engine could sample from."""
        return self.keeps_average or self.kind is TeacherKind.frozen

    def __post_init__(self) -> None:
        between("algorithm.teacher.ema_rate", self.ema_rate, 0.0, 1.0)
        between("algorithm.teacher.live_weight", self.live_weight, 0.0, 1.0)
        between("algorithm.teacher.min_gain", self.min_gain, 0.0, 1.0)
        at_least("algorithm.teacher.max_length_growth", self.max_length_growth, 0.0, "equal length has grown by 0")
        at_least("algorithm.teacher.gain_window", self.gain_window, 1, "it counts steps")
        if (self.path is not None) != (self.kind is TeacherKind.external):
            raise ValueError(
                "algorithm.teacher.path names the external teacher, so it goes with algorithm.teacher.kind=external alone; "
                f"got path={self.path} and kind={self.kind.value}. Give both or neither."
            )


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
