"""How much likelier is a token under one policy than under another?"""

from __future__ import annotations

from torch import Tensor

LARGEST_LOG_RATIO = 20.0
"""Nats: verl's bound. exp(100) is infinite in fp32, and an infinity times 0 is a gradient that is no number."""


def bounded(log_ratio_N: Tensor) -> Tensor:
    """[N] within ±``LARGEST_LOG_RATIO``; beyond it there is no gradient."""
    return log_ratio_N.clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO)


def ratio(log_ratio_N: Tensor) -> Tensor:
    """[N] the bounded ratio of two probabilities, at most e^20."""
    return bounded(log_ratio_N).exp()
