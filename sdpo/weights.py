"""Weights on their way from the learner to the engines: a few flat buckets, each with a table of contents, and a checksum.

A bucket is one object in Ray's shared memory, read without a copy by every engine of a machine. One object a tensor would be
hundreds of calls. One object for all of them would be held twice by whoever packs it.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

# Ray's shared memory is read-only, and so are the views on it, which only copies are made from.
warnings.filterwarnings("ignore", message="The given NumPy array is not writable", category=UserWarning, module=r"sdpo\.weights$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """The name, type, shape and place of a tensor in the buffer."""

    name: str
    dtype: str
    """torch's name of it, e.g. ``bfloat16``."""
    shape: tuple[int, ...]
    offset: int
    num_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedWeights:
    """Some of a model's parameters, in the checkpoint's names."""

    entries: tuple[Entry, ...]
    buffer: np.ndarray[tuple[int], np.dtype[np.uint8]]
    """[bytes]; a numpy array, because Ray shares those without a copy."""

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Views on the buffer; read-only where the buffer is."""
        import torch

        for entry in self.entries:
            raw = torch.from_numpy(self.buffer[entry.offset : entry.offset + entry.num_bytes])
            yield entry.name, raw.view(getattr(torch, entry.dtype)).view(entry.shape)


class Checksum:
    """The checksum of buckets in order: names, types, shapes, and each tensor's sum of its 64-bit words.

    It is computed as fast as memory is read. It finds what goes wrong between processes (a bucket that is missing, twice, of
    another step), not an adversary.
    """

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=8)

    def add(self, bucket: PackedWeights) -> None:
        for entry in bucket.entries:
            words = bucket.buffer[entry.offset : entry.offset + _aligned(entry.num_bytes)].view(np.uint64)
            total = int(np.add.reduce(words, dtype=np.uint64))
            self._hash.update(f"{entry.name} {entry.dtype} {entry.shape} {total}\n".encode())

    def __str__(self) -> str:
        return self._hash.hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightPayload:
    """A whole model's parameters, as an engine gets them."""

    buckets: tuple[object, ...]
    """PackedWeights, or references to them in Ray's object store."""
    checksum: str
    num_bytes: int

    def in_memory(self) -> Iterator[PackedWeights]:
        """The buckets of a payload that never left this process."""
        for bucket in self.buckets:
            assert isinstance(bucket, PackedWeights)
            yield bucket


_ALIGNMENT = 64
"""Bytes; views of any dtype start at a multiple of their size."""


def packed(parameters: Mapping[str, Tensor]) -> PackedWeights:
    """A copy of ``parameters`` in one bucket; tensors may be on any device."""
    import torch

    entries: list[Entry] = []
    offset = 0
    for name, tensor in parameters.items():
        num_bytes = tensor.numel() * tensor.element_size()
        dtype = str(tensor.dtype).removeprefix("torch.")
        entries.append(Entry(name=name, dtype=dtype, shape=tuple(tensor.shape), offset=offset, num_bytes=num_bytes))
        offset += _aligned(num_bytes)
    buffer = np.zeros(offset, dtype=np.uint8)  # the checksum reads what lies between two tensors too
    for entry in entries:
        flat = parameters[entry.name].detach().cpu().contiguous().view(-1).view(torch.uint8)
        torch.from_numpy(buffer[entry.offset : entry.offset + entry.num_bytes]).copy_(flat)
    return PackedWeights(entries=tuple(entries), buffer=buffer)


def buckets(parameters: Iterable[tuple[str, Tensor]], bucket_bytes: int) -> Iterator[PackedWeights]:
    """``parameters`` in order, as they come, in buckets of at most that size; a larger tensor has one to itself."""
    waiting: dict[str, Tensor] = {}
    num_bytes = 0
    for name, tensor in parameters:
        size = _aligned(tensor.numel() * tensor.element_size())
        if waiting and num_bytes + size > bucket_bytes:
            yield packed(waiting)
            waiting, num_bytes = {}, 0
        waiting[name] = tensor
        num_bytes += size
    if waiting:
        yield packed(waiting)


def weight_payload(
    parameters: Iterable[tuple[str, Tensor]], *, bucket_bytes: int = 2**28, put: Callable[[PackedWeights], object] | None = None
) -> WeightPayload:
    """The payload of all ``parameters``. ``put`` stores each bucket as soon as it is full, and returns where;
    None: they stay here."""
    checksum, num_bytes = Checksum(), 0
    places: list[object] = []
    for bucket in buckets(parameters, bucket_bytes):
        checksum.add(bucket)
        num_bytes += len(bucket.buffer)
        places.append(bucket if put is None else put(bucket))
    return WeightPayload(buckets=tuple(places), checksum=str(checksum), num_bytes=num_bytes)


def _aligned(num_bytes: int) -> int:
    return -(-num_bytes // _ALIGNMENT) * _ALIGNMENT
