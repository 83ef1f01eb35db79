"""SDPO's loss of a token: move towards what the same model says with hindsight (arXiv 2601.20802, section 2)."""

from __future__ import annotations

from torch import Tensor

from sdpo.config import Granularity, SDPOConfig
from sdpo.objectives.rows import sum_by_row
from sdpo.objectives.scores import TokenScores


def distillation_loss(
    scores: TokenScores, old_N: Tensor, sampled_N: Tensor, weights_N: Tensor, rows_N: Tensor, objective: SDPOConfig
) -> Tensor:
    """[N] loss of each token; its sum over the update, over the update's count of such tokens, is minimised.

    ``old_N`` is log π_old(y_t) of the learner before the step's first update, ``sampled_N`` the engine's: both only enter
    detached weights, clamped from above. ``rows_N`` says which row a token belongs to.
    """
    importance_N = (scores.student_N.detach() - old_N).exp().clamp(max=objective.importance_clip)
    rollout_N = (old_N - sampled_N).exp().clamp(max=objective.rollout_clip)
    return weights_N * importance_N * rollout_N * _comparison(scores, rows_N, objective.granularity)


def _comparison(scores: TokenScores, rows_N: Tensor, granularity: Granularity) -> Tensor:
    """[N] with the comparison's value and its gradient.

    From samples, ∇ KL(π‖q) = E_y[(log π(y) - log q(y)) ∇ log π(y)], the log-ratio a constant: what is differentiated is
    ``ratio.detach() * log π``, and the value shown is the ratio.
    """
    if granularity is Granularity.logits:
        return scores.divergence_N
    ratio_N = (scores.student_N - scores.teacher_N).detach()
    if granularity is Granularity.sequence:
        ratio_N = sum_by_row(ratio_N, rows_N)
    surrogate_N = ratio_N * scores.student_N
    return surrogate_N - surrogate_N.detach() + ratio_N
