"""GRPO's loss and the switches of its descendants."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from sdpo.config.rules import at_least, between


class RatioLevel(Enum):
    """Over what the policy gradient's importance ratio is taken."""

    token = "token"
    sequence = "sequence"
    """GSPO (arXiv 2507.18071): the geometric mean over the response."""


class LossMean(Enum):
    """What the policy gradient's sum over tokens is divided by."""

    token = "token"
    """All response tokens of the update (DAPO, arXiv 2503.14476)."""
    sequence = "sequence"
    """Each response's length, then the number of responses (the original GRPO, arXiv 2402.03300)."""
    constant = "constant"
    """Responses times the longest possible one (Dr.GRPO, arXiv 2503.20783)."""


@dataclass
class PolicyGradientConfig:
    """GRPO's loss (arXiv 2402.03300) with the switches of its descendants."""

    clip_low: float = 0.2
    clip_high: float = 0.28
    """Asymmetric, "clip higher" (DAPO)."""
    divide_by_std: bool = False
    """Divide the mean-centred rewards by their standard deviation, as the original does; Dr.GRPO does not."""
    ratio: RatioLevel = RatioLevel.token
    mean: LossMean = LossMean.token
    drop_uniform_groups: bool = False
    """Leave groups whose rewards do not differ out of the counts the loss is divided by (DAPO, which first
    samples others in their place: ``algorithm.replacement_rounds``)."""
    overlong_tokens: int = 0
    """The last so many tokens before the length limit cost reward, linearly up to 1 (DAPO's overlong shaping); 0: none do."""
    rollout_clip: float = 2.0
    """Truncation of the detached weight π_learner/π_engine that corrects for the engine's arithmetic."""

    def __post_init__(self) -> None:
        between("algorithm.policy_gradient.clip_low", self.clip_low, 0.0, 1.0)
        at_least("algorithm.policy_gradient.clip_high", self.clip_high, 0.0, "it is a distance from 1")
        at_least("algorithm.policy_gradient.overlong_tokens", self.overlong_tokens, 0, "it counts tokens")
        at_least("algorithm.policy_gradient.rollout_clip", self.rollout_clip, 1.0, "it truncates a ratio around 1 from above")
