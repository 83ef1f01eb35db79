"""Rows of tokens to a pack: end to end, without padding, each shared beginning once; or side by side, for models that need it.

Siblings answer one prompt, and often under one hindsight prompt; what they share is a tree, whose root every row of the group
sees. Computed once, it costs once, and its gradient is the sum over the rows: the same mathematics at a fraction of the price.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from sdpo.types import Pack, Packing, Segment

if TYPE_CHECKING:
    from torch import Tensor

MIN_SHARED = 8
"""Shorter beginnings are not worth a segment of their own."""
PADDING = 0
"""Id that rows side by side are padded with. Nothing sees it: it comes after their own tokens."""


def pack_rows(rows: Sequence[Sequence[int]], predicts: Sequence[Sequence[int]], *, packing: Packing = Packing.packed) -> Pack:
    """``rows`` of token ids in one pack. ``predicts[b]`` are the positions in row b whose hidden states are asked for."""
    import torch

    tree = _grown(rows, packing)
    ids = [torch.tensor(tree.rows[node.row][node.start : node.end], dtype=torch.int64) for node in tree.nodes]
    positions = [torch.arange(node.start, node.end) for node in tree.nodes]
    places = [torch.arange(segment.first, segment.last) for segment in tree.segments]
    asked = [
        torch.cat([places[segment] for segment in path])[torch.tensor(list(of_row), dtype=torch.int64)]
        for path, of_row in zip(tree.paths, predicts, strict=True)
    ]
    return Pack(
        ids_T=_joined(ids),
        positions_T=_joined(positions),
        segments=tuple(tree.segments),
        predicts_N=_joined(asked),
        num_rows=max(len(rows), 1) if packing is Packing.whole else 1,
        has_borders=packing is Packing.joined,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """What a pack costs."""

    num_tokens: int
    num_pairs: int
    """Pairs of a token and one that it sees."""


def measure(rows: Sequence[Sequence[int]], packing: Packing = Packing.packed) -> Size:
    """The size of the pack that ``pack_rows`` would make."""
    segments = _grown(rows, packing).segments
    return Size(num_tokens=segments[-1].last if segments else 0, num_pairs=num_attended_pairs(segments))


def num_attended_pairs(segments: Sequence[Segment]) -> int:
    """Pairs of a token and one that it sees: what attention costs."""
    lengths = [segment.last - segment.first for segment in segments]
    return sum(
        lengths[index] * sum(lengths[b] for b in segment.before) + lengths[index] * (lengths[index] + 1) // 2
        for index, segment in enumerate(segments)
    )


def _joined(parts: Sequence[Tensor]) -> Tensor:
    import torch

    return torch.cat(list(parts)) if parts else torch.zeros(0, dtype=torch.int64)


def _num_shared(rows: Sequence[tuple[int, ...]]) -> int:
    """How many tokens all rows begin with: those that the first and the last in lexical order do."""
    low, high = min(rows), max(rows)
    return next((place for place, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))


def why_it_takes_longer(packing: Packing) -> str | None:
    """A sentence for the user about what is not computed once for several rows; None where all that can be is."""
    match packing:
        case Packing.packed:
            return None
        case Packing.joined:
            lie = "each row is computed with all its tokens, and layers are told where it ends"
        case Packing.whole:
            lie = "rows are computed side by side, padded"
    return (
        f"the model has layers that mix neighbouring tokens, so {lie} (learner.packing={packing.value}): prompts that rows share "
        "are computed once a row, and an update takes longer"
    )


def _grown(rows: Sequence[Sequence[int]], packing: Packing) -> _Tree:
    if packing is Packing.whole:
        longest = max(map(len, rows), default=0)
        rows = [(*row, *[PADDING] * (longest - len(row))) for row in rows]
    tree = _Tree(rows)
    if rows and packing is Packing.packed:
        tree.grow(range(len(rows)), 0, ())
    elif rows:
        for row in range(len(rows)):
            tree.add([row], 0, len(rows[row]), ())
    return tree


class _Node(NamedTuple):
    """The tokens of a segment: those of a row, from ``start`` to ``end``."""

    row: int
    start: int
    end: int


class _Tree:
    """A pack in the making."""

    def __init__(self, rows: Sequence[Sequence[int]]) -> None:
        self.rows = [tuple(row) for row in rows]
        self.nodes: list[_Node] = []
        self.segments: list[Segment] = []
        self.paths: list[list[int]] = [[] for _ in rows]
        """The segments that make up each row."""

    def grow(self, rows: Iterable[int], start: int, before: tuple[int, ...]) -> None:
        """Add what ``rows``, which agree up to ``start``, hold from there on."""
        members = list(rows)
        shared = _num_shared([self.rows[row][start:] for row in members])
        if len(members) == 1 or shared >= MIN_SHARED:
            before = self.add(members, start, start + shared, before)
            start += shared
            members = [row for row in members if len(self.rows[row]) > start]
        # Rows that go on alike are kept together; those that agree in too little to share go on alone.
        for _, alike in groupby(sorted(members, key=lambda row: self.rows[row][start:]), key=lambda row: self._head(row, start)):
            together = list(alike)
            if len(together) > 1 and _num_shared([self.rows[row][start:] for row in together]) >= MIN_SHARED:
                self.grow(together, start, before)
            else:
                for row in together:
                    self.add([row], start, len(self.rows[row]), before)

    def add(self, rows: Sequence[int], start: int, end: int, before: tuple[int, ...]) -> tuple[int, ...]:
        """A segment with the tokens ``start`` to ``end`` of ``rows``; what the tokens after it see."""
        first = self.segments[-1].last if self.segments else 0
        self.nodes.append(_Node(rows[0], start, end))
        self.segments.append(Segment(first=first, last=first + end - start, before=before))
        for row in rows:
            self.paths[row].append(len(self.segments) - 1)
        return (*before, len(self.segments) - 1)

    def _head(self, row: int, start: int) -> tuple[int, ...]:
        return self.rows[row][start : start + MIN_SHARED]
