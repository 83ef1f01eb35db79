"""Who gets which part of the GPUs that Ray has?"""

from __future__ import annotations

import ray

from sdpo.config import Placement, RolloutConfig
from sdpo.shares import GpuShares, shares_of


def gpu_shares(num_ranks: int, rollout: RolloutConfig, placement: Placement) -> GpuShares:
    """Of the GPUs that the cluster has. Raises UserError where they do not suffice."""
    return shares_of(round(float(ray.cluster_resources().get("GPU", 0.0))), num_ranks, rollout, placement)
