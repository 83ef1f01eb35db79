"""A KV cache on the CPU that costs what is used of it.

vLLM 0.30 fills all of it with zeros first. For 2 GiB that is 1.8 s of every start and 2 GiB of memory, most of which a small
model never touches. Fresh pages of an anonymous mapping are zero anyway. vLLM has no hook for this, so ``torch.zeros`` stands for
another function while an engine is made.

It makes an object for every block, too. For a model of 0.1 M parameters 2 GiB are 131,072 blocks, and half of an engine's start.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from vllm.config import VllmConfig

LARGE_BYTES = 64 * 2**20
"""Smaller tensors are as torch makes them."""
_ROOM = 4
"""Times what all rows that run at once can fill. More could only hold prefixes of rows long past."""


def bound(config: VllmConfig) -> None:
    """Take no more cache than ``_ROOM`` times what ``max_num_seqs`` rows of full length need, and never more than asked for."""
    asked = config.cache_config.kv_cache_memory_bytes
    model = config.model_config
    assert asked is not None
    assert isinstance(model.dtype, torch.dtype)
    values = 2 * model.get_total_num_kv_heads() * model.get_head_size() * model.get_total_num_hidden_layers()
    row_bytes = values * torch.finfo(model.dtype).bits // 8 * model.max_model_len
    room = _ROOM * config.scheduler_config.max_num_seqs * row_bytes
    config.cache_config.kv_cache_memory_bytes = min(asked, max(room, LARGE_BYTES))


@contextmanager
def zeroed_when_touched() -> Iterator[None]:
    """Have large zeros on the CPU of one byte an element cost nothing until they are touched, for the length of the block."""
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
