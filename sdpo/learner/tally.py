"""What do the tokens that were learned from say besides their loss?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

SUMS = (
    "loss",
    "distillation",
    "policy_gradient",
    "supervised",
    "divergence",
    "credit",
    "entropy",
    "mismatch",
    "distilled",
    "sampled",
    "learned",
    "credit_solved",
    "distilled_solved",
)
"""What is summed over the tokens that were learned from, in the order of ``Tally.sums``. ``distilled``, ``sampled`` and
``learned`` count them: those that were distilled, those that an engine sampled, and all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What tokens say besides their loss."""

    sums: Tensor
    """``SUMS``, float64."""
    mismatch_n: Tensor
    """[n] of each token that an engine sampled: the ratio - log ratio - 1 whose sum is ``mismatch``."""

    @property
    def mismatch_p99(self) -> float:
        """The 99th percentile, which is one of them; 0 where there are none."""
        num = len(self.mismatch_n)
        return float(self.mismatch_n.kthvalue(math.ceil(0.99 * num)).values) if num else 0.0


def joined(parts: Sequence[Tally], device: torch.device) -> Tally:
    """Of all their tokens together."""
    sums = torch.zeros(len(SUMS), dtype=torch.float64, device=device)
    for part in parts:
        sums = sums + part.sums.to(device)
    none = torch.zeros(0, device=device)
    return Tally(sums=sums, mismatch_n=torch.cat([none, *(part.mismatch_n.to(device) for part in parts)]))
