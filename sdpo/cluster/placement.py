"""Which machine does each rank and each engine live on, where there are several?

With GPUs, ranks fill one machine after the other (PACK: their collectives stay inside), and engines go to different ones
(SPREAD). An engine that spans several GPUs has them on one machine, because they are one bundle. A rank and an engine that share
a GPU share a bundle. Without GPUs both are spread, because what there is to share out is the cores of every machine. On a single
machine nothing is reserved.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import ray
from ray.util.placement_group import PlacementGroup, placement_group

from sdpo.cluster.actors import ActorPlacement, Placements, is_alive, machine_cores
from sdpo.cluster.gpu_shares import GpuShares, shares_of
from sdpo.config import ClusterConfig, Placement, RolloutConfig
from sdpo.errors import UserError

_A_CORE = 0.01
"""Share of a core that is reserved so that there is a bundle at all: ranks and engines take turns on the same cores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlacement:
    """The places of the ranks and of the engines."""

    ranks: Placements
    engines: Placements


def placed(config: ClusterConfig, num_ranks: int, rollout: RolloutConfig, shares: GpuShares) -> RunPlacement:
    """Place ranks and engines, by placement groups where there are several machines. Raises UserError where they have no room."""
    num_nodes = sum(is_alive(node) for node in ray.nodes())
    cores, limit_s = config.cpus_per_node or machine_cores(), config.start_timeout_s
    num_engines = rollout.num_engines
    if num_nodes < 2:
        return RunPlacement(ranks=Placements.anywhere(num_ranks, cores), engines=Placements.anywhere(num_engines, cores))
    if shares.are_colocated:
        both = _reserved([{"GPU": 1.0}] * max(num_ranks, num_engines), "PACK", limit_s)
        ranks = engines = both
    elif shares.engine > 0.0:
        ranks = _reserved([{"GPU": 1.0}] * num_ranks, "PACK", limit_s)
        engines = _reserved([{"GPU": shares.engine}] * num_engines, "SPREAD", limit_s)
    else:
        ranks = _reserved([{"CPU": _A_CORE}] * num_ranks, "SPREAD", limit_s)
        engines = _reserved([{"CPU": _A_CORE}] * num_engines, "SPREAD", limit_s)
    return RunPlacement(
        ranks=_placements(ranks, num_ranks, cores, limit_s), engines=_placements(engines, num_engines, cores, limit_s)
    )


def gpu_shares(num_ranks: int, rollout: RolloutConfig, placement: Placement) -> GpuShares:
    """The shares of the GPUs that Ray has. Raises UserError where they do not suffice."""
    return shares_of(round(float(ray.cluster_resources().get("GPU", 0.0))), num_ranks, rollout, placement)


def _reserved(bundles: list[dict[str, float]], strategy: str, limit_s: float) -> PlacementGroup | None:
    """A placement group that has its place; None where nothing is asked for. Raises UserError where there is no room."""
    if not bundles:
        return None
    group: PlacementGroup = placement_group(bundles, strategy=strategy)
    if not group.wait(math.ceil(limit_s)):
        there = [node for node in ray.nodes() if is_alive(node)]
        machines = ", ".join(f"{node['NodeName']} with {node['Resources'].get('GPU', 0):g}" for node in there)
        raise UserError(
            f"the GPUs of the cluster must hold {len(bundles)} parts of {bundles[0].get('GPU', 0):g}, each on one machine; there "
            f"are {machines}. Lower learner.num_ranks, rollout.num_engines or rollout.tensor_parallel_size, or add machines."
        )
    return group


def _placements(group: PlacementGroup | None, num: int, cores: int, limit_s: float) -> Placements:
    if group is None:
        return Placements.anywhere(num, cores)
    nodes = list(ray.util.placement_group_table(group)["bundles_to_node_id"].values())[:num]
    most = max(nodes.count(node) for node in nodes)
    return Placements(
        placements=tuple(ActorPlacement(group=group, bundle=index) for index in range(num)),
        num_threads=max(1, cores // most),
        limit_s=limit_s,
    )
