"""Do all machines see the run's folder? Weights, checkpoints and logs are written there by whoever has them."""

from __future__ import annotations

import os
import secrets
import time
from pathlib import Path

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sdpo.cluster.actors import is_alive, node_title
from sdpo.errors import UserError

WAIT_S = 10.0
"""A shared file system may show a new file late."""
ANSWER_S = 120.0


def refuse_unshared(folder: Path) -> None:
    """Raises UserError that names the nodes on which a file that is written into ``folder`` here is not seen."""
    nodes = [node for node in ray.nodes() if is_alive(node)]
    if len(nodes) < 2:
        return
    token = folder / f".seen-{secrets.token_hex(8)}"
    token.write_text(token.name)
    try:
        asked = [
            ray.remote(_sees)
            .options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False))
            .remote(token, token.name)
            for node in nodes
        ]
        blind = [node_title(node) for node, answer in zip(nodes, asked, strict=True) if not _answer(answer)]
    finally:
        token.unlink(missing_ok=True)
    if blind:
        raise UserError(
            f"runs_dir must be on a file system that all nodes share; what is written into {folder} on {os.uname().nodename} was "
            f"not seen on {', '.join(blind)}. Set runs_dir to a shared folder."
        )


def _answer(ref: ray.ObjectRef[bool]) -> bool:
    try:
        return bool(ray.get(ref, timeout=ANSWER_S))
    except (RayError, GetTimeoutError):
        return False


def _sees(token: Path, text: str) -> bool:
    until = time.monotonic() + WAIT_S
    while True:
        try:
            if token.read_text() == text:
                return True
        except OSError:
            pass
        if time.monotonic() > until:
            return False
        time.sleep(0.5)
