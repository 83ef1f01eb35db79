"""How much does a token count that was sampled in an engine's arithmetic? π_learner/π_engine, kept in bounds."""

from __future__ import annotations

import torch
from torch import Tensor

from sdpo.config import RolloutCorrection
from sdpo.objectives.ratio import ratio
from sdpo.objectives.rows import sum_by_row


def rollout_weights(old_N: Tensor, sampled_N: Tensor, rows_N: Tensor, correction: RolloutCorrection, clip: float) -> Tensor:
    """[N] detached weights, at most ``clip``; 0 where ``correction`` leaves the token or its sequence out.

    ``old_N`` is the learner's log-probability of each token before the step's first update, ``sampled_N`` the engine's. A
    sequence is what is learned from of a row: masked tokens are in none of these.
    """
    log_weights_N = (old_N - sampled_N).detach()
    if correction.is_of_sequences:
        log_weights_N = sum_by_row(log_weights_N, rows_N)
    weights_N = ratio(log_weights_N)
    if correction.masks:
        return torch.where((weights_N >= 1.0 / clip) & (weights_N <= clip), weights_N, 0.0)
    return weights_N.clamp(max=clip)
