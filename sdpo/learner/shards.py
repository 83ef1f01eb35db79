"""Which stretch of which parameter does this rank hold in fp32, and where?

DeepSpeed keeps the fp32 master weights of a rank as flat tensors, laid out differently by each of its optimizers. The teacher's
average follows these flats element by element. A checkpoint names every stretch by its parameter and its place in it. So any
number of ranks under any ZeRO stage can pick up what it needs. The attributes of DeepSpeed's optimizers are read directly, since
it has no interface for it; the version is pinned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, distributed, nn


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A stretch of a parameter that this rank holds."""

    name: str
    start: int
    """Place of its first element in the flattened parameter."""
    flat: int
    """Which of the rank's flat tensors it lies in."""
    offset: int
    """Place of its first element in that flat tensor."""
    numel: int


class Shards(Protocol):
    """This rank's master weights."""

    @property
    def flats(self) -> Sequence[Tensor]:
        """fp32, as the optimizer holds them, padding included."""
        ...

    @property
    def pieces(self) -> Sequence[Piece]:
        """The pieces of every trained parameter that lie on this rank."""
        ...

    @property
    def sizes(self) -> Mapping[str, int]:
        """How many elements every trained parameter has, on all ranks together."""
        ...

    @property
    def are_replicas(self) -> bool:
        """Whether every rank holds all of every parameter."""
        ...

    def of_optimizer(self, flat: int) -> Tensor:
        """The tensor that the optimizer steps, of the same elements."""
        ...

    def moments(self, flat: int) -> dict[str, Any]:
        """The optimizer's state of a flat tensor; empty before its first step."""
        ...

    def publish(self) -> None:
        """Set the parameters, in the compute type and on all ranks, to the master weights."""
        ...

    def publish_to(self, ema_copy: Sequence[nn.Parameter], flats: Sequence[Tensor]) -> None:
        """Set ``ema_copy``, a parameter for each trained one in their order, to ``flats``, laid out as the master weights."""
        ...


def shards_of(optimizer: Any, trained: dict[str, nn.Parameter]) -> Shards:
    """For the optimizer that ``deepspeed.initialize`` returned over the parameters ``trained``."""
    kind = type(optimizer).__name__
    if kind == "BF16_Optimizer":
        return _FlatShards(
            optimizer,
            trained,
            optimizer.fp32_groups_flat_partition,
            optimizer.bf16_groups_flat,
            optimizer.bf16_partitioned_groups,
        )
    if kind == "DeepSpeedZeroOptimizer":
        return _FlatShards(
            optimizer,
            trained,
            optimizer.single_partition_of_fp32_groups,
            optimizer.bit16_groups_flat,
            optimizer.parallel_partitioned_bit16_groups,
        )
    if kind == "DeepSpeedZeroOptimizer_Stage3":
        return _PartitionedShards(optimizer, trained)
    assert isinstance(optimizer, torch.optim.Optimizer), f"an optimizer of DeepSpeed's that nobody has looked at: {kind}"
    return _WholeShards(optimizer, trained)


class _WholeShards:
    """No ZeRO: the parameters are their own master weights."""

    are_replicas = True

    def __init__(self, optimizer: torch.optim.Optimizer, trained: dict[str, nn.Parameter]) -> None:
        self._optimizer, self._trained = optimizer, list(trained.values())
        self.flats = [parameter.detach().view(-1) for parameter in self._trained]
        self.sizes = {name: parameter.numel() for name, parameter in trained.items()}
        self.pieces = [
            Piece(name=name, start=0, flat=index, offset=0, numel=parameter.numel())
            for index, (name, parameter) in enumerate(trained.items())
        ]

    def of_optimizer(self, flat: int) -> Tensor:
        return self._trained[flat]

    def moments(self, flat: int) -> dict[str, Any]:
        state: dict[str, Any] = self._optimizer.state[self._trained[flat]]
        return state

    def publish(self) -> None:
        """They are the parameters."""

    @torch.no_grad()
    def publish_to(self, ema_copy: Sequence[nn.Parameter], flats: Sequence[Tensor]) -> None:
        for parameter, flat in zip(ema_copy, flats, strict=True):
            parameter.copy_(flat.view_as(parameter))


class _FlatShards:
    """ZeRO 1 and 2, and bf16 without ZeRO: each group of parameters is one flat tensor, of which every rank masters a part."""

    are_replicas = False

    def __init__(
        self,
        optimizer: Any,
        trained: dict[str, nn.Parameter],
        masters: Sequence[Tensor],
        wholes: Sequence[Tensor],
        parts: Sequence[Sequence[Tensor]],
    ) -> None:
        self._optimizer, self.flats, self._wholes, self._parts = optimizer, masters, wholes, parts
        self._trained = list(trained.values())
        self.sizes = {name: parameter.numel() for name, parameter in trained.items()}
        # A parameter is a view of its group's flat tensor: where it lies is where its memory does.
        begins = [(whole.data_ptr(), whole.data_ptr() + whole.nbytes) for whole in wholes]
        self._places: list[tuple[int, int]] = []
        pieces = []
        for name, parameter in trained.items():
            group = next(i for i, (first, last) in enumerate(begins) if first <= parameter.data_ptr() < last)
            place = (parameter.data_ptr() - begins[group][0]) // parameter.element_size()
            self._places.append((group, place))
            held = masters[group].numel()
            first, last = _rank() * held, (_rank() + 1) * held
            begin, end = max(place, first), min(place + parameter.numel(), last)
            if begin < end:
                pieces.append(Piece(name=name, start=begin - place, flat=group, offset=begin - first, numel=end - begin))
        self.pieces = pieces

    def of_optimizer(self, flat: int) -> Tensor:
        return self.flats[flat]

    def moments(self, flat: int) -> dict[str, Any]:
        state: dict[str, Any] = self._optimizer.optimizer.state[self.flats[flat]]
        return state

    @torch.no_grad()
    def publish(self) -> None:
        for whole, parts, master in zip(self._wholes, self._parts, self.flats, strict=True):
            parts[_rank()].copy_(master)
            _share(whole, parts[_rank()])

    @torch.no_grad()
    def publish_to(self, ema_copy: Sequence[nn.Parameter], flats: Sequence[Tensor]) -> None:
        for group, (whole, flat) in enumerate(zip(self._wholes, flats, strict=True)):
            gathered = torch.empty_like(whole)
            part = gathered.narrow(0, _rank() * flat.numel(), flat.numel())
            part.copy_(flat)
            _share(gathered, part)
            for parameter, (of_group, place) in zip(ema_copy, self._places, strict=True):
                if of_group == group:
                    parameter.copy_(gathered.narrow(0, place, parameter.numel()).view_as(parameter))


class _PartitionedShards:
    """ZeRO 3: every parameter is cut into as many parts as there are ranks, the last one padded."""

    are_replicas = False

    def __init__(self, optimizer: Any, trained: dict[str, nn.Parameter]) -> None:
        self._optimizer = optimizer
        self.flats: list[Tensor] = optimizer.fp32_partitioned_groups_flat
        self._names = {id(parameter): name for name, parameter in trained.items()}
        self._trained = trained
        self.sizes = {name: int(parameter.ds_numel) for name, parameter in trained.items()}  # type: ignore[attr-defined]
        pieces = []
        for flat, group in enumerate(optimizer.fp16_groups):
            offset = 0
            for parameter in group:
                start = _rank() * parameter.partition_numel()
                numel = min(parameter.partition_numel(), parameter.ds_numel - start)
                if numel > 0:
                    name = self._names[id(parameter)]
                    pieces.append(Piece(name=name, start=start, flat=flat, offset=offset, numel=numel))
                offset += parameter.partition_numel()
        self.pieces = pieces

    def of_optimizer(self, flat: int) -> Tensor:
        return self.flats[flat]

    def moments(self, flat: int) -> dict[str, Any]:
        state: dict[str, Any] = self._optimizer.optimizer.state[self.flats[flat]]
        return state

    @torch.no_grad()
    def publish(self) -> None:
        for parts, master in zip(self._optimizer.fp16_partitioned_groups_flat, self.flats, strict=True):
            parts.copy_(master)

    @torch.no_grad()
    def publish_to(self, ema_copy: Sequence[nn.Parameter], flats: Sequence[Tensor]) -> None:
        of_name = dict(zip(self._trained, ema_copy, strict=True))
        for piece in self.pieces:
            part: Tensor = of_name[piece.name].ds_tensor  # type: ignore[attr-defined]
            part.data.narrow(0, 0, piece.numel).copy_(flats[piece.flat].narrow(0, piece.offset, piece.numel))


def _share(whole: Tensor, mine: Tensor) -> None:
    """Fill ``whole`` with every rank's part."""
    if distributed.get_world_size() > 1:
        distributed.all_gather_single(whole, mine.clone())


def _rank() -> int:
    return distributed.get_rank()
