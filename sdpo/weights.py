"""Weights on their way from the learner to the engines: one flat buffer and a table of contents.

One buffer is one object in Ray's shared memory, read without a copy by every engine of a machine; a tensor each would be
hundreds of calls.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Where a tensor lies in the buffer."""

    name: str
    dtype: str
    """torch's name of it, e.g. ``bfloat16``."""
    shape: tuple[int, ...]
    offset: int
    num_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedWeights:
    """A whole model's parameters, in the checkpoint's names."""

    entries: tuple[Entry, ...]
    buffer: np.ndarray[tuple[int], np.dtype[np.uint8]]
    """[bytes]; a numpy array, because Ray shares those without a copy."""

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Views on the buffer; read-only where the buffer is."""
        for entry in self.entries:
            raw = torch.from_numpy(self.buffer[entry.offset : entry.offset + entry.num_bytes])
            yield entry.name, raw.view(getattr(torch, entry.dtype)).view(entry.shape)


_ALIGNMENT = 64
"""Bytes; views of any dtype start at a multiple of their size."""


def packed(parameters: Mapping[str, Tensor]) -> PackedWeights:
    """A copy of ``parameters``, packed; tensors may be on any device."""
    entries: list[Entry] = []
    offset = 0
    for name, tensor in parameters.items():
        num_bytes = tensor.numel() * tensor.element_size()
        dtype = str(tensor.dtype).removeprefix("torch.")
        entries.append(Entry(name=name, dtype=dtype, shape=tuple(tensor.shape), offset=offset, num_bytes=num_bytes))
        offset += -(-num_bytes // _ALIGNMENT) * _ALIGNMENT
    buffer = np.empty(offset, dtype=np.uint8)
    for entry in entries:
        flat = parameters[entry.name].detach().cpu().contiguous().view(-1).view(torch.uint8)
        torch.from_numpy(buffer[entry.offset : entry.offset + entry.num_bytes]).copy_(flat)
    return PackedWeights(entries=tuple(entries), buffer=buffer)
