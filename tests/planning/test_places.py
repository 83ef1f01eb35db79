"""Where ranks and engines go: teams and engines within a node, pairs on one GPU, and what finds no room."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdpo.errors import UserError
from sdpo.planning.places import Places, Spot, places
from tests.planning.plans import config_of


def placed(nodes: int, gpus: int, ranks: int, engines: int, width: int = 1, *words: str) -> Places:
    config = config_of(*words)
    rollout = replace(config.rollout, num_engines=engines, tensor_parallel_size=width)
    learner = replace(config.learner, num_ranks=ranks)
    return places(replace(config, cluster=replace(config.cluster, nodes=nodes), rollout=rollout, learner=learner), gpus)


def test_ranks_fill_nodes_in_order_and_engines_are_spread_over_what_is_left() -> None:
    found = placed(3, 4, 6, 3, 2)
    assert found.ranks == tuple(Spot(node=rank // 4, gpu=rank % 4) for rank in range(6))
    assert [[(spot.node, spot.gpu) for spot in spots] for spots in found.engines] == [
        [(1, 2), (1, 3)], [(2, 0), (2, 1)], [(2, 2), (2, 3)],
    ]  # fmt: skip
    assert found.learner_nodes == (0, 1)


def test_where_gpus_are_shared_rank_i_and_engine_i_are_a_pair() -> None:
    found = placed(2, 2, 4, 4)
    assert found.shares.are_colocated
    assert [(spot,) for spot in found.ranks] == list(found.engines)


def test_an_engine_that_no_node_has_room_for_is_refused_with_what_is_free() -> None:
    """Nine GPUs are free, enough for two engines of four, but on two nodes: 3 and 6."""
    with pytest.raises(UserError, match=r"tensor_parallel_size=4 GPUs on one node.*node 0: 3, node 1: 2"):
        placed(2, 6, 3, 2, 4)


def test_too_few_gpus_are_refused_in_the_words_of_the_run() -> None:
    with pytest.raises(UserError, match=r"it has 4, and learner\.num_ranks=8"):
        placed(1, 4, 8, 1)


def test_a_team_that_is_parted_is_known() -> None:
    assert placed(2, 3, 4, 1, 1, "learner.num_ranks=4", "learner.sequence_parallel=2").split_teams == ((2, 3),)
    assert placed(2, 4, 4, 1, 1, "learner.num_ranks=4", "learner.sequence_parallel=2").split_teams == ()


def test_without_gpus_everything_is_on_cpus() -> None:
    found = placed(1, 0, 2, 1)
    assert not found.is_gpu
    assert {spot.gpu for spot in found.ranks} == {None}


@given(
    nodes=st.integers(1, 6), gpus=st.integers(1, 8), ranks=st.integers(1, 20), engines=st.integers(1, 12),
    width=st.sampled_from([1, 2, 4]),
)  # fmt: skip
def test_no_gpu_has_two_of_a_kind_and_no_engine_lies_on_two_nodes(
    nodes: int, gpus: int, ranks: int, engines: int, width: int
) -> None:
    try:
        found = placed(nodes, gpus, ranks, engines, width)
    except UserError:
        return
    spots = [spot for spots in found.engines for spot in spots]
    assert len(set(found.ranks)) == len(found.ranks) == ranks
    assert len(set(spots)) == len(spots) == engines * width
    assert all(len({spot.node for spot in of_one}) == 1 for of_one in found.engines)
    assert all(0 <= spot.node < nodes and spot.gpu is not None and 0 <= spot.gpu < gpus for spot in (*found.ranks, *spots))
    if not found.shares.are_colocated:
        assert not set(spots) & set(found.ranks)
