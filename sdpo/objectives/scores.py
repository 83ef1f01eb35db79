"""What student and teacher say of each response token: all that an objective may ask of a vocabulary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenScores:
    """Scores of N response tokens, under the sampling temperature; natural logarithms, fp32."""

    student_N: Tensor
    """[N] log π_θ(y_t)"""
    entropy_N: Tensor
    """[N] of the student's distribution, nats"""
    teacher_N: Tensor
    """[N] log q(y_t); 0 without a teacher. No objective differentiates it."""
    teacher_entropy_N: Tensor
    """[N] of the teacher's distribution over the support's buckets, nats; 0 without a teacher. No objective differentiates it."""
    divergence_N: Tensor
    """[N] between student and teacher over the support, nats; 0 without a teacher."""


class TokenLoss(Protocol):
    """What is minimised of each token, as a function of its scores."""

    @property
    def is_pointwise(self) -> bool:
        """Whether a token's loss depends on its own scores alone. Otherwise all scores are needed before any gradient is."""
        ...

    def __call__(self, scores: TokenScores, tokens: slice) -> Tensor:
        """[n] losses of ``tokens``, a range of the N; ``scores`` holds those n. Their sum over the update is minimised."""
        ...
