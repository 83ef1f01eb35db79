"""What a pack says, read the slow way: which tokens each one sees. For the tests of whatever makes packs or computes on them."""

from __future__ import annotations

from collections.abc import Sequence

from sdpo.types import Pack


def seen_from(pack: Pack, place: int) -> list[int]:
    """The places in the pack that the token at ``place`` sees, in order, itself included."""
    (own,) = [segment for segment in pack.segments if segment.first <= place < segment.last]
    earlier = [pack.segments[index] for index in own.before]
    return [p for segment in earlier for p in range(segment.first, segment.last)] + list(range(own.first, place + 1))


def context(pack: Pack, place: int) -> tuple[int, ...]:
    """The token ids that the token at ``place`` sees, itself included."""
    return tuple(int(pack.ids_T[p]) for p in seen_from(pack, place))


def everything(rows: Sequence[Sequence[int]]) -> list[range]:
    """``predicts`` for every position of every row."""
    return [range(len(row)) for row in rows]


def places_of_rows(pack: Pack, rows: Sequence[Sequence[int]]) -> list[list[int]]:
    """Where each row's tokens lie in a pack of ``rows`` that predicts ``everything``."""
    places = iter(pack.predicts_N.tolist())
    return [[next(places) for _ in row] for row in rows]
