"""Where Ray begins and ends."""

from __future__ import annotations

import pytest
import ray

from sdpo.cluster.connection import connected
from sdpo.config import ClusterConfig

pytestmark = pytest.mark.integration


def test_who_asks_after_the_end_does_not_start_another_ray() -> None:
    """By itself Ray would: a thread that was left behind brought up a cluster of its own while the process ended."""
    with connected(ClusterConfig(object_store_gib=0.1)):
        assert ray.get(ray.put(1)) == 1
    with pytest.raises(Exception, match="not been started"):
        ray.put(1)
    assert not ray.is_initialized()
