"""Sums over the rows of a pack."""

from __future__ import annotations

import torch
from torch import Tensor


def sum_by_row(values_N: Tensor, rows_N: Tensor) -> Tensor:
    """[N] where each token holds its row's sum. ``rows_N`` int64, each row's tokens carry the same number."""
    if rows_N.numel() == 0:
        return values_N
    totals = torch.zeros(int(rows_N.max()) + 1, dtype=values_N.dtype, device=values_N.device)
    return totals.index_add(0, rows_N, values_N)[rows_N]


def future_by_row(values_N: Tensor, rows_N: Tensor, discount: float) -> Tensor:
    """[N] Σ_{s>t} discount^(s-t) values_s over the later tokens s of token t's row, in the order in which the N stand.

    By doubling: the sums over 1, 2, 4, ... tokens from each on, without a product over a response's length that would underflow.
    """
    order_N = rows_N.argsort(stable=True)
    rows_N, sums_N = rows_N[order_N], values_N[order_N]
    nothing = torch.zeros_like(sums_N)
    reach = 1
    while reach < len(sums_N):
        is_same = rows_N[reach:] == rows_N[:-reach]
        sums_N = sums_N + torch.cat([torch.where(is_same, discount**reach * sums_N[reach:], 0.0), nothing[:reach]])
        reach *= 2
    after_N = torch.cat([torch.where(rows_N[1:] == rows_N[:-1], discount * sums_N[1:], 0.0), nothing[:1]])
    return torch.empty_like(after_N).index_copy(0, order_N, after_N)
