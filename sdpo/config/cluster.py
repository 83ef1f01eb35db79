"""The Ray cluster: the machines it runs on, how many they are, and who gets which part of them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from sdpo.config.rules import at_least, positive


class AllocationKind(Enum):
    """Who gave the machines on which the run itself brings Ray up."""

    none = "none"
    """Nobody: it is this machine, or a cluster that is there."""
    slurm = "slurm"
    """Slurm: the command runs once on each node of the job, under ``srun``."""


class Placement(Enum):
    """Which GPUs learner and engines get."""

    auto = "auto"
    """``separate`` where there are enough GPUs, else ``colocated``."""
    separate = "separate"
    """Each rank and each engine has GPUs of its own."""
    colocated = "colocated"
    """A rank and an engine share a GPU; the engine gives its memory back while the learner works."""


@dataclass
class ClusterConfig:
    """The Ray cluster of a run."""

    address: str | None = None
    """None: start Ray; else join this cluster (``auto`` finds a running one)."""
    allocation: AllocationKind = AllocationKind.none
    nodes: int = 1
    """Machines, each with a Ray node; a run begins once all are there."""
    gpus_per_node: int | None = None
    """None: those that are found, and none that Slurm is asked for."""
    cpus_per_node: int | None = None
    """CPU cores of each machine; None: those that are found, and none that Slurm is asked for. They are
    shared out among the ranks, and among the engines, of a machine."""
    interface: str | None = None
    """Network interface over which the nodes of an allocation talk; None: the one on the route from node to node."""
    start_timeout_s: float = 300.0
    """Longest that machines wait for one another, and for a lost one to come back where the others have no room."""
    placement: Placement = Placement.auto
    """Whether learner and engines share GPUs: ``separate``, ``colocated``, or ``auto``, which looks at how many there are."""
    stall_report_s: float = 300.0
    """Without progress for that long, who waits for whom is reported, with the stacks of every process in the logs."""
    object_store_gib: float | None = 2.0
    """Ray's shared memory on each machine, GiB; None: 30 % of the memory, within what is free in /dev/shm. It holds two copies of
    the model: the weights that the engines serve, for one that is restarted, and those on their way to them."""
    spill_dir: str | None = None
    """Folder in which the nodes of an allocation put what the shared memory does not hold; None: Ray's temporary folder."""

    def __post_init__(self) -> None:
        at_least("cluster.nodes", self.nodes, 1, "a run needs a machine")
        if self.address is not None and self.allocation is not AllocationKind.none:
            raise ValueError(
                f"cluster.allocation={self.allocation.value} brings up a Ray of its own, so cluster.address must be null; got "
                f"{self.address!r}. Leave one of them out."
            )
        if self.nodes > 1 and self.address is None and self.allocation is AllocationKind.none:
            raise ValueError(
                f"cluster.nodes must be 1 on this machine alone; got {self.nodes}. Add cluster=slurm in a job of that many "
                "nodes, or cluster=ray to join a cluster that has them."
            )
        for key, value in (("gpus_per_node", self.gpus_per_node), ("cpus_per_node", self.cpus_per_node)):
            if value is not None:
                at_least(f"cluster.{key}", value, 0 if key == "gpus_per_node" else 1, "null takes what is there")
        if self.object_store_gib is not None:
            positive("cluster.object_store_gib", self.object_store_gib)
        positive("cluster.start_timeout_s", self.start_timeout_s)
        positive("cluster.stall_report_s", self.stall_report_s)
