"""What is Slurm asked for, for each point of a sweep?"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class SlurmLauncherConfig:
    """``sdpo train -m hydra/launcher=slurm``; nodes, GPUs and cores are those of ``cluster``."""

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    time: str | None = None
    """Time limit, as sbatch takes it; what is not through by then is requeued and goes on."""
    memory: str | None = None
    """Memory of a node, as sbatch takes it."""
    stop_s: int = 300
    """So long before the time limit the run is asked to stop: more than a step and a checkpoint take."""
    sbatch: list[str] = field(default_factory=list)
    """More options of sbatch."""
    srun: list[str] = field(default_factory=list)
    """More options of srun, such as a container's."""
    setup: list[str] = field(default_factory=list)
    """Lines of shell before srun, such as ``module load cuda``."""
    program: list[str] = field(default_factory=list)
    """What is started on every node; empty: this Python's ``-P -m sdpo.cli``, which the nodes must find at the same path."""
