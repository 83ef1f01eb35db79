"""A run over two machines learns what it would on one, and outlives one of them or says which is gone.

The machines are network namespaces of this one, with an address each.
"""

from __future__ import annotations

import glob
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from sdpo.run.logs import processes
from tests.integration.conftest import Trainer, comparable
from tests.integration.network import Machines, machines, raylet, reason_against

WHY_NOT = reason_against()
pytestmark = [
    pytest.mark.integration,
    pytest.mark.alone,
    pytest.mark.full,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT)),
]
EITHER = ("evaluation.num_tasks=0", "learner.num_ranks=2", "rollout.num_engines=2", "num_steps=2", "checkpoint.keep=9")
TWO = (
    "cluster=slurm",
    "cluster.nodes=2",
    "cluster.cpus_per_node=1",
    "cluster.object_store_gib=0.3",
    "cluster.start_timeout_s=180",
)
"""A core each, so that a rank and an engine have as many threads as on the one machine."""


@pytest.fixture(scope="module")
def two() -> Iterator[Machines]:
    with machines() as found:
        yield found


@pytest.fixture(scope="module")
def on_one(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    trainer = Trainer(model=tiny_model, runs=tmp_path_factory.mktemp("one") / "runs")
    trainer.run(trainer.words(*EITHER, "learner.zero_stage=2", "cluster.cpus_per_node=2"))
    return trainer


class Run:
    """The command on both machines."""

    def __init__(self, trainer: Trainer, two: Machines, job: int, *words: str) -> None:
        self.trainer, self.job = trainer, job
        every = [word for word in trainer.words(*EITHER, *words) if not word.startswith("cluster.address")]
        self.processes = [two.start(index, [*every, *TWO], job=job) for index in (1, 0)][::-1]

    def folder(self, index: int) -> str:
        """How the path of Ray's temporary one begins."""
        return f"{tempfile.gettempdir()}/sdpo-{self.job}-0-0-{index}-"

    def wait_for_file(self, name: str, timeout_s: float = 300.0) -> None:
        until = time.monotonic() + timeout_s
        while not (self.trainer.runs / "run" / name).exists():
            assert self.processes[0].poll() is None, self.ended(timeout_s=30.0)
            assert time.monotonic() < until, f"{name} was not written"
            time.sleep(0.05)

    def ended(self, timeout_s: float = 400.0) -> tuple[list[int], list[str]]:
        """Exit codes and outputs; neither may hang."""
        until = time.monotonic() + timeout_s
        try:
            outputs = [process.communicate(timeout=max(1.0, until - time.monotonic()))[0] for process in self.processes]
        except subprocess.TimeoutExpired:
            for process in self.processes:
                os.killpg(process.pid, 9)
            raise
        assert not self._left(), self._left()
        return [process.returncode for process in self.processes], outputs

    def _left(self) -> list[psutil.Process]:
        """Processes of either machine's Ray that outlived it."""
        until = time.monotonic() + 20.0
        while left := [
            process
            for process in psutil.process_iter(["cmdline"])
            if any(self.folder(index) in word for word in process.info["cmdline"] or [] for index in (0, 1))
        ]:
            if time.monotonic() > until:
                break
            time.sleep(0.2)
        return left


@pytest.mark.parametrize("stage", [2, 3])
def test_two_machines_learn_what_one_does(stage: int, trainer: Trainer, two: Machines, on_one: Trainer) -> None:
    run = Run(trainer, two, 100 + stage, f"learner.zero_stage={stage}")
    run.wait_for_file("checkpoints/step_000001")
    pids = {Path(os.readlink(f"/proc/{pid}/fd/1")).stem: pid for pid in processes(trainer.runs / "run" / "logs")}
    for kind in ("learner", "engine"):
        assert {two.of(pids[f"{kind}-{index}"]) for index in (0, 1)} == {0, 1}, kind
    codes, outputs = run.ended()
    assert codes == [0, 0], outputs[0] + outputs[1] + trainer.logs()
    assert f"node {two.address(1)}: joined {two.address(0)}" in outputs[1]
    found, wanted = [comparable(row) for row in trainer.rows()], [comparable(row) for row in on_one.rows()]
    assert [row["loss"] for row in found] == pytest.approx([row["loss"] for row in wanted], rel=1e-4)
    if stage == 2:
        assert found == wanted
    assert not [folder for index in (0, 1) for folder in glob.glob(f"{run.folder(index)}*")]


def test_a_machine_whose_ray_is_killed_in_a_step_joins_again_and_the_run_goes_on(trainer: Trainer, two: Machines) -> None:
    run = Run(trainer, two, 110, "num_steps=3")
    run.wait_for_file("checkpoints/step_000001")
    raylet(run.folder(1)).kill()
    codes, outputs = run.ended()
    assert codes == [0, 0], outputs[0] + outputs[1] + trainer.logs()
    assert [row["step"] for row in trainer.rows()] == [1, 2, 3]
    assert outputs[1].count(": joined ") == 2
    assert "the learner was rebuilt" in outputs[0]


def test_a_machine_whose_cable_is_cut_in_a_step_is_named_and_nobody_hangs(trainer: Trainer, two: Machines) -> None:
    run = Run(trainer, two, 120, "num_steps=3", "cluster.start_timeout_s=60", "learner.timeout_s=90")
    run.wait_for_file("checkpoints/step_000001")
    two.cut(1)
    codes, outputs = run.ended(timeout_s=420.0)
    assert codes[0] == 0, outputs[0] + trainer.logs()
    assert re.search(rf"node {re.escape(two.address(1))}.* is gone", outputs[0])
    assert [row["step"] for row in trainer.rows()] == [1, 2, 3]
    assert codes[1] in (0, 1)
