"""Derivatives of a loss by each token's scores: autograd's, on tensors of N numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sdpo.objectives.scores import TokenLoss, TokenScores


@dataclass(frozen=True, slots=True, kw_only=True)
class Slopes:
    """[n] derivatives of the summed loss by each token's scores."""

    student_n: Tensor
    entropy_n: Tensor
    divergence_n: Tensor
    has_entropy: bool
    has_divergence: bool

    def part(self, tokens: slice) -> Slopes:
        return Slopes(
            student_n=self.student_n[tokens],
            entropy_n=self.entropy_n[tokens],
            divergence_n=self.divergence_n[tokens],
            has_entropy=self.has_entropy,
            has_divergence=self.has_divergence,
        )


def slopes_of(scores: TokenScores, tokens: slice, loss: TokenLoss) -> tuple[Tensor, Slopes]:
    """The summed loss of ``tokens`` and its derivatives by their scores: autograd, on n numbers."""
    with torch.enable_grad():
        leaves = [part.detach().requires_grad_() for part in (scores.student_N, scores.entropy_N, scores.divergence_N)]
        student, entropy, divergence_ = leaves
        total = loss(replace(scores, student_N=student, entropy_N=entropy, divergence_N=divergence_), tokens).sum()
        found = torch.autograd.grad(total, leaves, allow_unused=True) if total.requires_grad else (None, None, None)
    filled = [torch.zeros_like(leaf) if slope is None else slope for leaf, slope in zip(leaves, found, strict=True)]
    return total.detach(), Slopes(
        student_n=filled[0],
        entropy_n=filled[1],
        divergence_n=filled[2],
        has_entropy=found[1] is not None,
        has_divergence=found[2] is not None,
    )
