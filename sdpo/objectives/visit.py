"""One chunk of tokens: its logits are made in shared buffers, read, and turned into the gradient by the logits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from sdpo.config import Divergence, SupportConfig, SupportKind
from sdpo.objectives.divergence import divergence
from sdpo.objectives.logits import Budget, Logits, wide, wide_product
from sdpo.objectives.scores import TokenLoss, TokenScores
from sdpo.objectives.slopes import Slopes, slopes_of
from sdpo.objectives.support import MASKED, Buckets

_SCRATCH_ROWS = 16
_FULL_COST = 8
"""A chunk over the full vocabulary is that much smaller: autograd keeps about as many copies of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """How student and teacher are compared."""

    teacher: tuple[Logits, ...]
    """The teacher's logits are the sum of these: one model's, or a trust region's mixture of two."""
    support: SupportConfig
    divergence: Divergence
    jsd_beta: float


class Gradient(Protocol):
    """Where the gradients by the logits go."""

    are_wanted: bool

    def add(self, by_logits_nV: Tensor, hidden_nH: Tensor, tokens: slice) -> None:
        """``by_logits_nV`` in the type of the hidden states, of the tokens ``tokens``."""
        ...


class Visit:
    """One walk over the chunks; ``seen`` holds the scores afterwards."""

    def __init__(self, hidden_NH: Tensor, head_VH: Tensor, ids_N: Tensor, comparison: Comparison | None, budget: Budget) -> None:
        assert len(hidden_NH) == len(ids_N)
        self._student = Logits(hidden_NH=hidden_NH.detach(), head_VH=head_VH.detach())
        self._ids_N = ids_N
        self._comparison = comparison
        self._temperature = budget.temperature
        self._vocabulary = len(head_VH)
        self._is_full = comparison is not None and (
            comparison.support.kind is SupportKind.full or comparison.support.num_ids >= self._vocabulary
        )
        dtype, device = wide(hidden_NH), hidden_NH.device
        affordable = budget.chunk_tokens(self._vocabulary, dtype.itemsize) // (_FULL_COST if self._is_full else 1)
        self._chunk = min(max(affordable, 1), max(len(ids_N), 1))
        shape = (self._chunk, self._vocabulary)
        self._logits = torch.empty(shape, dtype=dtype, device=device)
        self._weights = torch.empty(shape, dtype=dtype, device=device)
        self._narrow = self._logits if dtype == hidden_NH.dtype else torch.empty(shape, dtype=hidden_NH.dtype, device=device)
        self._scratch = torch.empty(_SCRATCH_ROWS, self._vocabulary, dtype=dtype, device=device)
        self.seen: TokenScores | None = None

    def scores(self) -> TokenScores:
        """Of all tokens, without gradient."""
        self.seen = _joined([self._look(tokens).scores for tokens in self._chunks()], self._logits)
        return self.seen

    def learn(self, loss: TokenLoss, gradients: Gradient) -> Tensor:
        """The summed loss; its gradients are added to ``gradients``."""
        if not gradients.are_wanted:
            return loss(self.scores(), slice(0, len(self._ids_N))).sum()
        if not loss.is_pointwise:
            total, slopes = slopes_of(self.scores(), slice(0, len(self._ids_N)), loss)
            if not slopes.has_divergence:
                self._comparison, self._is_full = None, False  # the second walk can do without the teacher
            for tokens in self._chunks():
                self._descend(self._look(tokens), slopes.part(tokens), tokens, gradients)
            return total
        total = torch.zeros((), dtype=self._logits.dtype, device=self._logits.device)
        seen: list[TokenScores] = []
        for tokens in self._chunks():
            look = self._look(tokens)
            part, slopes = slopes_of(look.scores, tokens, loss)
            self._descend(look, slopes, tokens, gradients)
            total += part
            seen.append(look.scores)
        self.seen = _joined(seen, self._logits)
        return total

    def _chunks(self) -> Iterator[slice]:
        num = len(self._ids_N)
        return (slice(first, min(first + self._chunk, num)) for first in range(0, num, self._chunk))

    def _look(self, tokens: slice) -> _Look:
        """Make the chunk's logits and read off all that objectives ask for."""
        ids_n1 = self._ids_N[tokens, None]
        if self._comparison is None:
            student_nV = self._make([self._student], tokens)
            sampled_n = student_nV.gather(-1, ids_n1)[:, 0]
            lse_n = self._soften(student_nV)
            entropy_n = lse_n - _row_dots(self._weights[: len(student_nV)], student_nV)
            zeros_n = torch.zeros_like(sampled_n)
            scores = TokenScores(student_N=sampled_n - lse_n, entropy_N=entropy_n, teacher_N=zeros_n, divergence_N=zeros_n)
            return _Look(scores=scores, compared=None, full=None)
        if self._is_full:
            return self._look_at_all(tokens, self._comparison)
        return self._look_at_support(tokens, self._comparison)

    def _look_at_support(self, tokens: slice, comparison: Comparison) -> _Look:
        ids_n1, kind = self._ids_N[tokens, None], comparison.support.kind
        if kind is SupportKind.teacher:  # who chooses the support is looked at first
            teacher_nV = self._make(comparison.teacher, tokens)
            support_nK = teacher_nV.topk(comparison.support.num_ids, dim=-1, sorted=False).indices
            teacher_n, teacher = self._read(teacher_nV, ids_n1, support_nK, keep=False)
        student_nV = self._make([self._student], tokens)
        if kind is SupportKind.student:
            support_nK = student_nV.topk(comparison.support.num_ids, dim=-1, sorted=False).indices
        student_n, student = self._read(student_nV, ids_n1, support_nK, keep=True)
        entropy_n = self._entropy(student_nV, student)
        if kind is SupportKind.student:
            teacher_n, teacher = self._read(self._make(comparison.teacher, tokens), ids_n1, support_nK, keep=False)
        with torch.enable_grad():
            buckets_nK = student.logprobs(tail=comparison.support.tail).detach().requires_grad_()
            divergence_n = divergence(
                buckets_nK, teacher.logprobs(tail=comparison.support.tail), comparison.divergence, comparison.jsd_beta
            )
        scores = TokenScores(
            student_N=student_n - student.lse_N,
            entropy_N=entropy_n,
            teacher_N=teacher_n - teacher.lse_N,
            divergence_N=divergence_n.detach(),
        )
        return _Look(
            scores=scores,
            compared=_Compared(support_nK=support_nK, student=student, buckets_nK=buckets_nK, divergence_n=divergence_n),
            full=None,
        )

    def _look_at_all(self, tokens: slice, comparison: Comparison) -> _Look:
        """The support is the vocabulary: autograd, on the chunk."""
        ids_n1 = self._ids_N[tokens, None]
        teacher_nV = self._make(comparison.teacher, tokens).log_softmax(-1)
        logits_nV = self._make([self._student], tokens).clone().requires_grad_()
        with torch.enable_grad():
            student_nV = logits_nV.log_softmax(-1)
            student_n = student_nV.gather(-1, ids_n1)[:, 0]
            entropy_n = -(student_nV.exp() * student_nV).sum(-1)
            divergence_n = divergence(student_nV, teacher_nV, comparison.divergence, comparison.jsd_beta)
        scores = TokenScores(
            student_N=student_n.detach(),
            entropy_N=entropy_n.detach(),
            teacher_N=teacher_nV.gather(-1, ids_n1)[:, 0],
            divergence_N=divergence_n.detach(),
        )
        return _Look(
            scores=scores,
            compared=None,
            full=_Full(logits_nV=logits_nV, student_n=student_n, entropy_n=entropy_n, divergence_n=divergence_n),
        )

    def _descend(self, look: _Look, slopes: Slopes, tokens: slice, gradients: Gradient) -> None:
        """Multiply the chunk's gradient by the logits into ``gradients``; uses up the buffers."""
        if look.full is not None:
            by_logits_nV = look.full.gradient(slopes)
        else:
            by_logits_nV = self._weights[: len(look.scores.student_N)]  # the softmax, over the tail where there is a support
            _into_gradient(by_logits_nV, look, slopes)
            ids_n1 = self._ids_N[tokens, None]
            by_logits_nV.scatter_add_(-1, ids_n1, slopes.student_n[:, None])
        if self._temperature != 1.0:
            by_logits_nV.div_(self._temperature)
        hidden_nH = self._student.hidden_NH[tokens]
        if by_logits_nV.dtype != hidden_nH.dtype:
            by_logits_nV = self._narrow[: len(hidden_nH)].copy_(by_logits_nV)
        gradients.add(by_logits_nV, hidden_nH, tokens)

    def _make(self, parts: Sequence[Logits], tokens: slice) -> Tensor:
        """[n, V] the chunk's logits in the shared buffer, over the temperature, each row's largest subtracted."""
        num = len(self._ids_N[tokens])
        logits_nV = self._logits[:num]
        for index, part in enumerate(parts):
            head = part.head_VH[: self._vocabulary]
            product_nV = logits_nV if index == 0 else torch.empty_like(logits_nV)
            wide_product(part.hidden_NH[tokens], head, product_nV)
            if part.weight != 1.0:
                product_nV.mul_(part.weight)
            if index > 0:
                logits_nV.add_(product_nV)
        if self._temperature != 1.0:
            logits_nV.div_(self._temperature)
        return logits_nV.sub_(logits_nV.amax(-1, keepdim=True))

    def _soften(self, logits_nV: Tensor) -> Tensor:
        """[n] log-sum-exp; the softmax is left in the buffer ``_weights``.

        The kernel gives the softmax and not its normaliser; the most probable token has both its logit and its probability.
        """
        softmax_nV = torch.softmax(logits_nV, -1, out=self._weights[: len(logits_nV)])
        return logits_nV.amax(-1) - softmax_nV.amax(-1).log()

    def _read(self, logits_nV: Tensor, ids_n1: Tensor, support_nK: Tensor, *, keep: bool) -> tuple[Tensor, Buckets]:
        """[n] the sampled tokens' logits, and the buckets. Masks the support in ``logits_nV``.

        With ``keep`` the softmax over what is left stays in the buffer ``_weights``.
        """
        sampled_n = logits_nV.gather(-1, ids_n1)[:, 0]
        inside_nK = logits_nV.gather(-1, support_nK)
        logits_nV.scatter_(-1, support_nK, MASKED)
        if keep:
            tail_n = self._soften(logits_nV)
        else:
            tail_n = torch.empty_like(sampled_n)
            for first in range(0, len(logits_nV), _SCRATCH_ROWS):
                rows = logits_nV[first : first + _SCRATCH_ROWS]
                softmax = torch.softmax(rows, -1, out=self._scratch[: len(rows)])
                tail_n[first : first + _SCRATCH_ROWS] = rows.amax(-1) - softmax.amax(-1).log()
        lse_n = torch.logaddexp(inside_nK.logsumexp(-1), tail_n)
        return sampled_n, Buckets(inside_NK=inside_nK, lse_N=lse_n, tail_lse_N=tail_n)

    def _entropy(self, masked_nV: Tensor, student: Buckets) -> Tensor:
        """[n] lse - Σ p z, from the support's logits and, in the buffers, the tail's."""
        assert student.tail_lse_N is not None
        inside_n = _row_dots((student.inside_NK - student.lse_N[:, None]).exp(), student.inside_NK)
        outside_n = _row_dots(self._weights[: len(masked_nV)], masked_nV)
        return student.lse_N - inside_n - (student.tail_lse_N - student.lse_N).exp() * outside_n


@dataclass(frozen=True, slots=True, kw_only=True)
class _Compared:
    """What the gradient needs of a comparison over a support."""

    support_nK: Tensor
    student: Buckets
    buckets_nK: Tensor
    """[n, K] or [n, K+1] the student's log-probabilities, a leaf of autograd."""
    divergence_n: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class _Full:
    """The same over the whole vocabulary: autograd's graph from the logits to the scores."""

    logits_nV: Tensor
    student_n: Tensor
    entropy_n: Tensor
    divergence_n: Tensor

    def gradient(self, slopes: Slopes) -> Tensor:
        """[n, V] by the logits."""
        outputs = (self.student_n, self.entropy_n, self.divergence_n)
        return torch.autograd.grad(outputs, self.logits_nV, (slopes.student_n, slopes.entropy_n, slopes.divergence_n))[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """What one chunk says."""

    scores: TokenScores
    compared: _Compared | None
    full: _Full | None


def _into_gradient(softmax_nV: Tensor, look: _Look, slopes: Slopes) -> None:
    """Turn the softmax (over the tail where there is a support) into the gradient by the logits, but for the sampled token."""
    entropy_n1, by_entropy_n1 = look.scores.entropy_N[:, None], slopes.entropy_n[:, None]
    if look.compared is None:
        scale_n1 = -slopes.student_n[:, None]
        if slopes.has_entropy:
            log_n_v = softmax_nV.log().clamp_(min=MASKED)
            softmax_nV.mul_(scale_n1 - by_entropy_n1 * (log_n_v + entropy_n1))
        else:
            softmax_nV.mul_(scale_n1)
        return
    compared = look.compared
    student = compared.student
    assert student.tail_lse_N is not None
    by_buckets_nK = torch.autograd.grad(compared.divergence_n, compared.buckets_nK, slopes.divergence_n)[0]
    num_ids = compared.support_nK.shape[1]
    inside_nK, log_tail_n1 = student.inside_NK - student.lse_N[:, None], (student.tail_lse_N - student.lse_N)[:, None]
    if by_buckets_nK.shape[1] > num_ids:
        by_inside_nK, by_tail_n1 = by_buckets_nK[:, :num_ids], by_buckets_nK[:, num_ids:]
        everything_n1 = by_buckets_nK.sum(-1, keepdim=True) + slopes.student_n[:, None]
    else:  # renormalised: the normaliser is the support's own, and what is outside has no part in the divergence
        by_inside_nK = by_buckets_nK - by_buckets_nK.sum(-1, keepdim=True) * student.inside_NK.softmax(-1)
        by_tail_n1 = torch.zeros_like(log_tail_n1)
        everything_n1 = slopes.student_n[:, None]
    tail_n1 = log_tail_n1.exp()
    if slopes.has_entropy:
        log_n_v = softmax_nV.log().clamp_(min=MASKED).add_(log_tail_n1)
        softmax_nV.mul_(by_tail_n1 - tail_n1 * (everything_n1 + by_entropy_n1 * (log_n_v + entropy_n1)))
    else:
        softmax_nV.mul_(by_tail_n1 - tail_n1 * everything_n1)
    of_support_nK = by_inside_nK - inside_nK.exp() * (everything_n1 + by_entropy_n1 * (inside_nK + entropy_n1))
    softmax_nV.scatter_(-1, compared.support_nK, of_support_nK)


def _row_dots(a_nV: Tensor, b_nV: Tensor) -> Tensor:
    """[n] without a product of the size of the two."""
    return torch.bmm(a_nV[:, None, :], b_nV[:, :, None])[:, 0, 0]


def _joined(parts: Sequence[TokenScores], like: Tensor) -> TokenScores:
    if not parts:
        empty = torch.zeros(0, dtype=like.dtype, device=like.device)
        return TokenScores(student_N=empty, entropy_N=empty, teacher_N=empty, divergence_N=empty)
    return TokenScores(
        student_N=torch.cat([part.student_N for part in parts]),
        entropy_N=torch.cat([part.entropy_N for part in parts]),
        teacher_N=torch.cat([part.teacher_N for part in parts]),
        divergence_N=torch.cat([part.divergence_N for part in parts]),
    )
