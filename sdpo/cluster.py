"""Where Ray runs: on this machine, or in a cluster that is already there."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import ray
from ray._private import auto_init_hook

from sdpo.config import ClusterConfig, Placement, RolloutConfig
from sdpo.errors import UserError

NUM_STARTS = 3
"""Ray gives its own processes 30 s to start, whatever the machine is busy with; so it is tried again."""


@contextmanager
def connected(config: ClusterConfig) -> Iterator[None]:
    """Ray for the length of the block; what was started here ends with it."""
    auto_init_hook.enable_auto_connect = False  # a thread that asks something after the end must not start another Ray
    on_terminate = signal.getsignal(signal.SIGTERM)
    for trial in range(1, NUM_STARTS + 1):
        try:
            _connect(config)
            break
        except Exception as error:
            ray.shutdown()
            if trial < NUM_STARTS and config.address is None and "timed out" in str(error):
                continue
            raise UserError(
                f"Ray must start here or be reachable at cluster.address={config.address!r}; it was not: {error}. Check the "
                "address, or leave cluster.address=null to start Ray on this machine."
            ) from error
    signal.signal(signal.SIGTERM, on_terminate)  # Ray has put its own in place, which ends without a word
    try:
        yield
    finally:
        ray.shutdown()


def _connect(config: ClusterConfig) -> None:
    if config.address is not None:
        ray.init(address=config.address, log_to_driver=False, logging_level=logging.ERROR)
        return
    ray.init(
        address="local",
        log_to_driver=False,
        logging_level=logging.ERROR,
        include_dashboard=False,
        object_store_memory=round(config.object_store_gib * 2**30),
        _system_config={"worker_niceness": 0},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuShares:
    """What Ray reserves for each process; 0 where the cluster has no GPU and everything runs on CPUs."""

    learner_rank: float
    engine: float

    @property
    def are_colocated(self) -> bool:
        """A rank and an engine share a GPU, so they take turns."""
        return 0.0 < self.learner_rank < 1.0


def gpu_shares(num_ranks: int, rollout: RolloutConfig, placement: Placement) -> GpuShares:
    """A GPU for each learner rank and each engine's slice, or, where there are too few or it is asked for, one for each pair.

    Raises UserError where the cluster's GPUs do not suffice for that.
    """
    total = round(float(ray.cluster_resources().get("GPU", 0.0)))
    width = rollout.tensor_parallel_size
    engine_gpus = rollout.num_engines * width
    if total == 0:
        return GpuShares(learner_rank=0.0, engine=0.0)
    if placement is not Placement.colocated and num_ranks + engine_gpus <= total:
        return GpuShares(learner_rank=1.0, engine=float(width))
    may_share = placement is not Placement.separate and width == 1 and rollout.staleness == 0
    if may_share and max(num_ranks, engine_gpus) <= total:
        return GpuShares(learner_rank=0.5, engine=0.5)
    raise UserError(
        f"the cluster must have a GPU for each learner rank and each slice of an engine, or one for each pair of them (with "
        f"rollout.tensor_parallel_size=1, rollout.staleness=0 and not cluster.placement=separate); it has {total}, and "
        f"learner.num_ranks={num_ranks}, rollout.num_engines={rollout.num_engines} and rollout.tensor_parallel_size={width} ask "
        f"for {num_ranks} + {engine_gpus}, with cluster.placement={placement.value}. Lower one of them."
    )
