"""A KV cache on the CPU whose memory is taken as it is used: vLLM 0.30 fills all of it with zeros first.

For 2 GiB that is 1.8 s of every start and 2 GiB of memory, most of which a small model never touches. Fresh pages of an anonymous
mapping are zero anyway. vLLM has no hook for this, so ``torch.zeros`` stands for another function while an engine is made.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

LARGE_BYTES = 64 * 2**20
"""Smaller tensors are as torch makes them."""


@contextmanager
def zeroed_when_touched() -> Iterator[None]:
    """For the length of the block, large zeros on the CPU of one byte an element cost nothing until they are touched."""
    zeros = torch.zeros

    def lazy(*size: Any, dtype: torch.dtype | None = None, device: Any = None, **others: Any) -> Tensor:
        shape = size[0] if len(size) == 1 and not isinstance(size[0], int) else size
        is_whole = dtype in (torch.int8, torch.uint8) and torch.device(device or "cpu").type == "cpu" and not others
        if not is_whole or not shape or math.prod(shape) < LARGE_BYTES:
            return zeros(*size, dtype=dtype, device=device, **others)
        return torch.frombuffer(mmap.mmap(-1, math.prod(shape)), dtype=dtype or torch.int8).view(*shape)

    torch.zeros = lazy
    try:
        yield
    finally:
        torch.zeros = zeros
