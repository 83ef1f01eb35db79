"""Where Ray runs: on this machine, or in a cluster that is already there."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from sdpo.config import ClusterConfig
from sdpo.errors import UserError


@contextmanager
def connected(config: ClusterConfig) -> Iterator[None]:
    """Ray for the length of the block; what was started here ends with it."""
    try:
        if config.address is None:
            ray.init(
                log_to_driver=False,
                logging_level=logging.ERROR,
                include_dashboard=False,
                object_store_memory=round(config.object_store_gib * 2**30),
                _system_config={"worker_niceness": 0},
            )
        else:
            ray.init(address=config.address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UserError(
            f"Ray must start here or be reachable at cluster.address={config.address!r}; it was not: {error}. Check the "
            "address, or leave cluster.address=null to start Ray on this machine."
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def has_gpus() -> bool:
    """Whether the cluster offers GPUs."""
    return float(ray.cluster_resources().get("GPU", 0.0)) > 0.0
