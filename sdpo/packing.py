"""Rows of tokens to a pack: end to end, without padding, each shared beginning once.

Siblings answer one prompt, and often under one hindsight prompt; what they share is a tree, whose root every row of the group
sees. Computed once, it costs once, and its gradient is the sum over the rows: the same mathematics at a fraction of the price.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

import torch

from sdpo.types import Pack, Segment

MIN_SHARED = 8
"""Shorter beginnings are not worth a segment of their own."""


def pack_rows(rows: Sequence[Sequence[int]], predicts: Sequence[Sequence[int]], *, share: bool = True) -> Pack:
    """``rows`` of token ids in one pack. ``predicts[b]`` are the positions in row b whose hidden states are asked for.

    ``share=False`` stores every row whole.
    """
    tree = _Tree(rows)
    if rows and share:
        tree.grow(range(len(rows)), 0, ())
    elif rows:
        for row in range(len(rows)):
            tree.add([row], 0, len(rows[row]), ())
    where = [[place for first, last in places for place in range(first, last)] for places in tree.places]
    return Pack(
        ids_T=torch.tensor(tree.ids, dtype=torch.int64),
        positions_T=torch.tensor(tree.positions, dtype=torch.int64),
        segments=tuple(tree.segments),
        predicts_N=torch.tensor([where[b][p] for b, asked in enumerate(predicts) for p in asked], dtype=torch.int64),
    )


def num_attended_pairs(pack: Pack) -> int:
    """Pairs of a token and one that it sees: what attention costs."""
    lengths = [segment.last - segment.first for segment in pack.segments]
    return sum(
        lengths[index] * sum(lengths[b] for b in segment.before) + lengths[index] * (lengths[index] + 1) // 2
        for index, segment in enumerate(pack.segments)
    )


def _num_shared(rows: Sequence[tuple[int, ...]]) -> int:
    """How many tokens all rows begin with: those that the first and the last in lexical order do."""
    low, high = min(rows), max(rows)
    return next((place for place, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))


class _Tree:
    """A pack in the making."""

    def __init__(self, rows: Sequence[Sequence[int]]) -> None:
        self._rows = [tuple(row) for row in rows]
        self.ids: list[int] = []
        self.positions: list[int] = []
        self.segments: list[Segment] = []
        self.places: list[list[tuple[int, int]]] = [[] for _ in rows]
        """Of each row: the ranges of the pack that make it up."""

    def grow(self, rows: Iterable[int], start: int, before: tuple[int, ...]) -> None:
        """Add what ``rows``, which agree up to ``start``, hold from there on."""
        members = list(rows)
        shared = _num_shared([self._rows[row][start:] for row in members])
        if len(members) == 1 or shared >= MIN_SHARED:
            before = self.add(members, start, start + shared, before)
            start += shared
            members = [row for row in members if len(self._rows[row]) > start]
        # Rows that go on alike are kept together; those that agree in too little to share go on alone.
        for _, alike in groupby(sorted(members, key=lambda row: self._rows[row][start:]), key=lambda row: self._head(row, start)):
            together = list(alike)
            if len(together) > 1 and _num_shared([self._rows[row][start:] for row in together]) >= MIN_SHARED:
                self.grow(together, start, before)
            else:
                for row in together:
                    self.add([row], start, len(self._rows[row]), before)

    def add(self, rows: Sequence[int], start: int, end: int, before: tuple[int, ...]) -> tuple[int, ...]:
        """A segment with the tokens ``start`` to ``end`` of ``rows``; what the tokens after it see."""
        first = len(self.ids)
        self.ids.extend(self._rows[rows[0]][start:end])
        self.positions.extend(range(start, end))
        self.segments.append(Segment(first=first, last=len(self.ids), before=before))
        for row in rows:
            self.places[row].append((first, len(self.ids)))
        return (*before, len(self.segments) - 1)

    def _head(self, row: int, start: int) -> tuple[int, ...]:
        return self._rows[row][start : start + MIN_SHARED]
