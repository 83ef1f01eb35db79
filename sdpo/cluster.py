"""Where Ray runs: on this machine, or in a cluster that is already there."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import ray
from ray._private import auto_init_hook

from sdpo.config import ClusterConfig
from sdpo.errors import UserError


@contextmanager
def connected(config: ClusterConfig) -> Iterator[None]:
    """Ray for the length of the block; what was started here ends with it."""
    auto_init_hook.enable_auto_connect = False  # a thread that asks something after the end must not start another Ray
    on_terminate = signal.getsignal(signal.SIGTERM)
    try:
        if config.address is None:
            ray.init(
                address="local",
                log_to_driver=False,
                logging_level=logging.ERROR,
                include_dashboard=False,
                object_store_memory=round(config.object_store_gib * 2**30),
                _system_config={"worker_niceness": 0},
            )
        else:
            ray.init(address=config.address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, PermissionError, ValueError, RuntimeError) as error:
        raise UserError(
            f"Ray must start here or be reachable at cluster.address={config.address!r}; it was not: {error}. Check the "
            "address, or leave cluster.address=null to start Ray on this machine."
        ) from error
    signal.signal(signal.SIGTERM, on_terminate)  # Ray has put its own in place, which ends without a word
    try:
        yield
    finally:
        ray.shutdown()


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuShares:
    """What Ray reserves for each process; 0 where the cluster has no GPU and everything runs on CPUs."""

    learner_rank: float
    engine: float


def gpu_shares(num_ranks: int, num_engines: int, tensor_parallel_size: int) -> GpuShares:
    """A GPU for each learner rank and each engine's slice; where there are too few, a rank and an engine share one.

    Raises UserError where the cluster's GPUs do not even suffice for that.
    """
    total = round(float(ray.cluster_resources().get("GPU", 0.0)))
    engine_gpus = num_engines * tensor_parallel_size
    if total == 0:
        return GpuShares(learner_rank=0.0, engine=0.0)
    if num_ranks + engine_gpus <= total:
        return GpuShares(learner_rank=1.0, engine=float(tensor_parallel_size))
    if tensor_parallel_size == 1 and max(num_ranks, engine_gpus) <= total:
        return GpuShares(learner_rank=0.5, engine=0.5)
    raise UserError(
        f"the cluster must have a GPU for each learner rank and each slice of an engine, or one for each pair of them; it has "
        f"{total}, and learner.num_ranks={num_ranks}, rollout.num_engines={num_engines} and "
        f"rollout.tensor_parallel_size={tensor_parallel_size} ask for {num_ranks} + {engine_gpus}. Lower one of them."
    )
