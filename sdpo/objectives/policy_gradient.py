"""GRPO's loss of a token (arXiv 2402.03300), with the switches of DAPO (2503.14476), Dr.GRPO (2503.20783), GSPO (2507.18071).

Another loss is a function of a ratio, a log-probability and an advantage. It is named in ``sdpo/plugins/seams.py``, by an entry
point, or by its file.
"""

from __future__ import annotations

from typing import Protocol, cast

import torch
from torch import Tensor

from sdpo.config import LossMean, PolicyGradientConfig, RatioLevel
from sdpo.objectives.ratio import bounded, ratio
from sdpo.objectives.rollout_weights import rollout_weights
from sdpo.objectives.rows import sum_by_row
from sdpo.plugins.seams import POLICY_LOSSES


class PolicyLoss(Protocol):
    """What is minimised of each token."""

    def __call__(self, ratio_N: Tensor, student_N: Tensor, advantages_N: Tensor, objective: PolicyGradientConfig) -> Tensor:
        """[N] losses. ``ratio_N`` is π_θ/π_old, ``student_N`` is log π_θ(y_t); both carry gradient.

        Tokens whose advantage is 0 are not asked about.
        """
        ...


def policy_gradient_loss(
    student_N: Tensor,
    old_N: Tensor,
    sampled_N: Tensor,
    advantages_N: Tensor,
    rows_N: Tensor,
    objective: PolicyGradientConfig,
) -> Tensor:
    """[N] the loss that ``objective.loss`` names, times the detached weight π_old/π_rollout, which is kept in bounds.

    ``student_N`` is log π_θ(y_t) and carries gradient; ``old_N`` the learner's before the step's first update.
    """
    log_ratio_N = student_N - old_N
    if objective.ratio is RatioLevel.sequence:
        log_ratio_N = sum_by_row(log_ratio_N, rows_N) / sum_by_row(torch.ones_like(log_ratio_N), rows_N)
    rollout_N = rollout_weights(old_N, sampled_N, rows_N, objective.rollout_correction, objective.rollout_clip)
    return rollout_N * policy_loss_of(objective)(ratio(log_ratio_N), student_N, advantages_N, objective)


def clipped_loss(ratio_N: Tensor, student_N: Tensor, advantages_N: Tensor, objective: PolicyGradientConfig) -> Tensor:
    """[N] -min(r·A, clip(r, 1-low, 1+high)·A): a token beyond the clip on the side that it went has no gradient (PPO).

    With the dual clip c (arXiv 1912.09729) it is at most -c·A where A is negative.
    """
    clipped_N = ratio_N.clamp(1.0 - objective.clip_low, 1.0 + objective.clip_high)
    gain_N = torch.minimum(ratio_N * advantages_N, clipped_N * advantages_N)
    if objective.clip_ratio_c is not None:
        least_N = objective.clip_ratio_c * advantages_N
        gain_N = torch.where(advantages_N < 0.0, torch.maximum(gain_N, least_N), gain_N)
    return -gain_N


def cispo_loss(ratio_N: Tensor, student_N: Tensor, advantages_N: Tensor, objective: PolicyGradientConfig) -> Tensor:
    """[N] -clip(r, 1-low, 1+high)·A·log π, the clipped ratio detached: every token keeps a gradient.

    CISPO (MiniMax-M1, arXiv 2506.13585, equations 4 and 5), whose authors set no lower bound (``clip_low=1``).
    """
    clipped_N = ratio_N.detach().clamp(1.0 - objective.clip_low, 1.0 + objective.clip_high)
    return -clipped_N * advantages_N * student_N


def policy_loss_of(objective: PolicyGradientConfig) -> PolicyLoss:
    """The one that ``objective.loss`` names. Raises ValueError where it names none."""
    found = POLICY_LOSSES.load(objective.loss)
    if not callable(found):
        raise ValueError(
            "algorithm.policy_gradient.loss must name a function of ratios, log-probabilities, advantages and the config "
            f"(sdpo.objectives.policy_gradient.PolicyLoss); {objective.loss!r} is {found!r}"
        )
    return cast(PolicyLoss, found)


def mean_weights(rows_N: Tensor, mean: LossMean, *, num_loss_tokens: int, num_rows: int, max_response_tokens: int) -> Tensor:
    """[N] factors that turn the sum over the update's tokens into the mean asked for; the counts are the whole update's."""
    ones_N = torch.ones(rows_N.shape, dtype=torch.float32, device=rows_N.device)
    match mean:
        case LossMean.token:
            return ones_N / max(num_loss_tokens, 1)
        case LossMean.sequence:
            return ones_N / (sum_by_row(ones_N, rows_N) * max(num_rows, 1))
        case LossMean.constant:
            return ones_N / (max(num_rows, 1) * max_response_tokens)


def reference_kl(student_N: Tensor, reference_N: Tensor) -> Tensor:
    """[N] the estimate k3 of KL(π_θ‖π_ref) from each sampled token: r - log r - 1 with r = π_ref/π_θ, at least 0.

    Source: http://joschu.net/blog/kl-approx.html; so used by GRPO (arXiv 2402.03300, equation 4).
    """
    log_ratio_N = bounded(reference_N - student_N)
    return log_ratio_N.exp() - log_ratio_N - 1.0
