"""What all tests of a session share, because it is dear: processes with every import behind them, and one Ray.

The session's first process starts them; pytest-xdist's workers find them through the environment. They end with that process,
however it ends.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from sdpo.cluster.local_node import LocalNode
from sdpo.config import ClusterConfig
from sdpo.forkserver.owner import fork_servers
from sdpo.forkserver.server import USUAL

RAY = "SDPO_TEST_RAY"
"""The environment variable with the address of the session's Ray."""
COMMAND = "command"
"""The kind of the server that forks ``sdpo``'s commands."""


@contextmanager
def shared_processes() -> Iterator[None]:
    with fork_servers((*USUAL, COMMAND)):
        node = LocalNode(ClusterConfig(object_store_gib=2.0, cpus_per_node=2, gpus_per_node=0))
        try:
            os.environ[RAY] = node.address()
            yield
        finally:
            node.stop()
