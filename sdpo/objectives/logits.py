"""Logits over a vocabulary: where they come from, how they are multiplied out, how many may be alive at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

HEAD_ROWS = 4096
"""Rows of an output embedding that are worked on at once: they stay in the cache."""
SLOPE_ROWS = 16
"""Rows of a chunk whose soft cap is differentiated at once."""
CLOSED = -1e4
"""The logit of an id that its model excludes. Finite, for 0 · -inf is no number; its probability is 0 in fp64 too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadRule:
    """What a model makes of ``product = hidden @ head.T`` before it calls it logits.

    ``soft_cap · tanh(scale · (product + bias) / soft_cap)``, and without a soft cap ``scale · (product + bias)``.
    """

    bias_V: Tensor | None = None
    """[V] of the output layer (Phi), trained like its weight."""
    scale: float = 1.0
    """Cohere multiplies by it, Granite divides by its inverse."""
    soft_cap: float | None = None
    """Logits lie within ± this (Gemma 2, NanoChat)."""
    closed_V: Tensor | None = None
    """[V] bool: ids that the model excludes, such as rows of padding."""

    @property
    def is_plain(self) -> bool:
        """Whether the product is the logits."""
        return self.bias_V is None and self.scale == 1.0 and self.soft_cap is None and self.closed_V is None


PLAIN = HeadRule()


@dataclass(frozen=True, slots=True, kw_only=True)
class Logits:
    """``weight * rule(hidden_NH @ head_VH.T)``; rows of ``head_VH`` beyond the student's vocabulary are left out."""

    hidden_NH: Tensor
    head_VH: Tensor
    weight: float = 1.0
    rule: HeadRule = PLAIN


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What a chunk may take."""

    temperature: float = 1.0
    """The sampling temperature, which logits are divided by."""
    chunk_mib: float = 96.0
    """MiB of one fp32 buffer of logits; there are two, three over the full vocabulary."""

    def chunk_tokens(self, vocabulary: int, item_bytes: int) -> int:
        """At least 1."""
        return max(1, int(self.chunk_mib * 2**20) // (vocabulary * item_bytes))


def wide_product(hidden_nH: Tensor, head_VH: Tensor, out_nV: Tensor) -> None:
    """hidden @ head.T into ``out_nV``, accumulated and left in fp32.

    A logit of 16 rounded to bf16 is off by up to 0.06 nats. Student and teacher often differ by less.
    """
    if hidden_nH.dtype == out_nV.dtype:
        torch.mm(hidden_nH, head_VH.T, out=out_nV)
    elif hidden_nH.is_cuda:
        torch.mm(hidden_nH, head_VH.T, out_dtype=out_nV.dtype, out=out_nV)
    else:  # no such product on the CPU; with fp32 inputs that are bf16 numbers, products of bf16 numbers lose nothing
        matmul = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
        wide_nH, before = hidden_nH.float(), matmul.fp32_precision
        block = torch.empty(HEAD_ROWS, head_VH.shape[1])
        if hidden_nH.dtype == torch.bfloat16:
            matmul.fp32_precision = "bf16"
        try:
            for first in range(0, len(head_VH), HEAD_ROWS):
                rows = head_VH[first : first + HEAD_ROWS]
                torch.mm(wide_nH, block[: len(rows)].copy_(rows).T, out=out_nV[:, first : first + len(rows)])
        finally:
            matmul.fp32_precision = before


def follow(rule: HeadRule, product_nV: Tensor, slopes_CV: Tensor | None = None) -> None:
    """Turn the product into the logits, in place, for the rule's first V ids.

    With a soft cap, ``slopes_CV`` takes its derivative by what is capped.
    """
    vocabulary = product_nV.shape[1]
    if rule.bias_V is not None:
        # A bias of -inf excludes an id as well.
        product_nV.add_(rule.bias_V[:vocabulary].detach().to(product_nV.dtype).clamp(min=CLOSED))
    if rule.soft_cap is None:
        if rule.scale != 1.0:
            product_nV.mul_(rule.scale)
    else:
        product_nV.mul_(rule.scale / rule.soft_cap).tanh_()
        if slopes_CV is not None:
            for first in range(0, len(product_nV), SLOPE_ROWS):
                rows = product_nV[first : first + SLOPE_ROWS]
                slopes_CV[first : first + len(rows)] = 1.0 - rows * rows
        product_nV.mul_(rule.soft_cap)
    if rule.closed_V is not None:
        product_nV.masked_fill_(rule.closed_V[:vocabulary], CLOSED)


def wide(tensor: Tensor) -> torch.dtype:
    """What sums over this tensor are kept in: fp32, or fp64 where that is what came in."""
    return torch.promote_types(tensor.dtype, torch.float32)
