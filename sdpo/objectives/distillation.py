"""SDPO's loss of a token: move towards what the same model says with hindsight (arXiv 2601.20802, section 2)."""

from __future__ import annotations

from torch import Tensor

from sdpo.config import Granularity, SDPOConfig
from sdpo.objectives.rows import future_by_row, sum_by_row
from sdpo.objectives.scores import TokenScores


def distillation_loss(
    scores: TokenScores, old_N: Tensor, sampled_N: Tensor, weights_N: Tensor, rows_N: Tensor, objective: SDPOConfig
) -> Tensor:
    """[N] loss of each token; its sum over the update, over the update's count of such tokens, is minimised.

    ``old_N`` is log π_old(y_t) of the learner before the step's first update, ``sampled_N`` the engine's: both only enter
    detached weights, clamped from above. ``rows_N`` says which row a token belongs to; a row's tokens stand in their order.
    """
    importance_N = (scores.student_N.detach() - old_N).exp().clamp(max=objective.importance_clip)
    rollout_N = 1.0 if objective.rollout_clip is None else (old_N - sampled_N).exp().clamp(max=objective.rollout_clip)
    if objective.entropy_weight > 0.0:
        weights_N = weights_N * (-objective.entropy_weight * scores.teacher_entropy_N).exp()
    losses_N = weights_N * importance_N * rollout_N * _comparison(scores, rows_N, objective)
    if objective.future_credit > 0.0:
        losses_N = losses_N + importance_N * rollout_N * _future(scores, weights_N, rows_N, objective)
    return losses_N


def _future(scores: TokenScores, weights_N: Tensor, rows_N: Tensor, objective: SDPOConfig) -> Tensor:
    """[N] zeros, whose gradient credits a token with the weighted divergences w_s D_s of its row's later tokens.

    It is the second term of ∇ E[Σ_s w_s D_s] = E[Σ_t (w_t ∇ D_t + (Σ_{s>t} w_s D_s) ∇ log π(y_t))] (DistIL, arXiv 2606.05152).
    If D_s is the sampled token's log-ratio, its own gradient already has the form of that term.
    """
    differs_N = scores.divergence_N if objective.granularity is Granularity.logits else _log_ratio(scores, objective)
    credit_N = future_by_row((weights_N * differs_N).detach(), rows_N, objective.future_credit)
    return credit_N * (scores.student_N - scores.student_N.detach())


def _comparison(scores: TokenScores, rows_N: Tensor, objective: SDPOConfig) -> Tensor:
    """[N] with the comparison's value and its gradient.

    From samples, ∇ KL(π‖q) = E_y[(log π(y) - log q(y)) ∇ log π(y)], the log-ratio a constant. So ``ratio.detach() * log π``
    is differentiated, and the value shown is the ratio.
    """
    if objective.granularity is Granularity.logits:
        return scores.divergence_N
    ratio_N = _log_ratio(scores, objective)
    if objective.granularity is Granularity.sequence:
        ratio_N = sum_by_row(ratio_N, rows_N)
    surrogate_N = ratio_N * scores.student_N
    return surrogate_N - surrogate_N.detach() + ratio_N


def _log_ratio(scores: TokenScores, objective: SDPOConfig) -> Tensor:
    """[N] log π/q of the sampled tokens, a constant: the advantage's opposite, clamped as that is."""
    ratio_N = (scores.student_N - scores.teacher_N).detach()
    clip = objective.advantage_clip
    return ratio_N if clip is None else ratio_N.clamp(-clip, clip)
