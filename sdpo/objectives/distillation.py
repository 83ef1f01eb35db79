"""SDPO's loss of a token: move towards what the same model says with hindsight (arXiv 2601.20802, section 2)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sdpo.config import Granularity, SDPOConfig
from sdpo.objectives.hindsight_losses import hindsight_loss_of, log_ratio
from sdpo.objectives.ratio import ratio
from sdpo.objectives.rollout_weights import rollout_weights
from sdpo.objectives.rows import future_by_row
from sdpo.objectives.scores import TokenScores


def distillation_loss(
    scores: TokenScores, old_N: Tensor, sampled_N: Tensor, weights_N: Tensor, rows_N: Tensor, objective: SDPOConfig
) -> Tensor:
    """[N] loss of each token; its sum over the update, over the update's count of such tokens, is minimised.

    ``old_N`` is log π_old(y_t) of the learner before the step's first update, ``sampled_N`` the engine's: both only enter
    detached weights, clamped from above. ``weights_N`` are the tokens' own factors, ``certainty`` among them. ``rows_N`` says
    which row a token belongs to; a row's tokens stand in their order.
    """
    importance_N = ratio(scores.student_N.detach() - old_N).clamp(max=objective.importance_clip)
    rollout_N: Tensor | float = 1.0
    if objective.rollout_clip is not None:
        rollout_N = rollout_weights(old_N, sampled_N, rows_N, objective.rollout_correction, objective.rollout_clip)
    losses_N = weights_N * importance_N * rollout_N * hindsight_loss_of(objective).compared(scores, rows_N)
    if objective.future_credit > 0.0:
        losses_N = losses_N + importance_N * rollout_N * _future(scores, weights_N, rows_N, objective)
    return losses_N


def certainty(entropy_m: Tensor, entropies_M: Tensor, weight: float) -> Tensor:
    """[m] exp(-β·H) of tokens, over its mean among all M that the update distils (SRPO, arXiv 2604.02288, section 3.2).

    ``entropy_m`` and ``entropies_M`` are nats of the teacher's distributions, ``weight`` is β. Computed in logarithms: where a
    teacher is unsure throughout, every exponential could be 0.
    """
    if not len(entropies_M):
        return torch.ones_like(entropy_m)
    log_mean = (-weight * entropies_M.double()).logsumexp(0) - math.log(len(entropies_M))
    return (-weight * entropy_m.double() - log_mean.to(entropy_m.device)).exp().to(entropy_m.dtype)


def _future(scores: TokenScores, weights_N: Tensor, rows_N: Tensor, objective: SDPOConfig) -> Tensor:
    """[N] zeros, whose gradient credits a token with the weighted divergences w_s D_s of its row's later tokens.

    It is the second term of ∇ E[Σ_s w_s D_s] = E[Σ_t (w_t ∇ D_t + (Σ_{s>t} w_s D_s) ∇ log π(y_t))] (DistIL, arXiv 2606.05152).
    If D_s is the sampled token's log-ratio, its own gradient already has the form of that term.
    """
    is_of_logits = objective.granularity is Granularity.logits
    differs_N = scores.divergence_N if is_of_logits else log_ratio(scores, objective.advantage_clip)
    credit_N = future_by_row((weights_N * differs_N).detach(), rows_N, objective.future_credit)
    return credit_N * (scores.student_N - scores.student_N.detach())
