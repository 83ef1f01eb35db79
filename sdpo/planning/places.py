"""Which learner rank and which engine is on which node and GPU?

Ranks fill nodes in order, so that neighbours, and teams that share rows, are on one node as far as that goes. Engines are spread
over what is left. Each is whole on a node, since its slices talk in every layer. Where GPUs are shared, rank i and engine i share
GPU i. Ray is asked for the same shares, and numbers nodes in its own order.
"""

from __future__ import annotations

from dataclasses import dataclass

from sdpo.cluster.gpu_shares import GpuShares, shares_of
from sdpo.config import Config
from sdpo.errors import UserError


@dataclass(frozen=True, slots=True, kw_only=True)
class Spot:
    """A GPU of a node."""

    node: int
    gpu: int | None
    """None: the node's CPU."""

    def __str__(self) -> str:
        return f"node {self.node}" + ("" if self.gpu is None else f" GPU {self.gpu}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """The node and GPU of every learner rank and engine of a run."""

    num_nodes: int
    gpus_per_node: int
    shares: GpuShares
    ranks: tuple[Spot, ...]
    engines: tuple[tuple[Spot, ...], ...]
    """The GPUs that each engine spans."""
    teams: tuple[tuple[int, ...], ...]
    """Ranks that share rows."""

    @property
    def is_gpu(self) -> bool:
        return self.gpus_per_node > 0

    @property
    def learner_nodes(self) -> tuple[int, ...]:
        return tuple(sorted({spot.node for spot in self.ranks}))

    @property
    def split_teams(self) -> tuple[tuple[int, ...], ...]:
        """Those whose ranks are on different nodes."""
        return tuple(team for team in self.teams if len({self.ranks[rank].node for rank in team}) > 1)


def places(config: Config, gpus_per_node: int) -> Places:
    """Give every rank and engine its place. Raises UserError where there are too few GPUs, or no node has room for an engine."""
    num_nodes, rollout, num_ranks = config.cluster.nodes, config.rollout, config.learner.num_ranks
    shares = shares_of(num_nodes * gpus_per_node, num_ranks, rollout, config.cluster.placement)
    engines: tuple[tuple[Spot, ...], ...]
    if gpus_per_node == 0:
        ranks = tuple(Spot(node=rank % num_nodes, gpu=None) for rank in range(num_ranks))
        engines = tuple((Spot(node=index % num_nodes, gpu=None),) for index in range(rollout.num_engines))
    else:
        every = [Spot(node=node, gpu=gpu) for node in range(num_nodes) for gpu in range(gpus_per_node)]
        ranks = tuple(every[:num_ranks])
        if shares.are_colocated:
            engines = tuple((spot,) for spot in every[: rollout.num_engines])
        else:
            engines = _spread(every[num_ranks:], config, gpus_per_node)
    size = config.learner.sequence_parallel
    teams = tuple(tuple(range(first, first + size)) for first in range(0, num_ranks, size))
    return Places(num_nodes=num_nodes, gpus_per_node=gpus_per_node, shares=shares, ranks=ranks, engines=engines, teams=teams)


def _spread(free: list[Spot], config: Config, gpus_per_node: int) -> tuple[tuple[Spot, ...], ...]:
    """Each to a node that has room for all of it, and among those to one with the fewest engines."""
    width, placed = config.rollout.tensor_parallel_size, list[tuple[Spot, ...]]()
    room = {node: [spot for spot in free if spot.node == node] for node in range(config.cluster.nodes)}
    for _ in range(config.rollout.num_engines):
        able = [node for node, spots in room.items() if len(spots) >= width]
        if not able:
            left = ", ".join(f"node {node}: {len(spots)}" for node, spots in room.items() if spots)
            raise UserError(
                f"an engine must have all its rollout.tensor_parallel_size={width} GPUs on one node, because its slices talk in "
                f"every layer; engine {len(placed)} of rollout.num_engines={config.rollout.num_engines} finds no node with so "
                f"many free (cluster.gpus_per_node={gpus_per_node}; still free: {left or 'none'}). Lower "
                "rollout.tensor_parallel_size or rollout.num_engines, or choose learner.num_ranks so that whole nodes are left."
            )
        chosen = min(able, key=lambda node: sum(spots[0].node == node for spots in placed))
        placed.append(tuple(room[chosen][:width]))
        room[chosen] = room[chosen][width:]
    return tuple(placed)
