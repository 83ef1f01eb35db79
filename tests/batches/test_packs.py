"""Rows to a pack: nothing is lost, nobody sees another row, and what rows begin with is stored once."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sdpo.batches.packs import MIN_SHARED, measure, num_attended_pairs, pack_rows
from sdpo.types import Pack, Packing, Segment
from tests.batches.packs import context, everything, places_of_rows, seen_from

Row = tuple[int, ...]
ids = st.integers(1, 3)
"""So few that rows agree by chance too."""


@st.composite
def families(draw: st.DrawFn) -> list[Row]:
    """Rows that begin alike in all ways: a few beginnings, each prolonged from another, and endings of all lengths."""
    beginnings: list[Row] = [()]
    for _ in range(draw(st.integers(0, 4))):
        beginnings.append(draw(st.sampled_from(beginnings)) + tuple(draw(st.lists(ids, max_size=2 * MIN_SHARED))))
    endings = st.lists(ids, min_size=1, max_size=2 * MIN_SHARED)
    return [draw(st.sampled_from(beginnings)) + tuple(draw(endings)) for _ in range(draw(st.integers(1, 7)))]


def packed(rows: Sequence[Sequence[int]], *, packing: Packing = Packing.packed) -> Pack:
    return pack_rows(rows, everything(rows), packing=packing)


def num_common(a: Sequence[int], b: Sequence[int]) -> int:
    return next((place for place, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def siblings(prompt: int, *responses: int, seed: int = 0) -> list[Row]:
    """One prompt of ``prompt`` tokens and an answer to it of each length in ``responses``; no two answers begin alike."""
    draw = random.Random(seed)
    begins = tuple(draw.randrange(10**6) for _ in range(prompt))
    return [(*begins, row, *(draw.randrange(10**6) for _ in range(num - 1))) for row, num in enumerate(responses)]


@given(rows=families(), packing=st.sampled_from(Packing))
@settings(deadline=None)
def test_every_token_sees_its_rows_beginning_and_nothing_else(rows: list[Row], packing: Packing) -> None:
    pack = packed(rows, packing=packing)
    for row, places in zip(rows, places_of_rows(pack, rows), strict=True):
        for position, place in enumerate(places):
            assert context(pack, place) == row[: position + 1]
            assert seen_from(pack, place) == places[: position + 1]


@given(rows=families(), packing=st.sampled_from(Packing))
@settings(deadline=None)
def test_positions_are_those_in_the_row(rows: list[Row], packing: Packing) -> None:
    pack = packed(rows, packing=packing)
    for places in places_of_rows(pack, rows):
        assert pack.positions_T[places].tolist() == list(range(len(places)))


@given(rows=families(), packing=st.sampled_from(Packing))
@settings(deadline=None)
def test_segments_follow_one_another_and_cover_the_pack(rows: list[Row], packing: Packing) -> None:
    pack = packed(rows, packing=packing)
    assert [segment.first for segment in pack.segments] == [0, *(segment.last for segment in pack.segments[:-1])]
    assert pack.segments[-1].last == len(pack.ids_T) == len(pack.positions_T)
    for index, segment in enumerate(pack.segments):
        assert segment.first < segment.last
        assert all(earlier < index for earlier in segment.before)
        assert list(segment.before) == sorted(set(segment.before))


@given(rows=families(), packing=st.sampled_from(Packing), data=st.data())
@settings(deadline=None)
def test_what_is_asked_for_is_predicted_row_by_row(rows: list[Row], packing: Packing, data: st.DataObject) -> None:
    """Any positions, in any order, and none at all of some rows."""
    asked = [data.draw(st.lists(st.integers(0, len(row) - 1), max_size=4)) for row in rows]
    pack = pack_rows(rows, asked, packing=packing)
    expected = [row[: position + 1] for row, positions in zip(rows, asked, strict=True) for position in positions]
    assert [context(pack, place) for place in pack.predicts_N.tolist()] == expected


@given(rows=families())
@settings(deadline=None)
def test_two_rows_share_what_they_begin_with_but_for_less_than_the_shortest_segment(rows: list[Row]) -> None:
    """Sharing ends where they part, or fewer than MIN_SHARED tokens before that; and a place holds one token."""
    places = places_of_rows(packed(rows), rows)
    for a, places_a in zip(rows, places, strict=True):
        for b, places_b in zip(rows, places, strict=True):
            shared = num_common(places_a, places_b)
            assert num_common(a, b) - MIN_SHARED < shared <= num_common(a, b)
            assert set(places_a[shared:]).isdisjoint(places_b[shared:])


@given(rows=families())
@settings(deadline=None)
def test_sharing_never_costs_a_token_or_a_pair(rows: list[Row]) -> None:
    shared, whole = packed(rows), packed(rows, packing=Packing.joined)
    assert len(shared.ids_T) <= len(whole.ids_T)
    assert num_attended_pairs(shared.segments) <= num_attended_pairs(whole.segments)


@given(rows=families(), packing=st.sampled_from(Packing))
@settings(deadline=None)
def test_attended_pairs_are_those_that_one_counts(rows: list[Row], packing: Packing) -> None:
    pack = packed(rows, packing=packing)
    assert num_attended_pairs(pack.segments) == sum(len(seen_from(pack, place)) for place in range(len(pack.ids_T)))


@pytest.mark.parametrize("prompt", [MIN_SHARED, 20, 300])
def test_siblings_cost_their_prompt_once(prompt: int) -> None:
    pack = packed(siblings(prompt, 1, 5, 12, 30))
    assert len(pack.ids_T) == prompt + 1 + 5 + 12 + 30
    assert pack.segments[0] == Segment(first=0, last=prompt, before=())
    assert [segment.before for segment in pack.segments[1:]] == [(0,)] * 4


def test_families_side_by_side_share_nothing_with_one_another() -> None:
    pack = packed([row for seed in range(3) for row in siblings(10, 4, 6, seed=seed)])
    assert len(pack.ids_T) == 3 * (10 + 4 + 6)
    assert sorted(segment.before for segment in pack.segments) == [(), (), (), (0,), (0,), (3,), (3,), (6,), (6,)]


def test_the_order_of_the_rows_decides_neither_what_is_shared_nor_what_it_costs() -> None:
    rows = [row for seed in range(3) for row in siblings(10, 4, 6, 5, seed=seed)]
    shuffled = random.Random(0).sample(rows, len(rows))
    assert shuffled != rows
    assert len(packed(shuffled).ids_T) == len(packed(rows).ids_T)
    assert num_attended_pairs(packed(shuffled).segments) == num_attended_pairs(packed(rows).segments)


def test_beginnings_within_beginnings_make_a_tree() -> None:
    """A template of 10 tokens, two questions of 9 in it, two answers each."""
    questions = siblings(10, 9, 9)
    rows = [(*question, answer, 7) for question in questions for answer in (1, 2)]
    pack = packed(rows)
    assert len(pack.ids_T) == 10 + 2 * 9 + 4 * 2
    assert [segment.before for segment in pack.segments] == [(), (0,), (0, 1), (0, 1), (0,), (0, 4), (0, 4)]


@pytest.mark.parametrize(("common", "stored"), [(MIN_SHARED - 1, 2 * (MIN_SHARED - 1 + 3)), (MIN_SHARED, MIN_SHARED + 2 * 3)])
def test_a_beginning_is_shared_from_a_length_on(common: int, stored: int) -> None:
    assert len(packed(siblings(common, 3, 3)).ids_T) == stored


@pytest.mark.parametrize("copies", [2, 5])
def test_identical_rows_are_stored_once_and_predicted_as_often_as_there_are(copies: int) -> None:
    (row,) = siblings(10, 5)
    pack = packed([row] * copies)
    assert pack.ids_T.tolist() == list(row)
    assert pack.segments == (Segment(first=0, last=15, before=()),)
    assert pack.predicts_N.tolist() == list(range(15)) * copies


@pytest.mark.parametrize("longer_first", [True, False])
def test_a_row_that_another_begins_with_costs_nothing(longer_first: bool) -> None:
    (row,) = siblings(10, 5)
    rows = [row, row[:12]] if longer_first else [row[:12], row]
    pack = packed(rows)
    assert pack.ids_T.tolist() == list(row)
    assert pack.segments == (Segment(first=0, last=12, before=()), Segment(first=12, last=15, before=(0,)))
    assert places_of_rows(pack, rows) == [list(range(len(one))) for one in rows]


@pytest.mark.parametrize("row", [(5,), (5, 6, 7), tuple(range(100))], ids=len)
def test_a_lone_row_is_its_own_segment(row: Row) -> None:
    pack = packed([row])
    assert pack.ids_T.tolist() == list(row)
    assert pack.segments == (Segment(first=0, last=len(row), before=()),)
    assert num_attended_pairs(pack.segments) == len(row) * (len(row) + 1) // 2


@given(rows=families())
@settings(deadline=None)
def test_without_sharing_every_row_is_stored_whole_and_in_order(rows: list[Row]) -> None:
    pack = packed(rows, packing=Packing.joined)
    assert pack.ids_T.tolist() == [token for row in rows for token in row]
    assert [segment.last - segment.first for segment in pack.segments] == [len(row) for row in rows]
    assert all(segment.before == () for segment in pack.segments)
    assert pack.predicts_N.tolist() == list(range(len(pack.ids_T)))


@given(rows=families())
@settings(deadline=None)
def test_rows_side_by_side_are_padded_at_their_ends_to_the_longest(rows: list[Row]) -> None:
    pack = packed(rows, packing=Packing.whole)
    assert pack.num_rows == len(rows)
    longest = max(map(len, rows))
    assert pack.ids_T.view(len(rows), longest).tolist() == [[*row, *[0] * (longest - len(row))] for row in rows]
    assert pack.positions_T.view(len(rows), longest).tolist() == [list(range(longest))] * len(rows)
    assert measure(rows, Packing.whole).num_tokens == len(rows) * longest


@pytest.mark.parametrize("packing", list(Packing))
def test_no_rows_make_an_empty_pack(packing: Packing) -> None:
    pack = pack_rows([], [], packing=packing)
    assert (len(pack.ids_T), len(pack.positions_T), pack.segments, len(pack.predicts_N)) == (0, 0, (), 0)
    assert num_attended_pairs(pack.segments) == 0


def test_tensors_have_the_types_they_declare() -> None:
    for pack in (packed(siblings(10, 3, 4)), pack_rows([], [])):
        assert {pack.ids_T.dtype, pack.positions_T.dtype, pack.predicts_N.dtype} == {torch.int64}
