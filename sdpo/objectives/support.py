"""Over which token ids is a position compared, and what does each bucket hold?

The top K ids of the student (or of the teacher) keep their true log-probabilities under the full softmax. One tail bucket holds
the rest. Both sides are then distributions over the same K + 1 buckets (arXiv 2601.20802, section 2). Without the tail the K
are renormalised. Logits go in, since a log-softmax over the vocabulary would be another pass over the largest tensor there is.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

MASKED = -1e30
"""Stands for -inf where 0 · -inf must be 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Buckets:
    """One side's distribution over a support; N positions, K ids, V vocabulary."""

    inside_NK: Tensor
    """[N, K] logits of the support, the row's largest logit subtracted."""
    lse_N: Tensor
    """[N] log Σ exp of all logits, likewise."""
    tail_lse_N: Tensor | None
    """[N] of the logits outside the support; None where the support is the whole vocabulary."""

    def logprobs(self, *, tail: bool) -> Tensor:
        """[N, K] or, with a tail, [N, K+1] log-probabilities that sum to one."""
        if not tail:
            return self.inside_NK.log_softmax(-1)
        inside_NK = self.inside_NK - self.lse_N[:, None]
        if self.tail_lse_N is None:
            return inside_NK
        return torch.cat([inside_NK, (self.tail_lse_N - self.lse_N)[:, None]], dim=-1)
