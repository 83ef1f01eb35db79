"""GRPO's loss and the switches of its descendants."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from sdpo.config.rules import at_least, between
from sdpo.plugins.seams import ADVANTAGES, POLICY_LOSSES


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


class Deviation(Enum):
    """What the sum of a group's squared distances from its mean is divided by, before the root is taken."""

    population = "population"
    """G, the number of attempts."""
    sample = "sample"
    """G - 1, as torch.std, and with it verl and TRL, has it: advantages are √((G-1)/G) of the others."""

    def num_free(self, size: int) -> int:
        """The divisor for a group of that size."""
        return size if self is Deviation.population else size - 1


class RolloutCorrection(Enum):
    """How the weight π_learner/π_engine is kept from doing harm, C being ``rollout_clip``.

    A sequence's weight is the product of its tokens' weights. Source: https://fengyao.notion.site/off-policy-rl (truncation),
    https://richardli.xyz/rl-collapse (sequences), arXiv 2510.18855 (a band for tokens).
    """

    token_truncate = "token_truncate"
    """A token's weight is at most C."""
    sequence_truncate = "sequence_truncate"
    """Each token has its sequence's weight, at most C."""
    token_mask = "token_mask"
    """A token whose weight leaves [1/C, C] is not learned from."""
    sequence_mask = "sequence_mask"
    """Each token has its sequence's weight; where that leaves [1/C, C], the sequence is not learned from."""

    @property
    def is_of_sequences(self) -> bool:
        """Whether a token's weight depends on the other tokens of its response."""
        return self in (RolloutCorrection.sequence_truncate, RolloutCorrection.sequence_mask)

    @property
    def masks(self) -> bool:
        """Whether what leaves the band is left out, not truncated."""
        return self in (RolloutCorrection.token_mask, RolloutCorrection.sequence_mask)


@dataclass
class PolicyGradientConfig:
    """GRPO's loss (arXiv 2402.03300) with the switches of its descendants."""

    loss: str = "clipped"
    """``clipped`` (PPO's and GRPO's), ``cispo`` (arXiv 2506.13585), or a name of your own."""
    advantage: str = "group"
    """``group`` (GRPO), ``leave_one_out`` (RLOO, arXiv 2402.14740), ``batch`` and ``group_then_batch`` (REINFORCE++ without and
    with the group's baseline, arXiv 2501.03262), or a name of your own."""
    clip_low: float = 0.2
    clip_high: float = 0.28
    """Asymmetric, "clip higher" (DAPO)."""
    clip_ratio_c: float | None = None
    """c > 1 of the dual clip (arXiv 1912.09729): a token with a negative advantage A costs at most -c·A, however much likelier it
    has become. The authors' GRPO runs have 3. None: no bound."""
    divide_by_std: bool = False
    """Divide the mean-centred rewards by their standard deviation, as the original does; Dr.GRPO does not."""
    deviation: Deviation = Deviation.population
    """Which deviation that is."""
    ratio: RatioLevel = RatioLevel.token
    mean: LossMean = LossMean.token
    drop_uniform_groups: bool = False
    """Leave groups whose rewards do not differ out of the counts the loss is divided by (DAPO, which first
    samples others in their place: ``algorithm.replacement_rounds``). The rewards are the environment's, before
    ``overlong_tokens``."""
    overlong_tokens: int = 0
    """The last so many tokens before the length limit cost reward, linearly up to 1 (DAPO's overlong shaping); 0: none do."""
    rollout_clip: float = 2.0
    """Truncation of the detached weight π_learner/π_engine that corrects for the engine's arithmetic."""
    rollout_correction: RolloutCorrection = RolloutCorrection.token_truncate

    @property
    def needs_whole_rows(self) -> bool:
        """Whether a token's loss depends on the other tokens of its response."""
        return self.ratio is RatioLevel.sequence or self.rollout_correction.is_of_sequences

    def __post_init__(self) -> None:
        POLICY_LOSSES.check("algorithm.policy_gradient.loss", self.loss)
        ADVANTAGES.check("algorithm.policy_gradient.advantage", self.advantage)
        if self.divide_by_std and self.advantage != "group":
            raise ValueError(
                "algorithm.policy_gradient.divide_by_std divides by the group's deviation, so it works with "
                f"algorithm.policy_gradient.advantage=group only; got advantage={self.advantage}. Set divide_by_std=false."
            )
        between("algorithm.policy_gradient.clip_low", self.clip_low, 0.0, 1.0)
        at_least("algorithm.policy_gradient.clip_high", self.clip_high, 0.0, "it is a distance from 1")
        if self.clip_ratio_c is not None and not 1.0 < self.clip_ratio_c < math.inf:
            raise ValueError(
                "algorithm.policy_gradient.clip_ratio_c must be above 1 (at 1 it would cut off what is learned "
                f"on-policy); got {self.clip_ratio_c}. Give null for no bound."
            )
        if self.clip_ratio_c is not None and self.loss == "cispo":
            raise ValueError(
                "algorithm.policy_gradient.clip_ratio_c bounds the clipped loss; with algorithm.policy_gradient.loss=cispo the "
                f"ratio is bounded already, so it must be null; got {self.clip_ratio_c}."
            )
        at_least("algorithm.policy_gradient.overlong_tokens", self.overlong_tokens, 0, "it counts tokens")
        at_least("algorithm.policy_gradient.rollout_clip", self.rollout_clip, 1.0, "it truncates a ratio around 1 from above")
