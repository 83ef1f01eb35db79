"""What the sums of an update are divided by: SRPO's equations 3.1 to 3.3 (arXiv 2604.02288), and SDPO's, paper and code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """An attempt of R tokens, of which ``mask`` says which are the policy's own."""

    mask: Tensor
    """[R] bool"""
    is_solved: bool
    has_hint: bool
    distilled: Tensor
    """[R] the distillation loss of each token; anything without a hint."""
    entropy: Tensor
    """[R] nats of the teacher's distribution over the vocabulary."""
    reinforced: Tensor
    """[R] the policy-gradient loss of each token."""


def srpo(attempts: Sequence[Attempt], beta: float) -> Tensor:
    """L_final of equation 3.3."""
    to_sdpo = [attempt for attempt in attempts if attempt.has_hint and not attempt.is_solved]  # z_SDPO = (1 - c) m
    to_grpo = [attempt for attempt in attempts if not (attempt.has_hint and not attempt.is_solved)]  # z_GRPO = 1 - z_SDPO
    total, num = torch.zeros((), dtype=torch.float64), sum(int(attempt.mask.sum()) for attempt in attempts)
    if to_sdpo:
        raw = [torch.exp(-beta * attempt.entropy[attempt.mask]) for attempt in to_sdpo]
        mean = torch.cat(raw).sum() / sum(len(part) for part in raw)
        for attempt, part in zip(to_sdpo, raw, strict=True):
            total = total + (part / mean * attempt.distilled[attempt.mask]).sum()
    for attempt in to_grpo:
        total = total + attempt.reinforced[attempt.mask].sum()
    return total / num


def paper(attempts: Sequence[Attempt]) -> Tensor:
    """The distilled tokens' losses over the tokens of all attempts (arXiv 2601.20802, equation 12)."""
    total = torch.stack([attempt.distilled[attempt.mask].sum() for attempt in attempts if attempt.has_hint]).sum()
    return total / sum(int(attempt.mask.sum()) for attempt in attempts)


def authors(attempts: Sequence[Attempt], *, num_ranks: int) -> Tensor:
    """What the authors' loop differentiates: each rank takes its attempts one by one, and adds each one's mean over its distilled
    tokens, over the number of its micro-batches; gradients are averaged over ranks."""
    of_rank = [attempts[rank::num_ranks] for rank in range(num_ranks)]
    assert len({len(part) for part in of_rank}) == 1, "verl divides a mini-batch evenly"
    total = torch.zeros((), dtype=torch.float64)
    for part in of_rank:
        accumulated = torch.zeros((), dtype=torch.float64)
        for attempt in part:
            counts = attempt.mask & attempt.has_hint
            mean = torch.where(counts, attempt.distilled, 0.0).sum() / max(int(counts.sum()), 1)
            accumulated = accumulated + mean / len(part)
        total = total + accumulated / num_ranks
    return total
