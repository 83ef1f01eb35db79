"""What is minimised: the algorithms and their parts. "Section" refers to the paper, arXiv 2601.20802."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from omegaconf import MISSING

from sdpo.config.rules import at_least, between


class Divergence(Enum):
    """Which way student and teacher are compared."""

    reverse_kl = "reverse_kl"
    """KL(student‖teacher)"""
    forward_kl = "forward_kl"
    """KL(teacher‖student)"""
    jsd = "jsd"
    """(1-β)·KL(student‖m) + β·KL(teacher‖m), m = (1-β)·student + β·teacher"""


class Granularity(Enum):
    """What one comparison covers."""

    logits = "logits"
    """The whole support at every position."""
    token = "token"
    """The sampled token alone: the one-sample estimate of the reverse KL's gradient."""
    sequence = "sequence"
    """One scalar for the response: the sum of the sampled tokens' log-ratios."""


class SupportKind(Enum):
    """Whose most probable tokens the two distributions are compared over."""

    student = "student"
    teacher = "teacher"
    full = "full"


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


class Routing(Enum):
    """Which attempts are distilled and which get a policy gradient, where both are at hand."""

    blend = "blend"
    """Every attempt both: λ times the policy gradient, 1-λ times the distillation."""
    by_success = "by_success"
    """Solved attempts the policy gradient, failed ones the distillation."""
    by_hint = "by_hint"
    """Attempts with a hint the distillation, those without the policy gradient."""


class Normalisation(Enum):
    """What the sum of the distillation losses is divided by. Counted over the whole update, never over a micro-batch."""

    distilled = "distilled"
    """The tokens that are distilled."""
    reference = "reference"
    """Those of all attempts that a hint would have distilled, as the authors' code counts: few hints, small gradients."""


class OnLowLift(Enum):
    """What happens where the teacher does not answer better than the policy before training."""

    warn = "warn"
    refuse = "refuse"
    """The run ends before its first step."""
    ignore = "ignore"


class HintChoice(Enum):
    """Which hint an attempt gets when both kinds are at hand."""

    demonstration_first = "demonstration_first"
    """Feedback only where no sibling solved the task."""
    both = "both"
    demonstration_only = "demonstration_only"
    feedback_only = "feedback_only"
    none = "none"
    """The teacher sees the student's prompt: with an external teacher, generalised knowledge distillation (arXiv 2306.13649)."""


@dataclass
class SupportConfig:
    """The token ids at a position over which the two distributions are compared."""

    kind: SupportKind = SupportKind.student
    num_ids: int = 100
    """K. The paper: 100 without environment feedback, 20 with."""
    tail: bool = True
    """Add one bucket with the rest of the probability; False: renormalise over the K."""

    def __post_init__(self) -> None:
        at_least("algorithm.support.num_ids", self.num_ids, 1, "the support holds that many token ids a position")
        if self.num_ids == 1 and not self.tail and self.kind is not SupportKind.full:
            raise ValueError(
                "algorithm.support.num_ids must be at least 2 without a tail (one renormalised id has probability 1 in both, so "
                "there is nothing to learn); got 1. Raise it, or set algorithm.support.tail=true."
            )


@dataclass
class TeacherConfig:
    """The self-teacher."""

    kind: TeacherKind = TeacherKind.ema
    ema_rate: float = 0.05
    """Share of the policy mixed in once a step. The paper: 0.05 without environment feedback, 0.01 with."""
    live_weight: float = 0.05
    """Of the policy's logits in a trust region's mixture; the start's have the rest."""
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
    max_prompt_tokens: int = 1024
    """Of the hindsight prompt. Over it the feedback and then the demonstration are cut, never the question."""
    demonstration_reward: float = 1.0
    """A sibling demonstrates from this reward on."""

    def __post_init__(self) -> None:
        at_least("algorithm.hindsight.max_prompt_tokens", self.max_prompt_tokens, 1, "the question alone needs some")
        if not 0.0 < self.demonstration_reward <= 1.0:
            raise ValueError(
                "algorithm.hindsight.demonstration_reward must lie in (0, 1] (a worthless answer demonstrates nothing); got "
                f"{self.demonstration_reward}."
            )


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
    """Leave groups whose rewards do not differ out of the counts the loss is divided by (DAPO, which then samples others)."""
    overlong_tokens: int = 0
    """The last so many tokens before the length limit cost reward, linearly up to 1 (DAPO's overlong shaping); 0: none do."""
    rollout_clip: float = 2.0
    """Truncation of the detached weight π_learner/π_engine that corrects for the engine's arithmetic."""

    def __post_init__(self) -> None:
        between("algorithm.policy_gradient.clip_low", self.clip_low, 0.0, 1.0)
        at_least("algorithm.policy_gradient.clip_high", self.clip_high, 0.0, "it is a distance from 1")
        at_least("algorithm.policy_gradient.overlong_tokens", self.overlong_tokens, 0, "it counts tokens")
        at_least("algorithm.policy_gradient.rollout_clip", self.rollout_clip, 1.0, "it truncates a ratio around 1 from above")


@dataclass
class AlgorithmConfig:
    """What is minimised; ``algorithm=`` picks a subclass."""

    name: str = MISSING
    policy_gradient: PolicyGradientConfig = field(default_factory=PolicyGradientConfig)
    entropy_bonus: float = 0.0
    """Nats of the policy's entropy that are worth one nat of loss, per learned-from token."""
    reference_kl: float = 0.0
    """Weight of KL(policy‖policy at the start), estimated on the sampled tokens (the estimator k3: never negative, low variance,
    http://joschu.net/blog/kl-approx.html). The paper trains without. Takes the memory of a frozen copy."""

    @property
    def needs_whole_rows(self) -> bool:
        """Whether a token's loss depends on the other tokens of its response."""
        return self.policy_gradient.ratio is RatioLevel.sequence

    @property
    def has_terms_without_advantage(self) -> bool:
        """Whether an attempt with advantage 0 still has a gradient."""
        return self.entropy_bonus != 0.0 or self.reference_kl != 0.0

    def __post_init__(self) -> None:
        at_least("algorithm.entropy_bonus", self.entropy_bonus, 0.0, "it rewards entropy")
        at_least("algorithm.reference_kl", self.reference_kl, 0.0, "it punishes distance")


@dataclass
class GRPOConfig(AlgorithmConfig):
    """Group Relative Policy Optimization, the baseline."""

    name: str = "grpo"


@dataclass
class SDPOConfig(AlgorithmConfig):
    """Self-Distillation Policy Optimization (section 2)."""

    name: str = "sdpo"
    divergence: Divergence = Divergence.reverse_kl
    jsd_beta: float = 0.5
    """Weight of the teacher in the mixture; used by ``jsd`` alone."""
    granularity: Granularity = Granularity.logits
    support: SupportConfig = field(default_factory=SupportConfig)
    importance_clip: float = 2.0
    """Clamp from above of the detached ratio π_θ/π_old."""
    rollout_clip: float = 2.0
    """Truncation from above of the detached token-level weight π_old/π_rollout."""
    normalisation: Normalisation = Normalisation.distilled
    routing: Routing = Routing.blend
    policy_gradient_share: float = 0.0
    """λ in λ·GRPO + (1-λ)·SDPO, for ``routing: blend``."""
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    hindsight: HindsightConfig = field(default_factory=HindsightConfig)
    min_lift: float = 0.02
    """Least teacher lift, in success on held-out tasks at step 0; it counts as missed where two standard errors more would not
    reach it either. Below it there is little to distil."""
    on_low_lift: OnLowLift = OnLowLift.warn

    @property
    def needs_whole_rows(self) -> bool:
        """Likewise."""
        return self.granularity is Granularity.sequence or (
            self.has_policy_gradient and self.policy_gradient.ratio is RatioLevel.sequence
        )

    @property
    def has_policy_gradient(self) -> bool:
        """Whether some attempts may be learned from through their advantage."""
        return self.routing is not Routing.blend or self.policy_gradient_share > 0.0

    def __post_init__(self) -> None:
        AlgorithmConfig.__post_init__(self)
        if self.granularity is not Granularity.logits and self.divergence is not Divergence.reverse_kl:
            raise ValueError(
                f"algorithm.granularity={self.granularity.value} works with algorithm.divergence=reverse_kl only (the other "
                "divergences need the distribution, not just the sampled token); got "
                f"{self.divergence.value}. Set algorithm.granularity=logits or algorithm.divergence=reverse_kl."
            )
        if not 0.0 < self.jsd_beta < 1.0:
            raise ValueError(
                f"algorithm.jsd_beta must lie strictly between 0 and 1 (at its ends the divergence is 0 everywhere); got "
                f"{self.jsd_beta}. For a KL set algorithm.divergence=reverse_kl or forward_kl."
            )
        at_least("algorithm.importance_clip", self.importance_clip, 1.0, "it clamps a ratio around 1 from above")
        at_least("algorithm.rollout_clip", self.rollout_clip, 1.0, "it truncates a ratio around 1 from above")
        between("algorithm.policy_gradient_share", self.policy_gradient_share, 0.0, 1.0)
        if self.routing is not Routing.blend and self.policy_gradient_share != 0.0:
            raise ValueError(
                "algorithm.policy_gradient_share is the λ of algorithm.routing=blend (the other routings give an attempt the one "
                f"loss or the other); got {self.policy_gradient_share} with routing={self.routing.value}."
            )
        between("algorithm.min_lift", self.min_lift, -1.0, 1.0)
        if (self.hindsight.choice is HintChoice.none) and self.teacher.kind is not TeacherKind.external:
            raise ValueError(
                "algorithm.hindsight.choice=none needs algorithm.teacher.kind=external (a self-teacher without a hint says what "
                f"the student says); got {self.teacher.kind.value}."
            )
