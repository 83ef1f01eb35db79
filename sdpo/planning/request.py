"""What was asked of ``sdpo plan``: the config that ``sdpo train`` would run, the machine, and the words of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from sdpo.config import Config
from sdpo.config.compose import train_config
from sdpo.errors import UserError
from sdpo.planning.gpu_plan import Machine
from sdpo.planning.scale import Network

GPU_GIB = 80.0
"""GiB of a GPU where nothing is said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRequest:
    """A plan to be made."""

    config: Config
    machine: Machine
    network: Network
    scale: str | None
    """Source of the times of the phases; None: nothing is said of how the run scales."""


_OWN = ("gpu_gib", "host_gib", "scale", "network_gb_s", "latency_us")


def plan_request(words: Sequence[str], root: Path = Path("/")) -> PlanRequest:
    """Raises UserError for a key that does not exist or a value that no machine has. ``root``: of the file system that tells
    which GPUs there are."""
    own, others = _own(words)
    joins = _says_where(others)
    config = train_config(others if joins else _as_joined(others))
    gpus = gpus_per_node(config, root)
    if not joins and gpus == 0 and config.cluster.nodes == 1:
        config = train_config(others)
    on_cpu = psutil.virtual_memory().total / 2**30 if gpus == 0 and config.cluster.nodes == 1 else None
    host = _positive("host_gib", own["host_gib"]) if "host_gib" in own else on_cpu
    network = Network(
        bytes_per_s=_positive("network_gb_s", own.get("network_gb_s", "50" if gpus else "1.25")) * 1e9,
        latency_s=_positive("latency_us", own.get("latency_us", "20")) * 1e-6,
    )
    machine = Machine(
        gpus_per_node=gpus,
        gpu_gib=_positive("gpu_gib", own["gpu_gib"]) if "gpu_gib" in own else GPU_GIB,
        host_gib=host,
        joins_cluster=joins,
    )
    return PlanRequest(config=config, machine=machine, network=network, scale=own.get("scale"))


def _says_where(words: Sequence[str]) -> bool:
    """Whether the run joins a cluster."""
    return any(word in ("cluster=ray", "cluster=kubernetes") or word.startswith("cluster.address=") for word in words)


def _as_joined(words: Sequence[str]) -> list[str]:
    """Types are chosen as on the machines of the run, which this one may not be: as where a cluster is joined."""
    store = ["cluster.object_store_gib=null"] if "cluster=slurm" in words else []  # as that group has it, where nothing is said
    return ["cluster.address=auto", *store, *(word for word in words if not word.startswith(("cluster=", "cluster.allocation=")))]


def _own(words: Sequence[str]) -> tuple[Mapping[str, str], list[str]]:
    """The plan's own words, and those of ``sdpo train``."""
    own, others = dict[str, str](), []
    for word in words:
        key, equals, value = word.partition("=")
        if key not in _OWN:
            others.append(word)
        elif not equals or key in own:
            raise UserError(f"{key} is given once, as {key}=VALUE; got {' '.join(words)!r}.")
        else:
            own[key] = value
    return own, others


def _positive(key: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0 < value < 1e9:
        raise UserError(f"{key} must be a number above 0; got {text[:80]!r}.")
    return value


def gpus_per_node(config: Config, root: Path = Path("/")) -> int:
    """Those that were asked for, or that this machine has. Raises UserError for a number that cannot be."""
    asked = config.cluster.gpus_per_node
    if asked is None:
        return sum(device.name.removeprefix("nvidia").isdigit() for device in (root / "dev").glob("nvidia*"))
    if asked < 0:
        raise UserError(f"cluster.gpus_per_node must be at least 0; got {asked}.")
    return asked
