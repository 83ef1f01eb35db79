"""What is done to every logit of a chunk, but for the products and the top K? The interface, and its plain implementation.

A support is left out of the softmax by masking it, so that what is outside keeps its own log-sum-exp. Subtracting the support
from the whole would cancel. Without a comparison the support is empty, and everything is outside.

Shapes: C tokens of a full chunk, n of this one, V vocabulary, K support.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from sdpo.objectives.logits import wide
from sdpo.objectives.support import MASKED, Buckets

SCRATCH_ROWS = 16
"""Rows that are worked on at once where a pass needs memory of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What is read from each row's logits z, which are over the temperature and less the row's largest."""

    sampled_n: Tensor
    """[n] z of the sampled token"""
    buckets: Buckets
    outside_mean_n: Tensor | None
    """[n] Σ q z outside the support, q the softmax over that; only where the reading was to be kept"""

    def entropy_n(self) -> Tensor:
        """lse - Σ p z, in nats."""
        student, outside_n = self.buckets, self.outside_mean_n
        assert student.tail_lse_N is not None
        assert outside_n is not None
        inside_n = row_dots((student.inside_NK - student.lse_N[:, None]).exp(), student.inside_NK)
        return student.lse_N - inside_n - (student.tail_lse_N - student.lse_N).exp() * outside_n


@dataclass(frozen=True, slots=True, kw_only=True)
class RowGradient:
    """The parts of a row's gradient by z.

    Outside the support it is q (by_tail - s (everything + by_entropy (log q + log s + entropy))). There q is the softmax over
    what is outside, and s the probability of being outside.
    """

    by_tail_n1: Tensor
    log_tail_n1: Tensor
    """log s"""
    everything_n1: Tensor
    by_entropy_n1: Tensor | None
    """None where the loss does not ask for the entropy."""
    entropy_n1: Tensor
    ids_n1: Tensor
    """The sampled token: where it is outside, ``by_sampled_n1`` is added to its entry."""
    by_sampled_n1: Tensor
    support_nK: Tensor
    by_support_nK: Tensor
    """The entries of the support, complete."""


class Rows(Protocol):
    """The buffers of a chunk, and every pass over them."""

    student_CV: Tensor
    """[C, V] buffer for the product that is the student's logits, fp32 (fp64 for fp64 hidden states)."""
    teacher_CV: Tensor
    """[C, V] the same for the teacher's logits; may be the same memory."""

    def settle(self, logits_nV: Tensor) -> Tensor:
        """Ready for a top K and ``read``; in place."""
        ...

    def read(self, logits_nV: Tensor, ids_n1: Tensor, support_nK: Tensor, *, keep: bool) -> Reading:
        """Uses up ``logits_nV``, as ``settle`` left it. With ``keep``, ``gradient`` will be that of these rows."""
        ...

    def gradient(self, rows: RowGradient) -> Tensor:
        """[n, V] by the logits, in the type of the hidden states, of the rows last read with ``keep``. Uses up both buffers."""
        ...


class TorchRows:
    """One torch operation a pass, for any device and type. Student and teacher share a buffer; the softmax is kept in another."""

    def __init__(self, shape_CV: tuple[int, int], hidden_NH: Tensor, temperature: float) -> None:
        dtype, device = wide(hidden_NH), hidden_NH.device
        self.student_CV = self.teacher_CV = torch.empty(shape_CV, dtype=dtype, device=device)
        self._weights = torch.empty(shape_CV, dtype=dtype, device=device)
        self._narrow = hidden_NH.dtype
        self._scratch = torch.empty(SCRATCH_ROWS, shape_CV[1], dtype=dtype, device=device)
        self._temperature = temperature

    def settle(self, logits_nV: Tensor) -> Tensor:
        if self._temperature != 1.0:
            logits_nV.div_(self._temperature)
        return logits_nV.sub_(logits_nV.amax(-1, keepdim=True))

    def read(self, logits_nV: Tensor, ids_n1: Tensor, support_nK: Tensor, *, keep: bool) -> Reading:
        sampled_n = logits_nV.gather(-1, ids_n1).clamp_(min=MASKED)[:, 0]
        inside_nK = logits_nV.gather(-1, support_nK).clamp_(min=MASKED)
        logits_nV.scatter_(-1, support_nK, MASKED)
        if keep:
            weights_nV = self._weights[: len(logits_nV)]
            tail_n = soften(logits_nV, weights_nV)
            mean_n = means(weights_nV, logits_nV)
        else:
            tail_n, mean_n = torch.empty_like(sampled_n), None
            for first in range(0, len(logits_nV), SCRATCH_ROWS):
                rows = logits_nV[first : first + SCRATCH_ROWS]
                tail_n[first : first + SCRATCH_ROWS] = soften(rows, self._scratch[: len(rows)])
        lse_n = torch.logaddexp(inside_nK.logsumexp(-1), tail_n)
        buckets = Buckets(inside_NK=inside_nK, lse_N=lse_n, tail_lse_N=tail_n)
        return Reading(sampled_n=sampled_n, buckets=buckets, outside_mean_n=mean_n)

    def gradient(self, rows: RowGradient) -> Tensor:
        by_logits_nV = self._weights[: len(rows.ids_n1)]
        tail_n1 = rows.log_tail_n1.exp()
        if rows.by_entropy_n1 is None:
            by_logits_nV.mul_(rows.by_tail_n1 - tail_n1 * rows.everything_n1)
        else:
            factor_nV = by_logits_nV.log().clamp_(min=MASKED).add_(rows.log_tail_n1).add_(rows.entropy_n1)
            factor_nV.mul_(rows.by_entropy_n1).add_(rows.everything_n1).mul_(-tail_n1).add_(rows.by_tail_n1)
            by_logits_nV.mul_(factor_nV)
        by_logits_nV.scatter_add_(-1, rows.ids_n1, rows.by_sampled_n1)
        by_logits_nV.scatter_(-1, rows.support_nK, rows.by_support_nK)
        if self._temperature != 1.0:
            by_logits_nV.div_(self._temperature)
        return narrowed(by_logits_nV, self._narrow, self.student_CV)


def narrowed(wide_nV: Tensor, dtype: torch.dtype, spent_CV: Tensor) -> Tensor:
    """``wide_nV`` in ``dtype``, in the memory of a buffer whose contents are not needed any more."""
    if wide_nV.dtype == dtype:
        return wide_nV
    needed = -(-wide_nV.numel() * dtype.itemsize // wide_nV.itemsize)
    return spent_CV.view(-1)[:needed].view(dtype)[: wide_nV.numel()].view(wide_nV.shape).copy_(wide_nV)


def soften(logits_nV: Tensor, out_nV: Tensor) -> Tensor:
    """[n] log-sum-exp; the softmax is left in ``out_nV``.

    The kernel gives the softmax and not its normaliser; the most probable token has both its logit and its probability.
    """
    softmax_nV = torch.softmax(logits_nV, -1, out=out_nV)
    return logits_nV.amax(-1) - softmax_nV.amax(-1).log()


def means(weights_nV: Tensor, logits_nV: Tensor) -> Tensor:
    """[n] Σ weight · logit. Logits of -inf, which weigh nothing, are made finite in place where there are any."""
    means_n = row_dots(weights_nV, logits_nV)
    if not bool(means_n.isfinite().all()):
        means_n = row_dots(weights_nV, logits_nV.clamp_(min=MASKED))
    return means_n


def row_dots(a_nV: Tensor, b_nV: Tensor) -> Tensor:
    """[n] without a product of the size of the two."""
    return torch.bmm(a_nV[:, None, :], b_nV[:, :, None])[:, 0, 0]
