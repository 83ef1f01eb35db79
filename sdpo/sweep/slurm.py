"""The points of a sweep as Slurm jobs: what sbatch is asked, and the script that runs on a job's first node.

``srun`` starts the command on every node (``cluster/part.py``). A run is asked to stop when its time is nearly over or its
nodes are wanted. It then ends with a checkpoint and 128 + the signal. The script puts the job back into the queue, where the same
command goes on (``resume=auto``). ``launch/slurm/train.sbatch`` is the same by hand.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sdpo.config import AllocationKind, Config, SlurmLauncherConfig
from sdpo.envs.children import own_module
from sdpo.errors import UserError, without_credentials
from sdpo.sweep.names import Point

SUBMIT_S = 120.0
REQUEUE = """\
code=$?
if [ $code -eq 138 ] || [ $code -eq 143 ]; then  # stopped by SIGUSR1 or SIGTERM, after a checkpoint
  scontrol requeue "$SLURM_JOB_ID"
fi
exit $code
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One point, ready to be submitted."""

    name: str
    log: Path
    options: tuple[str, ...]
    """Options of sbatch."""
    script: str


def job(point: Point, config: Config, launcher: SlurmLauncherConfig) -> Job:
    """The Slurm job of a point. Raises UserError where the run would not use the nodes that it is given."""
    cluster = config.cluster
    if cluster.address is None and cluster.allocation is not AllocationKind.slurm:
        raise UserError(
            "hydra/launcher=slurm submits jobs of cluster.nodes nodes, and cluster=local would not use what Slurm gives. Add "
            "cluster=slurm."
        )
    log = Path(config.runs_dir).absolute() / point.name / "logs" / "slurm-%j.log"
    asked = {
        "job-name": f"sdpo-{point.name}",
        "nodes": str(cluster.nodes),
        "ntasks-per-node": "1",
        "cpus-per-task": None if cluster.cpus_per_node is None else str(cluster.cpus_per_node),
        "gpus-per-node": str(cluster.gpus_per_node) if cluster.gpus_per_node else None,
        "mem": launcher.memory,
        "partition": launcher.partition,
        "account": launcher.account,
        "qos": launcher.qos,
        "time": launcher.time,
        "signal": f"TERM@{launcher.stop_s}",
        "output": f"{str(log.parent).replace('%', '%%')}/{log.name}",
        "open-mode": "append",
    }
    options = (*(f"--{key}={value}" for key, value in asked.items() if value is not None), "--requeue", *launcher.sbatch)
    return Job(name=point.name, log=log, options=options, script=_script(point, config, launcher))


def _script(point: Point, config: Config, launcher: SlurmLauncherConfig) -> str:
    cores = config.cluster.cpus_per_node
    program = launcher.program or own_module("sdpo.cli")
    options = [*([] if cores is None else [f"--cpus-per-task={cores}"]), *launcher.srun]  # srun does not take that from sbatch
    command = shlex.join(["srun", *options, *program, "train", *point.words])
    return "\n".join(["#!/bin/bash", *launcher.setup, command, REQUEUE])


def shown(job: Job) -> str:
    """The command and script of a job, for somebody who wants to see it before it is submitted; without passwords in addresses.

    No line of the script is its end.
    """
    end, lines = "END", set(job.script.splitlines())
    while end in lines:
        end += "_"
    return without_credentials(f"{shlex.join(['sbatch', *job.options])} <<'{end}'\n{job.script}{end}")


def submit(jobs: Sequence[Job], say: Callable[[str], None]) -> int:
    """Submit the jobs. Returns 0 where Slurm took every one, else 1."""
    codes = []
    for one in jobs:
        one.log.parent.mkdir(parents=True, exist_ok=True)  # Slurm does not make it, and fails the job
        number, why = _submitted(one)
        submitted = f"job {number}, log {str(one.log).replace('%j', str(number))}"
        say(f"{one.name}: " + (f"not submitted: {why}" if number is None else submitted))
        codes.append(number is None)
    return int(any(codes))


def _submitted(job: Job) -> tuple[str | None, str]:
    """Its number, or None and why not."""
    try:
        command = ["sbatch", "--parsable", *job.options]
        done = subprocess.run(command, input=job.script, capture_output=True, text=True, timeout=SUBMIT_S, check=False)
    except FileNotFoundError as error:
        raise UserError(
            "hydra/launcher=slurm submits with sbatch, which is not on this machine's PATH. Submit from a machine that is part "
            "of the Slurm cluster, or leave hydra/launcher away to run the points here."
        ) from error
    except subprocess.TimeoutExpired:
        return None, f"sbatch did not answer within {SUBMIT_S:g} s"
    if done.returncode:
        return None, " ".join(done.stderr.split()) or f"sbatch ended with code {done.returncode}"
    return done.stdout.strip().partition(";")[0], ""
