"""What is minimised, as a reader of the papers would write it: on whole logits, one response at a time, with autograd.

Nothing runs this but tests, which hold the learner's fused objectives against it (``tests/learner/reference.py``,
``tests/objectives/test_plain.py``). Departures from SDPO's paper (arXiv 2601.20802, section 2) are options, and off by default.

Shapes: R response tokens, V vocabulary, K ids of the support and one bucket for the rest. Log-probabilities in nats.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sdpo.config import Granularity, PolicyGradientConfig, RatioLevel, SDPOConfig, SupportConfig, SupportKind, TopSupport


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
    tokens' own factors.
    """
    student_R = student_RV.gather(-1, ids_R[:, None])[:, 0]
    teacher_R = teacher_RV.gather(-1, ids_R[:, None])[:, 0].detach()
    student_RK, teacher_RK = buckets(student_RV, teacher_RV.detach(), algorithm.support)
    importance_R = (student_R.detach() - old_R).exp().clamp(max=algorithm.importance_clip)
    rollout_R: Tensor | float = 1.0
    if algorithm.rollout_clip is not None:  # None: rows that no engine sampled for this step
        rollout_R = (old_R - sampled_R).exp().clamp(max=algorithm.rollout_clip)
    sure_R = (-algorithm.entropy_weight * entropy(teacher_RK)).exp()
    match algorithm.granularity:
        case Granularity.logits:
            differs_R = divergence(student_RK, teacher_RK, algorithm)
        case Granularity.token:  # ∇ KL = E_y[(log π(y) - log q(y)) ∇ log π(y)], the log-ratio a constant
            differs_R = _with_gradient(_clipped((student_R - teacher_R).detach(), algorithm.advantage_clip), student_R)
        case Granularity.sequence:
            differs_R = _with_gradient((student_R - teacher_R).detach().sum().expand(len(ids_R)), student_R)
    losses_R = weights_R * sure_R * differs_R
    later_R = torch.stack([_discounted(losses_R.detach()[place + 1 :], algorithm.future_credit) for place in range(len(ids_R))])
    return importance_R * rollout_R * (losses_R + later_R * (student_R - student_R.detach()))


def buckets(student_RV: Tensor, teacher_RV: Tensor, support: SupportConfig) -> tuple[Tensor, Tensor]:
    """[R, K+1] both sides over the K most probable ids of one of them, and the rest; without a tail, over the K alone."""
    if not isinstance(support, TopSupport) or support.num_ids >= student_RV.shape[-1]:
        return student_RV, teacher_RV
    chooser_RV = student_RV if support.kind is SupportKind.student else teacher_RV
    ids_RK = chooser_RV.detach().topk(support.num_ids, dim=-1).indices
    student_RK, teacher_RK = student_RV.gather(-1, ids_RK), teacher_RV.gather(-1, ids_RK)
    if not support.tail:
        return student_RK.log_softmax(-1), teacher_RK.log_softmax(-1)
    student_R1, teacher_R1 = ((1.0 - inside_RK.exp().sum(-1, keepdim=True)).log() for inside_RK in (student_RK, teacher_RK))
    return torch.cat([student_RK, student_R1], -1), torch.cat([teacher_RK, teacher_R1], -1)


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
            mixture_RK = ((1.0 - beta) * student_RK.exp() + beta * teacher_RK.exp()).log()
            terms_RK = (1.0 - beta) * _kl(student_RK, mixture_RK) + beta * _kl(teacher_RK, mixture_RK)
        case other:
            raise ValueError(f"only the papers' divergences are written out here; got {other}")
    return _clipped(terms_RK, algorithm.pointwise_clip).sum(-1)


def policy_gradient(
    student_R: Tensor, old_R: Tensor, sampled_R: Tensor, advantage: float, config: PolicyGradientConfig
) -> Tensor:
    """[R] GRPO's loss of each token: -π_old/π_rollout · min(r·A, clip(r)·A) with r = π_θ/π_old (arXiv 2402.03300)."""
    log_ratio_R = student_R - old_R
    if config.ratio is RatioLevel.sequence:  # GSPO, arXiv 2507.18071
        log_ratio_R = log_ratio_R.mean().expand(len(student_R))
    ratio_R = log_ratio_R.exp()
    clipped_R = ratio_R.clamp(1.0 - config.clip_low, 1.0 + config.clip_high)
    rollout_R = (old_R - sampled_R).exp().clamp(max=config.rollout_clip)
    return -rollout_R * torch.minimum(ratio_R * advantage, clipped_R * advantage)


def reference_kl(student_R: Tensor, reference_R: Tensor) -> Tensor:
    """[R] the estimate k3 of KL(π_θ‖π_ref) from each sampled token."""
    return (reference_R - student_R).exp() - (reference_R - student_R) - 1.0


def entropy(logprobs_RK: Tensor) -> Tensor:
    """[R] in nats."""
    return -(logprobs_RK.exp() * logprobs_RK).sum(-1)


def _kl(p_RK: Tensor, q_RK: Tensor) -> Tensor:
    return p_RK.exp() * (p_RK - q_RK)


def _clipped(values: Tensor, clip: float | None) -> Tensor:
    bound = math.inf if clip is None else clip
    return values.clamp(-bound, bound)


def _with_gradient(value_R: Tensor, student_R: Tensor) -> Tensor:
    """``value_R``, with the gradient of ``value_R · log π``."""
    return value_R * student_R - (value_R * student_R).detach() + value_R


def _discounted(values: Tensor, discount: float) -> Tensor:
    """The first times ``discount``, the second times its square, and so on."""
    return sum((discount ** (1 + place) * value for place, value in enumerate(values)), start=values.new_zeros(()))
