"""What is minimised: the algorithms and their parts. "Section" refers to the paper, arXiv 2601.20802."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from omegaconf import MISSING

from sdpo.config.hindsight import HindsightConfig
from sdpo.config.policy_gradient import LossMean, PolicyGradientConfig, RolloutCorrection
from sdpo.config.routing import ROUTINGS, Auxiliary, Blend, RoutingConfig
from sdpo.config.rules import at_least, between, positive
from sdpo.config.teacher import EmaTeacher, TeacherConfig, teacher_class
from sdpo.plugins.seams import DIVERGENCES, FILTERS, HINDSIGHT_LOSSES, TEACHERS


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


class QuestionWeight(Enum):
    """How much the distillation of a task's attempts counts beside that of the step's other tasks."""

    none = "none"
    """All the same."""
    uncertainty = "uncertainty"
    """√(p(1-p)), p the share of its attempts that solved it, over the mean of that (SC-SDPO, arXiv 2605.27765): what GRPO's
    advantages weigh a task with. Tasks that all attempts or none solved are not distilled."""


class Normalisation(Enum):
    """What the sum of the distillation losses is divided by. Counted over the whole update, never over a micro-batch of ours."""

    distilled = "distilled"
    """The tokens that are distilled."""
    paper = "paper"
    """Those of all attempts that a hint would have distilled (equation 12): few hints, small gradients."""
    authors = "authors"
    """As the authors' code does it, whose micro-batches are single attempts: the mean over all attempts that a hint would have
    distilled of each one's mean over its tokens, 0 without a hint. So a token of a short response counts more."""
    joint = "joint"
    """The tokens of all attempts that are distilled or get a policy gradient, whose sum is divided by the same (SRPO,
    arXiv 2604.02288, section 3.3)."""


class ClipSide(Enum):
    """From which sides a term of the divergence is clamped."""

    both = "both"
    """To [-c, c]: ours."""
    above = "above"
    """To at most c: OPSD's authors (arXiv 2601.18734)."""


class Truncated(Enum):
    """What is learned from a response that ``sampling.max_response_tokens`` has cut off."""

    learn = "learn"
    """What is learned from any other."""
    mask = "mask"
    """Nothing: its tokens carry no loss. Its reward still is part of its group's baseline (TRL's
    ``mask_truncated_completions``; DAPO's overlong filtering, arXiv 2503.14476, section 3.4)."""
    leave_out = "leave_out"
    """Nothing, and its group's baseline is that of the others."""


class OnLowLift(Enum):
    """What happens where the teacher does not answer better than the policy before training."""

    warn = "warn"
    refuse = "refuse"
    """The run ends before its first step."""
    ignore = "ignore"


@dataclass
class SupportConfig:
    """The token ids at a position over which the two distributions are compared: one of the two classes below."""

    def num_ids_of(self, vocabulary: int) -> int:
        """How many of a vocabulary's ids it holds."""
        raise NotImplementedError


@dataclass
class TopSupport(SupportConfig):
    """The most probable ids of one side."""

    kind: SupportKind = SupportKind.student
    num_ids: int = 100
    """K. The paper: 100 without environment feedback, 20 with."""
    tail: bool = True
    """Add one bucket with the rest of the probability; False: renormalise over the K."""

    def num_ids_of(self, vocabulary: int) -> int:
        return min(self.num_ids, vocabulary)

    def __post_init__(self) -> None:
        at_least("algorithm.support.num_ids", self.num_ids, 1, "the support holds that many token ids a position")
        if self.num_ids == 1 and not self.tail:
            raise ValueError(
                "algorithm.support.num_ids must be at least 2 without a tail (one renormalised id has probability 1 in both, so "
                "there is nothing to learn); got 1. Raise it, or set algorithm.support.tail=true."
            )


@dataclass
class FullSupport(SupportConfig):
    """The whole vocabulary."""

    kind: str = "full"

    def num_ids_of(self, vocabulary: int) -> int:
        return vocabulary


@dataclass
class FilterConfig:
    """Which tokens of the responses nothing is learned from."""

    name: str | None = None
    """A token filter: module:Class, path/to/file.py:Class, or an installed package's name. None: all tokens are learned from."""
    options: dict[str, Any] = field(default_factory=dict)
    """What its constructor is given."""

    def __post_init__(self) -> None:
        if self.name is not None:
            FILTERS.check("algorithm.filter.name", self.name)
        elif self.options:
            raise ValueError(f"algorithm.filter.options are those of algorithm.filter.name; got {self.options} without a name.")


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
    filter: FilterConfig = field(default_factory=FilterConfig)
    truncated: Truncated = Truncated.learn
    replacement_rounds: int = 0
    """Most further generations a step in which groups without signal are replaced by groups of other tasks, until none is left:
    the dynamic sampling of DAPO (arXiv 2503.14476). A group has signal where its rewards differ, or something of it is distilled.
    Each generation asks for as many groups as lack. 0: whatever was sampled is learned from."""

    @property
    def taught_by(self) -> TeacherConfig | None:
        """The teacher; None where nothing is distilled."""
        return None

    @property
    def hints(self) -> HindsightConfig | None:
        """How hints are chosen and shown; None where none are."""
        return None

    @property
    def needs_whole_rows(self) -> bool:
        """Whether a token's loss depends on the other tokens of its response."""
        return self.policy_gradient.needs_whole_rows

    def weights(self, *, is_solved: bool, has_hint: bool, is_uniform: bool) -> tuple[float, float]:
        """An attempt's weights of distillation and policy gradient; ``is_uniform``: its group's rewards do not differ."""
        return 0.0, 1.0

    @property
    def adds_distillation(self) -> bool:
        """Whether a distilled attempt has a gradient of its own, whatever its advantage is."""
        return self.taught_by is not None

    @property
    def has_terms_without_advantage(self) -> bool:
        """Whether an attempt with advantage 0 still has a gradient."""
        return self.entropy_bonus != 0.0 or self.reference_kl != 0.0

    def refuse_split_rows(self, sequence_parallel: int) -> None:
        """Raises ValueError where a token's loss depends on tokens that its rank does not have."""
        if sequence_parallel > 1 and self.needs_whole_rows:
            raise ValueError(
                "learner.sequence_parallel must be 1 with a loss over whole responses (algorithm.policy_gradient.ratio=sequence, "
                "rollout_correction=sequence_truncate or sequence_mask, algorithm.granularity=sequence, algorithm.future_credit "
                f"above 0), because no rank sees one; got {sequence_parallel}."
            )

    def __post_init__(self) -> None:
        at_least("algorithm.entropy_bonus", self.entropy_bonus, 0.0, "it rewards entropy")
        at_least("algorithm.reference_kl", self.reference_kl, 0.0, "it punishes distance")
        at_least("algorithm.replacement_rounds", self.replacement_rounds, 0, "it counts generations")
        if self.policy_gradient.advantage == "batch" and (self.replacement_rounds or self.policy_gradient.drop_uniform_groups):
            raise ValueError(
                "algorithm.policy_gradient.advantage=batch compares attempts with the whole step, so a group whose rewards are "
                "all alike teaches too: algorithm.replacement_rounds must be 0, and "
                "algorithm.policy_gradient.drop_uniform_groups false; "
                f"got {self.replacement_rounds} and {self.policy_gradient.drop_uniform_groups}."
            )


@dataclass
class GRPOConfig(AlgorithmConfig):
    """Group Relative Policy Optimization, the baseline."""

    name: str = "grpo"


@dataclass
class SDPOConfig(AlgorithmConfig):
    """Self-Distillation Policy Optimization (section 2)."""

    name: str = "sdpo"
    divergence: str = "reverse_kl"
    """``reverse_kl`` (student to teacher), ``forward_kl``, ``jsd`` (Jensen-Shannon), or a name of your own."""
    jsd_beta: float = 0.5
    """Weight of the teacher in the mixture; used by ``jsd`` alone."""
    loss: str = "divergence"
    """What a distilled token learns from student and teacher: ``divergence`` (SDPO), ``gated`` (SDAR, arXiv 2605.15155),
    ``evidence`` (RLSD, arXiv 2604.03128), or a name of your own."""
    gate_sharpness: float = 5.0
    """β of SDAR's gate σ(β·credit), credit = log q(y) - log π(y); used by ``gated`` alone."""
    evidence_share: float = 0.5
    """λ of RLSD: a token's advantage is multiplied by 1-λ + λ·clip(evidence ratio); used by ``evidence`` alone."""
    evidence_clip: float = 0.2
    """ε of RLSD: the evidence ratio is clipped to [1-ε, 1+ε]; used by ``evidence`` alone."""
    granularity: Granularity = Granularity.logits
    support: SupportConfig = MISSING
    """The student's ``TopSupport`` where nothing is said."""
    importance_clip: float = 2.0
    """Clamp from above of the detached ratio π_θ/π_old."""
    rollout_clip: float | None = 2.0
    """Truncation from above of the detached token-level weight π_old/π_rollout. None: no weight, for rows that were sampled once
    and stay (a warm-up's)."""
    rollout_correction: RolloutCorrection = RolloutCorrection.token_truncate
    normalisation: Normalisation = Normalisation.distilled
    entropy_weight: float = 0.0
    """β: a token's distillation counts exp(-β·H) over the mean of that among the update's distilled tokens. H is the nats of the
    teacher's entropy over the vocabulary. So an unsure teacher teaches less (SRPO, arXiv 2604.02288, section 3.2). 0: all tokens
    count the same."""
    question_weight: QuestionWeight = QuestionWeight.none
    pointwise_clip: float | None = None
    """c: each bucket's term of the divergence is clamped to it, and a clamped one has no gradient of its own. So a few pivot
    tokens do not dominate (OPSD, arXiv 2601.18734). None: no clamp."""
    pointwise_clip_side: ClipSide = ClipSide.both
    advantage_clip: float | None = None
    """c: the advantage log q(v)/π(v) of each bucket is clamped to [-c, c] before it weighs the bucket's gradient (the paper at
    test time: 5, table 12). None: no clamp."""
    future_credit: float = 0.0
    """γ: a token is also credited with the divergence at later tokens of its response, discounted by γ a token (DistIL,
    arXiv 2606.05152). With 1 the gradient is that of the expected sum; 0: each token for itself."""
    routing: RoutingConfig = MISSING
    """``Blend`` without a policy gradient where nothing is said."""
    teacher: TeacherConfig = MISSING
    """``EmaTeacher`` where nothing is said."""
    hindsight: HindsightConfig = field(default_factory=HindsightConfig)
    min_lift: float = 0.02
    """Least teacher lift, in success on held-out tasks at step 0; it counts as missed where two standard errors more would not
    reach it either. Below it there is little to distil."""
    on_low_lift: OnLowLift = OnLowLift.warn

    @property
    def taught_by(self) -> TeacherConfig | None:
        return self.teacher

    @property
    def hints(self) -> HindsightConfig | None:
        return None if self.hindsight.shows_nothing else self.hindsight

    def weights(self, *, is_solved: bool, has_hint: bool, is_uniform: bool) -> tuple[float, float]:
        return self.routing.weights(is_solved=is_solved, has_hint=has_hint, is_uniform=is_uniform)

    @property
    def needs_whole_rows(self) -> bool:
        """Whether a token's loss depends on the other tokens of its response."""
        return self.distils_whole_rows or (self.has_policy_gradient and self.policy_gradient.needs_whole_rows)

    @property
    def distils_whole_rows(self) -> bool:
        """Whether the distillation of a token depends on the other tokens of its response."""
        corrects_sequences = self.rollout_clip is not None and self.rollout_correction.is_of_sequences
        is_of_another = self.loss not in HINDSIGHT_LOSSES.built_in  # which is given rows, and may compare their tokens
        return self.granularity is Granularity.sequence or self.future_credit > 0.0 or corrects_sequences or is_of_another

    @property
    def adds_distillation(self) -> bool:
        """Whether a distilled attempt has a gradient of its own, whatever its advantage is."""
        return self.loss != "evidence"

    @property
    def has_policy_gradient(self) -> bool:
        """Whether some attempts may be learned from through their advantage."""
        return self.routing.has_policy_gradient

    def __post_init__(self) -> None:
        AlgorithmConfig.__post_init__(self)
        self.support = TopSupport() if self.support == MISSING else self.support
        self.routing = Blend() if self.routing == MISSING else self.routing
        self.teacher = EmaTeacher() if self.teacher == MISSING else self.teacher
        self._check_kinds()
        DIVERGENCES.check("algorithm.divergence", self.divergence)
        if self.granularity is not Granularity.logits and self.divergence != "reverse_kl":
            raise ValueError(
                f"algorithm.granularity={self.granularity.value} works with algorithm.divergence=reverse_kl only (the other "
                "divergences need the distribution, not just the sampled token); got "
                f"{self.divergence}. Set algorithm.granularity=logits or algorithm.divergence=reverse_kl."
            )
        if not 0.0 < self.jsd_beta < 1.0:
            raise ValueError(
                f"algorithm.jsd_beta must lie strictly between 0 and 1 (at its ends the divergence is 0 everywhere); got "
                f"{self.jsd_beta}. For a KL set algorithm.divergence=reverse_kl or forward_kl."
            )
        self._check_weights_of_tokens()
        self._check_loss()
        at_least("algorithm.importance_clip", self.importance_clip, 1.0, "it clamps a ratio around 1 from above")
        if self.rollout_clip is not None:
            at_least("algorithm.rollout_clip", self.rollout_clip, 1.0, "it truncates a ratio around 1 from above")
        if self.routing.distils_uniform_groups_alone and self.question_weight is QuestionWeight.uncertainty:
            raise ValueError(
                "algorithm.routing.kind=by_group distils groups whose attempts are all solved or all failed, and "
                "algorithm.question_weight=uncertainty weighs those with 0, so together nothing is distilled. Set "
                "algorithm.question_weight=none or another routing."
            )
        if self.normalisation is Normalisation.joint and self.policy_gradient.mean is not LossMean.token:
            raise ValueError(
                "algorithm.normalisation=joint needs algorithm.policy_gradient.mean=token (both losses are divided by one "
                f"count of tokens); got mean={self.policy_gradient.mean.value}. Set it to token, or another normalisation."
            )
        between("algorithm.min_lift", self.min_lift, -1.0, 1.0)

    def _check_kinds(self) -> None:
        """Raises ValueError where a kind's name stands on the fields of another one, as a YAML file can have it."""
        built_in = TEACHERS.built_in
        if self.teacher.kind in built_in and teacher_class(self.teacher.kind) is not type(self.teacher):
            raise ValueError(_misplaced("teacher", self.teacher.kind))
        if ROUTINGS.get(self.routing.kind) is not type(self.routing):
            raise ValueError(_misplaced("routing", self.routing.kind))

    def _check_loss(self) -> None:
        HINDSIGHT_LOSSES.check("algorithm.loss", self.loss)
        at_least("algorithm.gate_sharpness", self.gate_sharpness, 0.0, "a teacher that is surer shall teach more")
        between("algorithm.evidence_share", self.evidence_share, 0.0, 1.0)
        between("algorithm.evidence_clip", self.evidence_clip, 0.0, 1.0)
        if self.loss == "evidence" and not isinstance(self.routing, Auxiliary):
            raise ValueError(
                "algorithm.loss=evidence weighs advantages by what the teacher says and adds no loss of its own, so an attempt "
                f"needs the policy gradient beside it: algorithm.routing.kind=auxiliary; got kind={self.routing.kind}."
            )
        if self.loss != "divergence" and self.future_credit > 0.0:
            raise ValueError(
                "algorithm.future_credit credits a token with later divergences, and works with algorithm.loss=divergence only; "
                f"got future_credit={self.future_credit} with loss={self.loss}. Set it to 0."
            )
        of_divergence = (self.pointwise_clip, self.advantage_clip, self.granularity)
        if self.loss in ("gated", "evidence") and of_divergence != (None, None, Granularity.logits):
            raise ValueError(
                f"algorithm.loss={self.loss} reads the sampled token's log-ratio alone: algorithm.pointwise_clip and "
                "algorithm.advantage_clip must be null, and algorithm.granularity logits; got "
                f"{of_divergence[0]}, {of_divergence[1]} and {of_divergence[2].value}. Leave them out."
            )
        if self.loss == "evidence" and self.entropy_weight > 0.0:
            raise ValueError(
                "algorithm.entropy_weight weighs a distillation, and algorithm.loss=evidence adds none; got "
                f"{self.entropy_weight}. Set it to 0."
            )

    def _check_advantage_clip(self) -> None:
        if self.advantage_clip is None:
            return
        positive("algorithm.advantage_clip", self.advantage_clip)
        if self.divergence != "reverse_kl":
            raise ValueError(
                "algorithm.advantage_clip needs algorithm.divergence=reverse_kl (its gradient alone is a policy gradient, whose "
                f"advantage is log q/π); got {self.advantage_clip} with {self.divergence}. For another divergence set "
                "algorithm.pointwise_clip."
            )
        if self.granularity is Granularity.sequence:
            raise ValueError(
                "algorithm.advantage_clip needs algorithm.granularity=logits or token (a response that is compared as a whole "
                f"has one advantage, as large as it is long); got {self.advantage_clip} with granularity=sequence."
            )
        if self.pointwise_clip is not None:
            raise ValueError(
                "algorithm.advantage_clip and algorithm.pointwise_clip clamp the same thing in two ways; got "
                f"{self.advantage_clip} and {self.pointwise_clip}. Set one of them."
            )

    def _check_weights_of_tokens(self) -> None:
        at_least("algorithm.entropy_weight", self.entropy_weight, 0.0, "it weighs unsure teachers down")
        between("algorithm.future_credit", self.future_credit, 0.0, 1.0)
        if self.granularity is Granularity.sequence and (self.entropy_weight > 0.0 or self.future_credit > 0.0):
            raise ValueError(
                "algorithm.entropy_weight and algorithm.future_credit need algorithm.granularity=logits or token (a response "
                f"that is compared as a whole has one scalar, for all its tokens); got entropy_weight={self.entropy_weight} and "
                f"future_credit={self.future_credit} with granularity=sequence. Set them to 0."
            )
        self._check_advantage_clip()
        if self.pointwise_clip is None:
            return
        positive("algorithm.pointwise_clip", self.pointwise_clip)
        if self.granularity is not Granularity.logits:
            raise ValueError(
                "algorithm.pointwise_clip needs algorithm.granularity=logits (it clamps each bucket's term, and the sampled "
                f"token is a single one); got {self.pointwise_clip} with granularity={self.granularity.value}."
            )


def _misplaced(group: str, kind: str) -> str:
    return (
        f"algorithm.{group}.kind decides which fields there are, so it must be chosen where configs are chosen: as "
        f"algorithm.{group}.kind={kind} on the command line, in a YAML file as `override /algorithm/{group}: {kind}` under "
        f"defaults, in Python by its class; got kind={kind} among the fields of another one."
    )
