"""What is minimised, as a reader of the papers would write it: on whole logits, one response at a time, with autograd.

Nothing runs this but tests, which hold the learner's fused objectives against it (``tests/learner/reference.py``,
``tests/objectives/test_plain.py``). Departures from SDPO's paper (arXiv 2601.20802, section 2) are options, and off by default.

Shapes: R response tokens, V vocabulary, K ids of the support and one bucket for the rest. Log-probabilities in nats.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sdpo.config import (
    ClipSide,
    Granularity,
    PolicyGradientConfig,
    RatioLevel,
    SDPOConfig,
    SupportConfig,
    SupportKind,
    TopSupport,
)


def distillation(
    student_RV: Tensor,
    teacher_RV: Tensor,
    ids_R: Tensor,
    old_R: Tensor,
    sampled_R: Tensor,
    algorithm: SDPOConfig,
    weights_R: Tensor | float = 1.0,
) -> Tensor:
    """[R] SDPO's loss of each token: π_θ/π_old · π_old/π_rollout · D(student ‖ teacher), both ratios detached and truncated.

    ``student_RV`` and ``teacher_RV`` are log-probabilities under the plain and the hindsight prompt. ``old_R`` and ``sampled_R``
    are those of the sampled ``ids_R``, of the policy before the step's first update and of the engine. ``weights_R`` are the
    tokens' own factors, ``certainties`` among them.
    """
    student_R = student_RV.gather(-1, ids_R[:, None])[:, 0]
    teacher_R = teacher_RV.gather(-1, ids_R[:, None])[:, 0].detach()
    student_RK, teacher_RK = buckets(student_RV, teacher_RV.detach(), algorithm.support)
    importance_R = ratio(student_R.detach() - old_R).clamp(max=algorithm.importance_clip)
    rollout_R: Tensor | float = 1.0
    if algorithm.rollout_clip is not None:  # None: rows that no engine sampled for this step
        rollout_R = ratio(old_R - sampled_R).clamp(max=algorithm.rollout_clip)
    match algorithm.granularity:
        case Granularity.logits:
            differs_R = divergence(student_RK, teacher_RK, algorithm)
        case Granularity.token:  # ∇ KL = E_y[(log π(y) - log q(y)) ∇ log π(y)], the log-ratio a constant
            differs_R = _with_gradient(_clipped((student_R - teacher_R).detach(), algorithm.advantage_clip), student_R)
        case Granularity.sequence:
            differs_R = _with_gradient((student_R - teacher_R).detach().sum().expand(len(ids_R)), student_R)
    losses_R = weights_R * differs_R
    later_R = torch.stack([_discounted(losses_R.detach()[place + 1 :], algorithm.future_credit) for place in range(len(ids_R))])
    return importance_R * rollout_R * (losses_R + later_R * (student_R - student_R.detach()))


def certainties(teachers_RV: Sequence[Tensor], algorithm: SDPOConfig) -> list[Tensor]:
    """[R] of each response: exp(-β·H) of its tokens, H the teacher's entropy, over the mean of all (SRPO, arXiv 2604.02288)."""
    weights_R = [(-algorithm.entropy_weight * entropy(teacher_RV)).exp() for teacher_RV in teachers_RV]
    return [weight_R / torch.cat(weights_R).mean() for weight_R in weights_R]


def buckets(student_RV: Tensor, teacher_RV: Tensor, support: SupportConfig) -> tuple[Tensor, Tensor]:
    """[R, K+1] both sides over the K most probable ids of one of them, and the rest; without a tail, over the K alone."""
    if not isinstance(support, TopSupport) or support.num_ids >= student_RV.shape[-1]:
        return student_RV, teacher_RV
    chooser_RV = student_RV if support.kind is SupportKind.student else teacher_RV
    ids_RK = chooser_RV.detach().topk(support.num_ids, dim=-1).indices
    student_RK, teacher_RK = student_RV.gather(-1, ids_RK), teacher_RV.gather(-1, ids_RK)
    if not support.tail:
        return student_RK.log_softmax(-1), teacher_RK.log_softmax(-1)
    student_R1, teacher_R1 = _rest(student_RV, ids_RK), _rest(teacher_RV, ids_RK)
    return torch.cat([student_RK, student_R1], -1), torch.cat([teacher_RK, teacher_R1], -1)


def _rest(logprobs_RV: Tensor, ids_RK: Tensor) -> Tensor:
    """[R, 1] log-probability of all ids but the K; -inf where the K are all there is."""
    rest_R1 = logprobs_RV.exp().scatter(-1, ids_RK, 0.0).sum(-1, keepdim=True)
    return rest_R1.masked_fill(rest_R1 == 0.0, 1.0).log().masked_fill(rest_R1 == 0.0, -math.inf)


def divergence(student_RK: Tensor, teacher_RK: Tensor, algorithm: SDPOConfig) -> Tensor:
    """[R] in nats."""
    match algorithm.divergence:
        case "reverse_kl" if algorithm.advantage_clip is not None:  # ∇ KL = -Σ A ∇p with A = log q/p, clamped
            terms_RK = student_RK.exp() * _clipped((student_RK - teacher_RK).detach(), algorithm.advantage_clip)
        case "reverse_kl":
            terms_RK = _kl(student_RK, teacher_RK)
        case "forward_kl":
            terms_RK = _kl(teacher_RK, student_RK)
        case "jsd":
            beta = algorithm.jsd_beta
            both_RK = (1.0 - beta) * student_RK.exp() + beta * teacher_RK.exp()
            mixture_RK = both_RK.clamp(min=torch.finfo(both_RK.dtype).tiny).log()
            terms_RK = (1.0 - beta) * _kl(student_RK, mixture_RK) + beta * _kl(teacher_RK, mixture_RK)
        case other:
            raise ValueError(f"only the papers' divergences are written out here; got {other}")
    most = math.inf if algorithm.pointwise_clip is None else algorithm.pointwise_clip
    least = -most if algorithm.pointwise_clip_side is ClipSide.both else -math.inf  # OPSD's authors clamp from above
    return terms_RK.clamp(least, most).sum(-1)


def policy_gradient(
    student_R: Tensor, old_R: Tensor, sampled_R: Tensor, advantage: float, config: PolicyGradientConfig
) -> Tensor:
    """[R] GRPO's loss of each token: -π_old/π_rollout · min(r·A, clip(r)·A) with r = π_θ/π_old (arXiv 2402.03300)."""
    log_ratio_R = student_R - old_R
    if config.ratio is RatioLevel.sequence:  # GSPO, arXiv 2507.18071
        log_ratio_R = log_ratio_R.mean().expand(len(student_R))
    ratio_R = ratio(log_ratio_R)
    clipped_R = ratio_R.clamp(1.0 - config.clip_low, 1.0 + config.clip_high)
    rollout_R = ratio(old_R - sampled_R).clamp(max=config.rollout_clip)
    gain_R = torch.minimum(ratio_R * advantage, clipped_R * advantage)
    if config.clip_ratio_c is not None and advantage < 0.0:  # the dual clip, arXiv 1912.09729
        gain_R = gain_R.clamp(min=config.clip_ratio_c * advantage)
    return -rollout_R * gain_R


def reference_kl(student_R: Tensor, reference_R: Tensor) -> Tensor:
    """[R] the estimate k3 of KL(π_θ‖π_ref) from each sampled token."""
    log_ratio_R = (reference_R - student_R).clamp(-20.0, 20.0)
    return log_ratio_R.exp() - log_ratio_R - 1.0


def ratio(log_ratio_R: Tensor) -> Tensor:
    """[R] its exponential, at most e^20: beyond that there is nothing to tell, and fp32 has no number for it."""
    return log_ratio_R.clamp(-20.0, 20.0).exp()


def entropy(logprobs_RK: Tensor) -> Tensor:
    """[R] in nats."""
    return -_times(logprobs_RK.exp(), logprobs_RK).sum(-1)


def _kl(p_RK: Tensor, q_RK: Tensor) -> Tensor:
    return _times(p_RK.exp(), p_RK - q_RK)


def _times(p_RK: Tensor, logs_RK: Tensor) -> Tensor:
    """p · logs, where an id that is excluded (p = 0, its log-probability -inf) adds 0 and has no gradient."""
    return p_RK * logs_RK.masked_fill(p_RK == 0.0, 0.0)


def _clipped(values: Tensor, clip: float | None) -> Tensor:
    bound = math.inf if clip is None else clip
    return values.clamp(-bound, bound)


def _with_gradient(value_R: Tensor, student_R: Tensor) -> Tensor:
    """``value_R``, with the gradient of ``value_R · log π``."""
    return value_R * student_R - (value_R * student_R).detach() + value_R


def _discounted(values: Tensor, discount: float) -> Tensor:
    """The first times ``discount``, the second times its square, and so on."""
    return sum((discount ** (1 + place) * value for place, value in enumerate(values)), start=values.new_zeros(()))
