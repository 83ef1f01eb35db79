"""Where Ray runs: on this machine, or in a cluster that is already there."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray._private import auto_init_hook

from sdpo.config import ClusterConfig, Placement, RolloutConfig
from sdpo.errors import UserError
from sdpo.shares import GpuShares, shares_of

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


def gpu_shares(num_ranks: int, rollout: RolloutConfig, placement: Placement) -> GpuShares:
    """Of the GPUs that the cluster has. Raises UserError where they do not suffice."""
    return shares_of(round(float(ray.cluster_resources().get("GPU", 0.0))), num_ranks, rollout, placement)
