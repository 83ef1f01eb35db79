"""Advantages within a group, and the clipped losses that they weigh (GRPO, DAPO, verl)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def advantages(rewards: Sequence[float], *, free: int) -> list[float]:
    """(r - mean) / deviation, whose squares are summed over G - ``free``; 0 where the rewards lie within a millionth."""
    if max(rewards) - min(rewards) < 1e-6:
        return [0.0] * len(rewards)
    mean = math.fsum(rewards) / len(rewards)
    deviation = math.sqrt(math.fsum((reward - mean) ** 2 for reward in rewards) / (len(rewards) - free))
    return [(reward - mean) / deviation for reward in rewards]


def clipped(log_ratio: Tensor, advantage: Tensor, *, low: float, high: float, dual: float | None) -> Tensor:
    """verl's loss of each token, as a maximum of costs: max(-r·A, -clip(r)·A), at most -c·A where A is negative.

    The log-ratio is bounded to 20 nats either way before its exponential is taken.
    """
    ratio = torch.exp(torch.where(log_ratio > 20.0, 20.0, torch.where(log_ratio < -20.0, -20.0, log_ratio)))
    within = torch.where(ratio > 1.0 + high, 1.0 + high, torch.where(ratio < 1.0 - low, 1.0 - low, ratio))
    free, held = -ratio * advantage, -within * advantage
    cost = torch.where(free > held, free, held)
    if dual is None:
        return cost
    most = -dual * advantage
    return torch.where((advantage < 0.0) & (cost > most), most, cost)


def k3(log_ratio: Tensor) -> Tensor:
    """r - log r - 1 with r = π_ref/π, the log-ratio bounded likewise."""
    bounded = torch.where(log_ratio > 20.0, 20.0, torch.where(log_ratio < -20.0, -20.0, log_ratio))
    return bounded.exp() - bounded - 1.0
