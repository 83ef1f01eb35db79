"""How a plain class becomes a Ray actor: one place, because Ray's handles have no static type worth the name."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psutil
import ray
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from sdpo.errors import NodeLost
from sdpo.forkserver import owner as fork_servers
from sdpo.run.logs import began_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """The process of an actor: its id, when it began, and its machine."""

    pid: int
    started: int
    """``sdpo.run.logs.began_at``: an id is given out again."""
    node: str
    """Ray's id of the machine."""


def talk_over_the_clusters_network() -> None:
    """Let this actor's process meet others over the interface at whose address Ray knows this machine.

    Its own sockets would else use what the machine's name resolves to. What the user has set stays.
    """
    address = ray.util.get_node_ip_address()
    os.environ.setdefault("VLLM_HOST_IP", address)
    for interface, entries in psutil.net_if_addrs().items():
        if any(entry.address == address for entry in entries):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
            os.environ.setdefault("NCCL_SOCKET_IFNAME", interface)


def this_process() -> Process:
    return Process(pid=os.getpid(), started=began_at(os.getpid()), node=ray.get_runtime_context().get_node_id())


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorPlacement:
    """A place that is kept for an actor on one of several machines: a bundle of a placement group."""

    group: PlacementGroup
    bundle: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Placements:
    """The places of the processes of one kind."""

    placements: tuple[ActorPlacement | None, ...]
    """One each; None: anywhere."""
    num_threads: int
    """CPU threads for each: a machine's cores, divided by how many of these processes live there."""
    limit_s: float = 0.0
    """Longest wait for a machine that comes back."""

    @classmethod
    def anywhere(cls, num: int, cores: int | None = None) -> Placements:
        """All on a machine of so many ``cores``, or of as many as this process may use."""
        return cls(placements=(None,) * num, num_threads=max(1, (cores or machine_cores()) // max(1, num)))

    def wait_for_room(self) -> None:
        """Return once every placement is on a machine that is there; those of a lost one are moved, if there is room.

        Raises NodeLost where there is none.
        """
        groups = {placement.group.id: placement.group for placement in self.placements if placement is not None}
        if not all(group.wait(math.ceil(self.limit_s)) for group in groups.values()):
            raise NodeLost(
                f"the machines that are left have no room for all ranks of the learner, and none came back within "
                f"cluster.start_timeout_s={self.limit_s:g} s{and_lost_nodes()}"
            )


def is_alive(node: Mapping[str, Any]) -> bool:
    """Whether a machine, as Ray describes it, is there."""
    return bool(node["Alive"])


def node_title(node: Mapping[str, Any]) -> str:
    """Its name, and its address where that is not the name."""
    name, address = str(node["NodeName"]), str(node["NodeManagerAddress"])
    return name if name == address else f"{name} ({address})"


def and_lost_nodes() -> str:
    """The end of a sentence on what died: the machines that are gone, as far as Ray knows. Empty where all are there."""
    with suppress(Exception):  # nor may Ray be there any more
        nodes = ray.nodes()
        present = {str(node["NodeName"]) for node in nodes if is_alive(node)}
        lost = {str(node["NodeName"]): node_title(node) for node in nodes if not is_alive(node)}
        titles = [title for name, title in lost.items() if name not in present]
        if titles:
            return f"; node{'s' if len(titles) > 1 else ''} {', '.join(titles)} {'are' if len(titles) > 1 else 'is'} gone"
    return ""


def start(
    actor_class: type,
    *arguments: object,
    num_gpus: float = 0.0,
    num_threads: int = 1,
    max_concurrency: int = 1,
    placement: ActorPlacement | None = None,
    kind: str | None = None,
) -> Any:
    """A handle on ``actor_class(*arguments)`` in a process of its own, at ``placement`` if it has one; returns at once.

    ``kind`` says which fork server has its imports behind it, where there is one; None: it imports them itself.

    ``num_threads`` are its CPU threads; without them Ray would give it one. Ray does not count them as its resource: engine and
    learner take turns on the same cores. ``max_concurrency``: calls that may run at the same time, each in a thread.
    """
    strategy: str | PlacementGroupSchedulingStrategy = "DEFAULT"
    if placement is not None:
        strategy = PlacementGroupSchedulingStrategy(placement.group, placement_group_bundle_index=placement.bundle)
    return (
        ray.remote(actor_class)
        .options(
            num_cpus=0,
            num_gpus=num_gpus,
            max_concurrency=max_concurrency,
            scheduling_strategy=strategy,
            runtime_env={"env_vars": {"OMP_NUM_THREADS": str(num_threads), **fork_servers.variables(kind)}},
        )
        .remote(*arguments)
    )


def kill(actor: Any, process: Process | None) -> None:
    """End it for certain. Ray asks the process to go, which one that is stopped does not hear; ``process`` is killed besides."""
    with suppress(Exception):  # it may be gone, and so may Ray
        ray.kill(actor, no_restart=True)
    if process is None:
        return
    if process.node == ray.get_runtime_context().get_node_id():
        _kill(process)
    else:
        strategy = NodeAffinitySchedulingStrategy(process.node, soft=False)
        ray.remote(_kill).options(num_cpus=0, scheduling_strategy=strategy).remote(process)


def _kill(process: Process) -> None:
    with suppress(OSError):  # it is gone, or somebody else's
        if began_at(process.pid) == process.started:
            os.kill(process.pid, signal.SIGKILL)


def machine_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))
