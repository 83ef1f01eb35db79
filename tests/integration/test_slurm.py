"""A sweep on a real Slurm: each point a job of two nodes, which goes on where it was when it is put back into the queue."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import Trainer
from tests.integration.slurm import asked, reason_against, slurm

WHY_NOT = reason_against()
pytestmark = [
    pytest.mark.integration,
    pytest.mark.alone,
    pytest.mark.full,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT)),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[dict[str, str]]:
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # its sockets' paths must be short
    try:
        with slurm(folder) as environment:
            yield environment
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def submit(trainer: Trainer, cluster: dict[str, str], *words: str) -> list[str]:
    """Numbers of the jobs."""
    every = [word for word in trainer.words("evaluation.num_tasks=0") if not word.startswith(("name=", "cluster.address"))]
    done = subprocess.run(
        [sys.executable, "-m", "sdpo.cli", "train", "-m", "hydra/launcher=slurm", "cluster=slurm", *every, *words],
        env=cluster,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return re.findall(r": job (\d+), log ", done.stdout)


def wait_for(happened: object, cluster: dict[str, str], trainer: Trainer, timeout_s: float = 300.0) -> None:
    until = time.monotonic() + timeout_s
    assert callable(happened)
    while not happened():
        assert time.monotonic() < until, asked(cluster, "scontrol", "show", "job") + output(trainer) + trainer.logs()
        time.sleep(0.2)


def output(trainer: Trainer) -> str:
    return "".join(log.read_text(errors="replace") for log in trainer.runs.glob("*/logs/slurm-*.log"))


def test_a_job_of_two_nodes_that_is_requeued_midway_goes_on_to_its_end(trainer: Trainer, cluster: dict[str, str]) -> None:
    (job,) = submit(
        trainer, cluster, "cluster.nodes=2", "cluster.object_store_gib=0.3", "num_steps=6", "name=run", "checkpoint.keep=9"
    )
    checkpoints = trainer.runs / "run" / "checkpoints"
    wait_for((checkpoints / "step_000002").exists, cluster, trainer)
    assert asked(cluster, "squeue", "-h", "-j", job, "-o", "%T %D") == "RUNNING 2"
    subprocess.run(["scontrol", "requeue", job], env=cluster, check=True)
    subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], env=cluster, check=False)  # else in two minutes
    wait_for((checkpoints / "step_000006").exists, cluster, trainer, timeout_s=400.0)
    wait_for(lambda: "COMPLETED" in asked(cluster, "scontrol", "show", "job", job), cluster, trainer)
    told = output(trainer)
    assert re.search(r"continuing after step [2-5]", told), told
    assert told.count("node n2: joined n1") == 2, told
    assert "Restarts=1" in asked(cluster, "scontrol", "show", "job", job)
    assert [row["step"] for row in trainer.rows()] == list(range(1, 7))


def test_each_point_is_a_job_and_one_that_is_asked_to_stop_comes_back(trainer: Trainer, cluster: dict[str, str]) -> None:
    words = ("cluster.object_store_gib=0.3", "seed=1,2", "num_steps=4", "checkpoint.keep=9")
    jobs = submit(trainer, cluster, *words)
    folders = [next(trainer.runs.glob(f"*-s{seed}")) for seed in (1, 2)]
    wait_for((folders[0] / "checkpoints" / "step_000001").exists, cluster, trainer)
    subprocess.run(["scancel", "--signal=USR1", jobs[0]], env=cluster, check=True)
    wait_for(lambda: "Restarts=1" in asked(cluster, "scontrol", "show", "job", jobs[0]), cluster, trainer)
    subprocess.run(["scontrol", "update", f"JobId={jobs[0]}", "StartTime=now"], env=cluster, check=False)
    for folder in folders:
        wait_for((folder / "checkpoints" / "step_000004").exists, cluster, trainer, timeout_s=400.0)
    assert "after a checkpoint; the same command continues" in output(trainer)
