"""Which part of a GPU does each process of a run get, of the GPUs that there are? Pure: asked by the run and by `sdpo plan`."""

from __future__ import annotations

from dataclasses import dataclass

from sdpo.config import Placement, RolloutConfig
from sdpo.errors import UserError


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuShares:
    """What Ray reserves for each process; 0 where the cluster has no GPU and everything runs on CPUs."""

    learner_rank: float
    engine: float

    @property
    def are_colocated(self) -> bool:
        """A rank and an engine share a GPU, so they take turns."""
        return 0.0 < self.learner_rank < 1.0


def shares_of(num_gpus: int, num_ranks: int, rollout: RolloutConfig, placement: Placement) -> GpuShares:
    """A GPU for each learner rank and each engine's slice, or, where there are too few or it is asked for, one for each pair.

    Raises UserError where ``num_gpus`` do not suffice for that.
    """
    width = rollout.tensor_parallel_size
    engine_gpus = rollout.num_engines * width
    if num_gpus == 0:
        return GpuShares(learner_rank=0.0, engine=0.0)
    if placement is not Placement.colocated and num_ranks + engine_gpus <= num_gpus:
        return GpuShares(learner_rank=1.0, engine=float(width))
    may_share = placement is not Placement.separate and width == 1 and rollout.staleness == 0
    if may_share and max(num_ranks, engine_gpus) <= num_gpus:
        return GpuShares(learner_rank=0.5, engine=0.5)
    raise UserError(
        f"the cluster must have a GPU for each learner rank and each slice of an engine, or one for each pair of them (with "
        f"rollout.tensor_parallel_size=1, rollout.staleness=0 and not cluster.placement=separate); it has {num_gpus}, and "
        f"learner.num_ranks={num_ranks}, rollout.num_engines={rollout.num_engines} and rollout.tensor_parallel_size={width} ask "
        f"for {num_ranks} + {engine_gpus}, with cluster.placement={placement.value}. Lower one of them."
    )
