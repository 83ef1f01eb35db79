"""The state that a rank writes, and how any number of ranks read it back.

``rank-00000.safetensors`` holds the rank's random state. For each stretch of a parameter that the rank masters it holds the fp32
master weights, moments and average, under the key ``KIND/START/NAME``. A reader takes what lies in its own stretches from all
ranks' files. So the number of ranks and the ZeRO stage may differ. (DeepSpeed's own universal checkpoint would be a conversion
after each save, and knows no average.) The parameters in the compute type are not among it: they are the master weights, rounded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from sdpo.errors import UserError
from sdpo.learner.shards import Piece, Shards
from sdpo.learner.teacher import Average

MOMENTS = ("exp_avg", "exp_avg_sq")
_RANDOM = "random"


class _Stretch(NamedTuple):
    start: int
    numel: int
    file: Path
    key: str


def save(folder: Path, rank: int, shards: Shards, average: Average | None) -> str:
    """Write this rank's file into ``folder``; returns its name."""
    tensors = {_RANDOM: torch.get_rng_state()}
    for piece in shards.pieces if rank == 0 or not shards.are_replicas else ():
        for kind, flat in _kinds(shards, average, piece.flat).items():
            stretch = flat.detach().reshape(-1).narrow(0, piece.offset, piece.numel)
            tensors[f"{kind}/{piece.start}/{piece.name}"] = stretch.to("cpu").contiguous()
    save_file(tensors, folder / _name(rank))
    return _name(rank)


def restore(folder: Path, rank: int, shards: Shards, average: Average | None, num_updates: int) -> None:
    """Set this rank to what is in ``folder``. Raises UserError, before anything is changed, where that is of another model."""
    index = _index(folder)
    kinds = ["master", *(MOMENTS if num_updates > 0 else ()), *(["average"] if average is not None else [])]
    _check(folder, index, kinds, shards.sizes)
    for number in {piece.flat for piece in shards.pieces}:
        if num_updates > 0:
            _make_moments(shards, number, num_updates)
        else:
            shards.moments(number).clear()  # of updates that are taken back; the optimizer makes them anew
    for piece in shards.pieces:
        for kind, flat in _kinds(shards, average, piece.flat).items():
            _fill(flat.detach().view(-1).narrow(0, piece.offset, piece.numel), kind, piece, index)
    shards.publish()
    if average is not None:
        average.publish()
    mine = folder / _name(rank)
    if mine.is_file():  # else a rank that was not there before, with the random state it began with
        with safe_open(mine, framework="pt") as file:
            torch.set_rng_state(file.get_tensor(_RANDOM))


def _name(rank: int) -> str:
    return f"rank-{rank:05d}.safetensors"


def _kinds(shards: Shards, average: Average | None, flat: int) -> dict[str, Tensor]:
    """The flat tensors that are kept, by kind. The moments are missing before the first update."""
    moments = shards.moments(flat)
    kinds = {"master": shards.flats[flat], **{name: moments[name] for name in MOMENTS if name in moments}}
    return kinds if average is None else {**kinds, "average": average.flats[flat]}


def _make_moments(shards: Shards, flat: int, num_updates: int) -> None:
    """As torch's fused AdamW makes them in its first step."""
    moments, like = shards.moments(flat), shards.of_optimizer(flat)
    for name in MOMENTS:
        moments[name] = torch.zeros_like(like)
    moments["step"] = torch.tensor(float(num_updates), dtype=torch.float32, device=like.device)


def _index(folder: Path) -> dict[tuple[str, str], list[_Stretch]]:
    """By kind and parameter: what the files hold of it."""
    found: dict[tuple[str, str], list[_Stretch]] = {}
    for path in sorted(folder.glob("rank-*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 - no mapping
                if key != _RANDOM:
                    kind, start, name = key.split("/", 2)
                    numel = file.get_slice(key).get_shape()[0]
                    found.setdefault((kind, name), []).append(_Stretch(int(start), numel, path, key))
    return found


def _check(folder: Path, index: Mapping[tuple[str, str], list[_Stretch]], kinds: Sequence[str], sizes: Mapping[str, int]) -> None:
    """That the files hold each of the parameters whole and once, and no others."""

    def refuse(found: str) -> NoReturn:
        raise UserError(
            f"a checkpoint must hold every trained parameter of the model whole, and no others; {folder} {found}. Does a "
            "rank's file lack, or is it of another model, algorithm.teacher or learner.lora?"
        )

    for kind in kinds:
        for name, size in sizes.items():
            end = 0
            for stretch in sorted(index.get((kind, name), []), key=lambda stretch: stretch.start):
                if stretch.start != end:
                    break
                end += stretch.numel
            held = sum(stretch.numel for stretch in index.get((kind, name), []))
            if not end == held == size:
                refuse(f"has {held:,} elements of the {kind} of {name}, which has {size:,}")
        others = sorted({name for of_kind, name in index if of_kind == kind} - sizes.keys())
        if others:
            refuse(f"has the {kind} of {others[0]} as well, which this model does not train")


def _fill(target: Tensor, kind: str, piece: Piece, index: Mapping[tuple[str, str], list[_Stretch]]) -> None:
    """Fill a stretch from those that overlap it."""
    first, last = piece.start, piece.start + piece.numel
    for stretch in index[kind, piece.name]:
        begin, end = max(first, stretch.start), min(last, stretch.start + stretch.numel)
        if begin < end:
            with safe_open(stretch.file, framework="pt") as file:
                target[begin - first : end - first] = file.get_slice(stretch.key)[begin - stretch.start : end - stretch.start]


def whole(folder: Path, kind: str, shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """The parameters of ``shapes`` that the files have some of, fp32. Raises UserError where it is not all of one."""
    index = _index(folder)
    sizes = {name: shape.numel() for name, shape in shapes.items() if (kind, name) in index}
    _check(folder, index, [kind] if sizes else [], sizes)
    found = {}
    for name, size in sizes.items():
        found[name] = torch.empty(size)
        _fill(found[name], kind, Piece(name=name, start=0, flat=0, offset=0, numel=size), index)
        found[name] = found[name].view(shapes[name])
    return found
