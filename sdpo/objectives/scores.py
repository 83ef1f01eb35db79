"""From hidden states to what every objective needs of a token, in chunks, so that few logits are alive at once.

The logits of a chunk are made, used and dropped; the backward makes them again. The fused kernel will replace the inside of
this module, not its interface.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from sdpo.config import SDPOConfig
from sdpo.objectives.divergence import divergence
from sdpo.objectives.support import buckets


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenScores:
    """What student and teacher say of N response tokens; natural logarithms, fp32."""

    student_N: Tensor
    """[N] log π_θ(y_t); carries gradient."""
    entropy_N: Tensor
    """[N] of the student's distribution, detached."""
    teacher_N: Tensor
    """[N] log q(y_t), detached; 0 where the row has no hindsight."""
    divergence_N: Tensor
    """[N] between the two over the support; carries gradient; 0 where the row has no hindsight."""


def policy_scores(hidden_NH: Tensor, head_VH: Tensor, ids_N: Tensor, *, temperature: float, chunk: int) -> tuple[Tensor, Tensor]:
    """[N] log-probabilities of the sampled tokens under the sampling temperature, and [N] entropies (detached)."""

    def one(hidden: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        logprobs_NV = _logprobs(hidden, head_VH, temperature)
        return logprobs_NV.gather(-1, ids[:, None])[:, 0], _entropy(logprobs_NV)

    logprobs_N, entropy_N = _chunked(one, chunk, hidden_NH, ids_N)
    return logprobs_N, entropy_N


def distillation_scores(
    hidden_NH: Tensor,
    head_VH: Tensor,
    teacher_hidden_NH: Tensor,
    teacher_head_VH: Tensor,
    ids_N: Tensor,
    *,
    objective: SDPOConfig,
    temperature: float,
    chunk: int,
) -> TokenScores:
    """Student's and teacher's scores of N response tokens that carry a distillation loss."""

    def one(hidden: Tensor, teacher_hidden: Tensor, ids: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        student_NV = _logprobs(hidden, head_VH, temperature)
        with torch.no_grad():
            teacher_NV = _logprobs(teacher_hidden, teacher_head_VH, temperature)
        student_NK, teacher_NK = buckets(student_NV, teacher_NV, objective.support)
        return (
            student_NV.gather(-1, ids[:, None])[:, 0],
            _entropy(student_NV),
            teacher_NV.gather(-1, ids[:, None])[:, 0],
            divergence(student_NK, teacher_NK, objective.divergence, objective.jsd_beta),
        )

    student_N, entropy_N, teacher_N, divergence_N = _chunked(one, chunk, hidden_NH, teacher_hidden_NH, ids_N)
    return TokenScores(student_N=student_N, entropy_N=entropy_N, teacher_N=teacher_N, divergence_N=divergence_N)


def _logprobs(hidden_NH: Tensor, head_VH: Tensor, temperature: float) -> Tensor:
    """[N, V] in fp32: the product in the compute type, as the engine does it, the softmax in fp32."""
    logits_NV = (hidden_NH @ head_VH.T).float()
    return (logits_NV if temperature == 1.0 else logits_NV / temperature).log_softmax(-1)


@torch.no_grad()
def _entropy(logprobs_NV: Tensor) -> Tensor:
    return -(logprobs_NV.exp() * logprobs_NV).nan_to_num_(nan=0.0).sum(-1)  # 0·log 0 is 0


def _chunked(score: Callable[..., tuple[Tensor, ...]], size: int, *inputs_N: Tensor) -> tuple[Tensor, ...]:
    """``score`` over chunks of ``size`` rows, each recomputed in the backward; the results joined again."""
    needs_backward = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs_N)
    parts = [
        checkpoint(score, *chunk, use_reentrant=False) if needs_backward else score(*chunk)
        for chunk in zip(*(torch.split(tensor, size) for tensor in inputs_N), strict=True)
    ]
    return tuple(torch.cat(column) for column in zip(*parts, strict=True))
