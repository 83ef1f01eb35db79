"""Who gets which part of the GPUs that there are."""

from __future__ import annotations

import pytest

from sdpo.cluster import placement as placement_module
from sdpo.cluster.gpu_shares import GpuShares, shares_of
from sdpo.cluster.placement import gpu_shares
from sdpo.config import Placement, RolloutConfig
from sdpo.errors import UserError


def shares(
    monkeypatch: pytest.MonkeyPatch,
    num_gpus: int,
    *,
    num_ranks: int = 2,
    num_engines: int = 2,
    width: int = 1,
    staleness: int = 0,
    placement: Placement = Placement.auto,
) -> GpuShares:
    monkeypatch.setattr(placement_module.ray, "cluster_resources", lambda: {"GPU": float(num_gpus)} if num_gpus else {})
    rollout = RolloutConfig(num_engines=num_engines, tensor_parallel_size=width, staleness=staleness)
    found = gpu_shares(num_ranks, rollout, placement)
    assert found == shares_of(num_gpus, num_ranks, rollout, placement), "the plan and the run divide alike"
    return found


def test_without_gpus_nothing_is_reserved_whatever_the_placement(monkeypatch: pytest.MonkeyPatch) -> None:
    for placement in Placement:
        found = shares(monkeypatch, 0, placement=placement)
        assert (found.learner_rank, found.engine, found.are_colocated) == (0.0, 0.0, False)


def test_each_has_its_own_where_there_are_enough_and_a_pair_shares_one_where_not(monkeypatch: pytest.MonkeyPatch) -> None:
    found = shares(monkeypatch, 4)
    assert (found.learner_rank, found.engine, found.are_colocated) == (1.0, 1.0, False)
    found = shares(monkeypatch, 3)
    assert (found.learner_rank, found.engine, found.are_colocated) == (0.5, 0.5, True)
    assert shares(monkeypatch, 6, width=2).engine == 2.0


def test_what_is_asked_for_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shares(monkeypatch, 8, placement=Placement.colocated).are_colocated
    with pytest.raises(UserError, match=r"cluster\.placement=separate"):
        shares(monkeypatch, 3, placement=Placement.separate)


@pytest.mark.parametrize("settings", [{"staleness": 1}, {"width": 2}, {"num_engines": 4}])
def test_what_cannot_share_or_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch, settings: dict[str, int]) -> None:
    with pytest.raises(UserError, match="the cluster must have a GPU for each learner rank"):
        shares(monkeypatch, 3, **settings)  # type: ignore[arg-type]
