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
