"""The loss and its gradients from hidden states and the output embedding, a chunk of tokens at a time.

A position's logits over the vocabulary are the largest thing a trainer ever makes. Here those of a chunk are made once, for
student and teacher, in two buffers that all chunks share. Log-sum-exp, top-K, tail, divergence, the sampled token's
log-probability and the entropy are computed from them. The same visit computes the gradient of the loss by the logits. That is
multiplied into the gradients of the hidden states and of the embedding before the next chunk takes the buffers. The backward
recomputes nothing and only scales what is there.

That works because a loss is a function of few numbers a token (``TokenScores``). Autograd gives the derivatives by those, on
tensors of N numbers and on ``[n, K+1]`` log-probabilities. Only the step from the logits to them is written out by hand. Let p
be the softmax of the logits z, and s_b the probability of bucket b (S the support). Let g_b, l, e be the derivatives of the loss
by log s_b, by the sampled token's log-probability and by the entropy H. Then:

    dL/dz_v = [v in S] g_v + [v not in S] g_tail p_v / s_tail + [v = y] l - p_v (Σ_b g_b + l) - e p_v (log p_v + H)

What a model does to the product before it calls it logits (``HeadRule``: a bias, a scale, a soft cap) comes in between. Its
derivatives are multiplied in: those of a soft cap for each logit, a scale at the end.

The chunks are visited twice where a loss needs all tokens of a row before it knows the derivatives (GSPO, sequence-level
distillation). The formula is another one where the buckets are the whole vocabulary: ``full_rows``.

Shapes: N tokens, n of a chunk, H hidden, V vocabulary, K support.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sdpo.objectives.comparison import Comparison
from sdpo.objectives.logits import HEAD_ROWS, PLAIN, Budget, HeadRule, wide
from sdpo.objectives.scores import TokenLoss, TokenScores
from sdpo.objectives.visit import Visit


def fused_loss(
    hidden_NH: Tensor,
    head_VH: Tensor,
    ids_N: Tensor,
    loss: TokenLoss,
    *,
    comparison: Comparison | None = None,
    budget: Budget,
    rule: HeadRule = PLAIN,
) -> tuple[Tensor, TokenScores]:
    """The sum of ``loss`` over N tokens, which carries gradient to ``hidden_NH``, ``head_VH`` and the rule's bias, and the
    detached scores.

    ``ids_N`` int64 are the sampled tokens. The loss is fp32 (fp64 for fp64 hidden states). The gradients come in the types of
    hidden states and head; sums over tokens are kept in fp32. The teacher gets none. A second backward raises.
    """
    total, scores = _fused_loss(hidden_NH, head_VH, ids_N, loss, comparison, budget, rule)
    return total, scores


def score_tokens(hidden_NH: Tensor, head_VH: Tensor, ids_N: Tensor, *, budget: Budget, rule: HeadRule = PLAIN) -> TokenScores:
    """The student's scores alone, without gradient."""
    with torch.no_grad():
        return Visit(hidden_NH, head_VH, ids_N, None, budget, rule).scores()


def teacher_entropy(comparison: Comparison, vocabulary: int, *, budget: Budget) -> Tensor:
    """[N] nats of the teacher's distribution over the student's vocabulary, without gradient."""
    head_VH, num = comparison.teacher[0].head_VH[:vocabulary], len(comparison.teacher[0].hidden_NH)
    ids_N = torch.zeros(num, dtype=torch.int64, device=head_VH.device)
    with torch.no_grad():
        return Visit(head_VH.new_empty(num, 0), head_VH, ids_N, comparison, budget, PLAIN).teacher_entropy()


@torch.compiler.disable  # type: ignore[untyped-decorator] # chunked by hand, in shared buffers: nothing is left to fuse
def _fused_loss(
    hidden_NH: Tensor,
    head_VH: Tensor,
    ids_N: Tensor,
    loss: TokenLoss,
    comparison: Comparison | None,
    budget: Budget,
    rule: HeadRule,
) -> tuple[Tensor, TokenScores]:
    visit = Visit(hidden_NH, head_VH, ids_N, comparison, budget, rule)
    bias_V = rule.bias_V
    if not torch.is_grad_enabled():  # inside of a Function nothing tells
        hidden_NH, head_VH = hidden_NH.detach(), head_VH.detach()
        bias_V = None if bias_V is None else bias_V.detach()
    total: Tensor = _Fused.apply(hidden_NH, head_VH, bias_V, rule.scale, visit, loss)  # type: ignore[no-untyped-call]
    assert visit.seen is not None
    return total, visit.seen


class _Fused(torch.autograd.Function):
    """Gradients are made in the forward, where the logits are, and kept for the backward."""

    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx, hidden_NH: Tensor, head_VH: Tensor, bias_V: Tensor | None, scale: float, visit: Visit, loss: TokenLoss
    ) -> Tensor:
        of_hidden, of_head, of_bias, *_ = ctx.needs_input_grad
        gradients = Gradients(
            hidden_NH, head_VH, of_hidden=of_hidden, of_head=of_head, bias_V=bias_V if of_bias else None, scale=scale
        )
        total = visit.learn(loss, gradients)
        ctx.gradients = gradients
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, by_total: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[no-untyped-def]
        if ctx.gradients is None:
            raise RuntimeError("the gradients of a fused loss are given once; call fused_loss again for a second backward")
        gradients, ctx.gradients = ctx.gradients, None
        return (*gradients.times(by_total), None, None, None)


class Gradients:
    """Gradients of the loss by the hidden states, the head and its bias, summed over chunks."""

    def __init__(
        self,
        hidden_NH: Tensor,
        head_VH: Tensor,
        *,
        of_hidden: bool,
        of_head: bool,
        bias_V: Tensor | None = None,
        scale: float = 1.0,
    ) -> None:
        """``bias_V`` where its gradient is wanted, ``scale`` what the product is multiplied by."""
        self.are_wanted = of_hidden or of_head or bias_V is not None
        self._scale, self._bias = scale, bias_V
        self._bias_sum = torch.zeros_like(bias_V, dtype=wide(bias_V)) if bias_V is not None else None
        self._head = head_VH.detach()
        self._hidden = torch.zeros_like(hidden_NH) if of_hidden else None
        self._sum = torch.zeros(head_VH.shape, dtype=wide(head_VH), device=head_VH.device) if of_head else None
        self._rows = torch.empty(HEAD_ROWS, head_VH.shape[1], dtype=head_VH.dtype, device=head_VH.device) if of_head else None

    def add(self, by_logits_nV: Tensor, hidden_nH: Tensor, tokens: slice) -> None:
        """``by_logits_nV`` in the type of the hidden states, not yet times the scale."""
        if self._bias_sum is not None:
            self._bias_sum.add_(by_logits_nV.sum(0, dtype=self._bias_sum.dtype))
        if self._hidden is not None:
            torch.mm(by_logits_nV, self._head, out=self._hidden[tokens])
        if self._sum is not None and self._rows is not None:
            # In blocks of the vocabulary: the product's block is still in the cache when it is added to the fp32 sum.
            for first in range(0, len(self._sum), HEAD_ROWS):
                block = self._sum[first : first + HEAD_ROWS]
                product = torch.mm(by_logits_nV[:, first : first + len(block)].T, hidden_nH, out=self._rows[: len(block)])
                block.add_(product.to(block.dtype))

    def times(self, factor: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """The gradients times the loss's own and the scale, in the types of hidden states, head and bias."""
        if self._scale != 1.0:
            factor = factor * self._scale
        head = _narrowed(self._sum.mul_(factor), self._head.dtype) if self._sum is not None else None
        bias = self._bias_sum.mul_(factor).to(self._bias.dtype) if self._bias is not None and self._bias_sum is not None else None
        return (self._hidden.mul_(factor) if self._hidden is not None else None), head, bias


def _narrowed(wide_VH: Tensor, dtype: torch.dtype) -> Tensor:
    """``wide_VH`` in ``dtype``, in the memory it already has: a second copy of a head is hundreds of megabytes. Uses it up."""
    if dtype == wide_VH.dtype:
        return wide_VH
    needed = -(-wide_VH.numel() * dtype.itemsize // wide_VH.dtype.itemsize)
    narrow_VH = wide_VH.view(-1)[:needed].view(dtype)[: wide_VH.numel()].view(wide_VH.shape)
    for first in range(0, len(wide_VH), HEAD_ROWS):  # a row is never written where an unread one lies
        narrow_VH[first : first + HEAD_ROWS] = wide_VH[first : first + HEAD_ROWS].to(dtype)
    return narrow_VH
