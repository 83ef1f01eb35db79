"""One chunk of tokens: its logits are made in shared buffers, read, and turned into the gradient by the logits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from sdpo.config import SupportKind, TopSupport
from sdpo.objectives import triton_rows
from sdpo.objectives.comparison import Comparison, check
from sdpo.objectives.divergence import divergence, entropy
from sdpo.objectives.full_rows import FullReading, FullRows
from sdpo.objectives.logits import Budget, HeadRule, Logits, follow, wide, wide_product
from sdpo.objectives.scores import TokenLoss, TokenScores
from sdpo.objectives.slopes import Slopes, slopes_of
from sdpo.objectives.support import Buckets
from sdpo.objectives.torch_rows import RowGradient, Rows, TorchRows


class Gradient(Protocol):
    """What takes the gradients by the logits, chunk by chunk."""

    are_wanted: bool

    def add(self, by_logits_nV: Tensor, hidden_nH: Tensor, tokens: slice) -> None:
        """``by_logits_nV`` in the type of the hidden states, of the tokens ``tokens``."""
        ...


class Visit:
    """One walk over the chunks; ``seen`` holds the scores afterwards."""

    def __init__(
        self, hidden_NH: Tensor, head_VH: Tensor, ids_N: Tensor, comparison: Comparison | None, budget: Budget, rule: HeadRule
    ) -> None:
        check(hidden_NH, head_VH, ids_N, comparison, rule)
        self._student = Logits(hidden_NH=hidden_NH.detach(), head_VH=head_VH.detach(), rule=rule)
        self._slopes_CV: Tensor | None = None  # of the soft cap, where there is one and a gradient is wanted
        self._ids_N = ids_N
        self._comparison = comparison
        self._temperature = budget.temperature
        self._vocabulary = len(head_VH)
        self._hidden_NH = hidden_NH
        self._chunk = min(budget.chunk_tokens(self._vocabulary, wide(hidden_NH).itemsize), max(len(ids_N), 1))
        self._rows: Rows | FullRows = self._buffers(comparison)
        self.seen: TokenScores | None = None

    def _buffers(self, comparison: Comparison | None) -> Rows | FullRows:
        shape_CV = (self._chunk, self._vocabulary)
        if comparison is not None and comparison.is_whole(self._vocabulary):
            return FullRows(shape_CV, self._hidden_NH, self._temperature, comparison.whole)
        if triton_rows.can_run(self._hidden_NH):
            return triton_rows.TritonRows(shape_CV, self._hidden_NH, self._temperature)
        return TorchRows(shape_CV, self._hidden_NH, self._temperature)

    def scores(self) -> TokenScores:
        """Scores of all tokens, without gradient."""
        self.seen = _joined([self._visit(tokens).scores for tokens in self._chunks()], self._rows.student_CV)
        return self.seen

    def teacher_entropy(self) -> Tensor:
        """[N] nats of the teacher's distribution over the vocabulary. Of the student nothing is read."""
        assert self._comparison is not None
        parts = [torch.zeros(0, dtype=self._rows.teacher_CV.dtype, device=self._ids_N.device)]
        for tokens in self._chunks():
            teacher_nV, ids_n1 = self._make_teacher(self._comparison, tokens), self._ids_N[tokens, None]
            if isinstance(self._rows, FullRows):
                parts.append(self._rows.entropy(teacher_nV))
            else:
                parts.append(self._rows.read(teacher_nV, ids_n1, ids_n1[:, :0], keep=True).entropy_n())
        return torch.cat(parts)

    def learn(self, loss: TokenLoss, gradients: Gradient) -> Tensor:
        """The summed loss; its gradients are added to ``gradients``."""
        if not gradients.are_wanted:
            return loss(self.scores(), slice(0, len(self._ids_N))).sum()
        if self._student.rule.soft_cap is not None:
            shape_CV, states_NH = (self._chunk, self._vocabulary), self._hidden_NH
            self._slopes_CV = torch.empty(shape_CV, dtype=states_NH.dtype, device=states_NH.device)
        if not loss.is_pointwise:
            total, slopes = slopes_of(self.scores(), slice(0, len(self._ids_N)), loss)
            if not slopes.has_divergence:
                self._comparison = None  # the second walk can do without the teacher
                self._rows = self._buffers(None) if isinstance(self._rows, FullRows) else self._rows
            for tokens in self._chunks():
                self._descend(self._visit(tokens), slopes.part(tokens), tokens, gradients)
            return total
        total = torch.zeros((), dtype=self._rows.student_CV.dtype, device=self._ids_N.device)
        seen: list[TokenScores] = []
        for tokens in self._chunks():
            visited = self._visit(tokens)
            part, slopes = slopes_of(visited.scores, tokens, loss)
            self._descend(visited, slopes, tokens, gradients)
            total += part
            seen.append(visited.scores)
        self.seen = _joined(seen, self._rows.student_CV)
        return total

    def _chunks(self) -> Iterator[slice]:
        num = len(self._ids_N)
        return (slice(first, min(first + self._chunk, num)) for first in range(0, num, self._chunk))

    def _visit(self, tokens: slice) -> _Visited:
        """Make the chunk's logits and read off all that objectives ask for."""
        ids_n1, rows = self._ids_N[tokens, None], self._rows
        if isinstance(rows, FullRows):
            return self._visit_all(tokens, rows)
        if self._comparison is None:
            student = rows.read(self._make_student(tokens), ids_n1, ids_n1[:, :0], keep=True)
            zeros_n = torch.zeros_like(student.sampled_n)
            scores = TokenScores(
                student_N=student.sampled_n - student.buckets.lse_N,
                entropy_N=student.entropy_n(),
                teacher_N=zeros_n,
                teacher_entropy_N=zeros_n,
                divergence_N=zeros_n,
            )
            return _Visited(scores=scores, compared=None, full=None)
        return self._visit_support(tokens, self._comparison, rows)

    def _visit_support(self, tokens: slice, comparison: Comparison, rows: Rows) -> _Visited:
        ids_n1, support = self._ids_N[tokens, None], comparison.support
        assert isinstance(support, TopSupport)
        if support.kind is SupportKind.teacher:  # who chooses the support is looked at first
            teacher_nV = self._make_teacher(comparison, tokens)
            support_nK = teacher_nV.topk(support.num_ids, dim=-1, sorted=False).indices
            teacher = rows.read(teacher_nV, ids_n1, support_nK, keep=False)
        student_nV = self._make_student(tokens)
        if support.kind is SupportKind.student:
            support_nK = student_nV.topk(support.num_ids, dim=-1, sorted=False).indices
        student = rows.read(student_nV, ids_n1, support_nK, keep=True)
        if support.kind is SupportKind.student:
            teacher = rows.read(self._make_teacher(comparison, tokens), ids_n1, support_nK, keep=False)
        taught_nK = teacher.buckets.logprobs(tail=support.tail)
        with torch.enable_grad():
            buckets_nK = student.buckets.logprobs(tail=support.tail).detach().requires_grad_()
            divergence_n = divergence(comparison.divergence, buckets_nK, taught_nK, bounds=comparison.bounds)
        scores = TokenScores(
            student_N=student.sampled_n - student.buckets.lse_N,
            entropy_N=student.entropy_n(),
            teacher_N=teacher.sampled_n - teacher.buckets.lse_N,
            teacher_entropy_N=entropy(taught_nK),
            divergence_N=divergence_n.detach(),
        )
        return _Visited(
            scores=scores,
            compared=_Compared(support_nK=support_nK, student=student.buckets, buckets_nK=buckets_nK, divergence_n=divergence_n),
            full=None,
        )

    def _visit_all(self, tokens: slice, rows: FullRows) -> _Visited:
        """The support is the vocabulary. The student last: its softmax stays where the teacher's was."""
        assert self._comparison is not None
        entropy_n = rows.entropy(self._make_teacher(self._comparison, tokens))
        self._make_student(tokens)
        full = rows.read(self._ids_N[tokens, None], entropy_n)
        return _Visited(scores=full.scores, compared=None, full=full)

    def _descend(self, visited: _Visited, slopes: Slopes, tokens: slice, gradients: Gradient) -> None:
        """Multiply the chunk's gradient by the logits into ``gradients``; uses up the buffers."""
        hidden_nH = self._student.hidden_NH[tokens]
        ids_n1 = self._ids_N[tokens, None]
        if isinstance(self._rows, FullRows):
            assert visited.full is not None
            by_logits_nV = self._rows.gradient(visited.full, slopes, ids_n1)
        else:
            by_logits_nV = self._rows.gradient(_row_gradient(visited, slopes, ids_n1))
        if self._student.rule.closed_V is not None:
            by_logits_nV.masked_fill_(self._student.rule.closed_V, 0.0)
        if self._slopes_CV is not None:
            by_logits_nV.mul_(self._slopes_CV[: len(by_logits_nV)])
        gradients.add(by_logits_nV, hidden_nH, tokens)

    def _make_student(self, tokens: slice) -> Tensor:
        return self._make([self._student], tokens, self._rows.student_CV, self._slopes_CV)

    def _make_teacher(self, comparison: Comparison, tokens: slice) -> Tensor:
        return self._make(comparison.teacher, tokens, self._rows.teacher_CV)

    def _make(self, parts: Sequence[Logits], tokens: slice, buffer_CV: Tensor, slopes_CV: Tensor | None = None) -> Tensor:
        """[n, V] the chunk's logits in ``buffer_CV``, settled. ``slopes_CV`` takes the derivatives of a soft cap."""
        logits_nV = buffer_CV[: len(self._ids_N[tokens])]
        for index, part in enumerate(parts):
            head = part.head_VH[: self._vocabulary]
            product_nV = logits_nV if index == 0 else torch.empty_like(logits_nV)
            wide_product(part.hidden_NH[tokens], head, product_nV)
            follow(part.rule, product_nV, slopes_CV)
            if part.weight != 1.0:
                product_nV.mul_(part.weight)
            if index > 0:
                logits_nV.add_(product_nV)
        return self._rows.settle(logits_nV)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Compared:
    """What the gradient needs of a comparison over a support."""

    support_nK: Tensor
    student: Buckets
    buckets_nK: Tensor
    """[n, K] or [n, K+1] the student's log-probabilities, a leaf of autograd."""
    divergence_n: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class _Visited:
    """What one chunk says."""

    scores: TokenScores
    compared: _Compared | None
    full: FullReading | None


def _row_gradient(visited: _Visited, slopes: Slopes, ids_n1: Tensor) -> RowGradient:
    """The gradient by the logits, from the derivatives by the scores; the formula is in ``fused``."""
    by_sampled_n1, by_entropy_n1 = slopes.student_n[:, None], slopes.entropy_n[:, None]
    entropy_n1 = visited.scores.entropy_N[:, None]
    zeros_n1 = torch.zeros_like(entropy_n1)
    if visited.compared is None:  # everything is outside
        by_tail_n1, log_tail_n1, everything_n1 = zeros_n1, zeros_n1, by_sampled_n1
        support_nK, by_support_nK = ids_n1[:, :0], zeros_n1[:, :0]
    else:
        student, support_nK = visited.compared.student, visited.compared.support_nK
        assert student.tail_lse_N is not None
        by_buckets_nK = torch.autograd.grad(visited.compared.divergence_n, visited.compared.buckets_nK, slopes.divergence_n)[0]
        num_ids = support_nK.shape[1]
        inside_nK, log_tail_n1 = student.inside_NK - student.lse_N[:, None], (student.tail_lse_N - student.lse_N)[:, None]
        if by_buckets_nK.shape[1] > num_ids:
            by_inside_nK, by_tail_n1 = by_buckets_nK[:, :num_ids], by_buckets_nK[:, num_ids:]
            everything_n1 = by_buckets_nK.sum(-1, keepdim=True) + by_sampled_n1
        else:  # renormalised: the normaliser is the support's own, and what is outside has no part in the divergence
            by_inside_nK = by_buckets_nK - by_buckets_nK.sum(-1, keepdim=True) * student.inside_NK.softmax(-1)
            by_tail_n1, everything_n1 = zeros_n1, by_sampled_n1
        by_support_nK = by_inside_nK - inside_nK.exp() * (everything_n1 + by_entropy_n1 * (inside_nK + entropy_n1))
        by_support_nK = by_support_nK + torch.where(support_nK == ids_n1, by_sampled_n1, zeros_n1)
    return RowGradient(
        by_tail_n1=by_tail_n1,
        log_tail_n1=log_tail_n1,
        everything_n1=everything_n1,
        by_entropy_n1=by_entropy_n1 if slopes.has_entropy else None,
        entropy_n1=entropy_n1,
        ids_n1=ids_n1,
        by_sampled_n1=by_sampled_n1,
        support_nK=support_nK,
        by_support_nK=by_support_nK,
    )


def _joined(parts: Sequence[TokenScores], like: Tensor) -> TokenScores:
    if not parts:
        empty = torch.zeros(0, dtype=like.dtype, device=like.device)
        return TokenScores(student_N=empty, entropy_N=empty, teacher_N=empty, teacher_entropy_N=empty, divergence_N=empty)
    return TokenScores(
        student_N=torch.cat([part.student_N for part in parts]),
        entropy_N=torch.cat([part.entropy_N for part in parts]),
        teacher_N=torch.cat([part.teacher_N for part in parts]),
        teacher_entropy_N=torch.cat([part.teacher_entropy_N for part in parts]),
        divergence_N=torch.cat([part.divergence_N for part in parts]),
    )
