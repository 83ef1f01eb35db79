"""A learner whose ranks die or hang costs a run nothing but time: it goes on by itself, to the same bits.

Prints the seconds from the fault to the rebuilt learner, as ``FAULT name recovered_s=12.3``.
"""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from sdpo.run.logs import processes
from tests.integration.conftest import Trainer, comparable

pytestmark = pytest.mark.integration
NUM_STEPS = 4
WORDS = (f"num_steps={NUM_STEPS}", "learner.num_ranks=2", "evaluation.num_tasks=0", "checkpoint.keep=9")
REBUILT = re.compile(r"warning: (.*); the learner was rebuilt in [0-9.]+ s from (.*), and the run goes on")


@dataclass
class Watched:
    """A run whose ranks are done to, and whose lines are read as they come."""

    trainer: Trainer
    words: tuple[str, ...] = ()
    lines: list[tuple[float, str]] = field(default_factory=list)
    """Each with the time at which it was read."""

    def __post_init__(self) -> None:
        self.folder = self.trainer.runs / "run"
        self.process = self.trainer.start(self.trainer.words(*WORDS, *self.words))
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append((time.monotonic(), line))

    @property
    def output(self) -> str:
        return "".join(line for _, line in self.lines)

    def wait_for(self, happened: Callable[[], object], timeout_s: float = 240.0) -> None:
        until = time.monotonic() + timeout_s
        while not happened():
            assert self.process.poll() is None, self.output + self.trainer.logs()
            assert time.monotonic() < until, "it did not happen\n" + self.output
            time.sleep(0.001)

    def wait_for_file(self, name: str) -> None:
        self.wait_for((self.folder / name).exists)

    def pid(self, name: str) -> int:
        """Of the process that writes this log, the newest if there were several."""
        log = f"{name}.log"
        found = [pid for pid in processes(self.folder.joinpath("logs")) if Path(os.readlink(f"/proc/{pid}/fd/1")).name == log]
        return max(found, key=lambda pid: psutil.Process(pid).create_time())

    def wait_for_recovery(self, name: str, since: float, num: int = 1) -> tuple[str, str]:
        """Why the learner was rebuilt for the ``num``-th time, and from what."""
        self.wait_for(lambda: len(REBUILT.findall(self.output)) >= num)
        at = [at for at, line in self.lines if REBUILT.search(line)][num - 1]
        print(f"FAULT {name} recovered_s={at - since:.1f}")
        why, source = REBUILT.findall(self.output)[num - 1]
        return str(why), str(source)

    def ends_well(self) -> None:
        """With every step once, nothing half-written and no process left."""
        code = self.process.wait(timeout=240)
        self._reader.join()
        assert code == 0, self.output + self.trainer.logs()
        assert [row["step"] for row in self.trainer.rows()] == list(range(1, NUM_STEPS + 1))
        for step in range(1, NUM_STEPS + 1):
            assert len(self.trainer.rollouts(step)) == 16
        assert {path.name for path in (self.folder / "checkpoints").iterdir()} == {
            f"step_{step:06d}" for step in range(1, NUM_STEPS + 1)
        }
        until = time.monotonic() + 20.0
        while left := self._processes():
            assert time.monotonic() < until, f"still there: {left}"
            time.sleep(0.1)

    def _processes(self) -> list[psutil.Process]:
        """Of the run, whatever they are."""
        of_run = processes(self.folder / "logs")
        return [
            process
            for process in psutil.process_iter()
            if process.pid in of_run or (psutil.pid_exists(process.pid) and os.getsid(process.pid) == self.process.pid)
        ]


@pytest.fixture(scope="module")
def undisturbed(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    trainer = Trainer(model=tiny_model, runs=tmp_path_factory.mktemp("undisturbed") / "runs")
    Watched(trainer).ends_well()
    return trainer


def assert_same_bits(run: Watched, undisturbed: Trainer) -> None:
    """In what was sampled, in what was learned and in all that the next step would begin with."""
    assert [comparable(row) for row in run.trainer.rows()] == [comparable(row) for row in undisturbed.rows()]
    for step in range(1, NUM_STEPS + 1):
        assert run.trainer.rollouts(step) == undisturbed.rollouts(step)
    last = f"run/checkpoints/step_{NUM_STEPS:06d}"
    for name in ("policy/model.safetensors", "rank-00000.safetensors", "rank-00001.safetensors", "learner.json"):
        assert (run.trainer.runs / last / name).read_bytes() == (undisturbed.runs / last / name).read_bytes(), name


def stop_in_update(run: Watched, step: int) -> int:
    """Rank 1 is stopped while the engines generate, so that rank 0 waits for it in the update's first collective."""
    run.wait_for_file(f"checkpoints/step_{step - 1:06d}" if step > 1 else "tensorboard")
    pid = run.pid("learner-1")
    os.kill(pid, signal.SIGSTOP)
    run.wait_for_file(f"rollouts/step_{step:06d}.jsonl")
    return pid


def test_a_rank_that_dies_in_an_update_or_after_it_is_replaced(trainer: Trainer, undisturbed: Trainer) -> None:
    """First in the collectives of the first step, when there is no checkpoint yet; then with weights that an engine waits for."""
    run = Watched(trainer)
    pid = stop_in_update(run, 1)
    time.sleep(1.0)
    since = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    why, source = run.wait_for_recovery("learner-killed-in-update", since)
    assert why == "rank 1 of the learner died"
    assert source == "the start, as there is no checkpoint yet"

    run.wait_for_file("checkpoints/step_000002")
    engine = run.pid("engine-0")
    run.wait_for_file("rollouts/step_000003.jsonl")
    os.kill(engine, signal.SIGSTOP)  # before the update ends, and so before the engine is given weights
    time.sleep(3.0)  # the update is over by then, or nearly so
    since = time.monotonic()
    os.kill(run.pid("learner-0"), signal.SIGKILL)
    time.sleep(1.0)
    os.kill(engine, signal.SIGCONT)
    why, source = run.wait_for_recovery("learner-killed-in-sync", since, num=2)
    assert why.startswith(("the learner died, so ", "rank 0 of the learner died"))
    assert source == "step_000002"
    run.ends_well()
    assert_same_bits(run, undisturbed)


@pytest.mark.full
def test_a_rank_that_dies_while_it_writes_a_checkpoint_leaves_nothing_half_written(
    trainer: Trainer, undisturbed: Trainer
) -> None:
    run = Watched(trainer)
    for step in range(2, NUM_STEPS + 1):
        run.wait_for_file(f"checkpoints/step_{step - 1:06d}")
        pid = run.pid("learner-0")
        run.wait_for_file(f"checkpoints/.step_{step:06d}.partial")
        os.kill(pid, signal.SIGSTOP)
        time.sleep(0.5)
        if not (run.folder / f"checkpoints/step_{step:06d}").exists():
            break
        os.kill(pid, signal.SIGCONT)  # it was too quick
    since = time.monotonic()
    assert (run.folder / f"checkpoints/.step_{step:06d}.partial").is_dir()
    os.kill(pid, signal.SIGKILL)
    found = run.wait_for_recovery("learner-killed-in-checkpoint", since)
    assert found == ("rank 0 of the learner died", f"step_{step - 1:06d}")
    run.ends_well()
    assert_same_bits(run, undisturbed)


@pytest.mark.full
def test_a_rank_that_hangs_is_reported_then_killed_and_replaced(trainer: Trainer, undisturbed: Trainer) -> None:
    run = Watched(trainer, ("learner.timeout_s=20", "cluster.stall_report_s=8"))
    pid = stop_in_update(run, 2)
    since = time.monotonic()
    why, source = run.wait_for_recovery("learner-hung", since)
    assert why == "ranks 0, 1 of the learner did not answer within learner.timeout_s=20 s"
    assert source == "step_000001"
    assert not psutil.pid_exists(pid)
    run.ends_well()
    assert_same_bits(run, undisturbed)
    assert re.search(r"no progress for \d+ s while learning: waiting for the ranks of the learner; the stacks of", run.output)
    assert re.search(r"progress again, after \d+ s without", run.output)
    logs = {path.name: path.read_text(errors="replace") for path in (run.folder / "logs").glob("*.log")}
    assert "in answers" in logs["driver.log"]
    assert "in all_reduce" in logs["learner-0.log"]
    for name in ("engine-0.log", "verifier.log"):
        assert "Current thread" in logs[name], name
