"""A run that stands still says so once, with everybody's stacks; one that moves says nothing."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import sdpo
from sdpo.run.logs import PROCESSES, ask_for_stacks, processes
from sdpo.run.watchdog import Progress, Watchdog, WatchedVerifier
from sdpo.types import Completion, Finish, Prompt, SetAside
from tests.loop.fakes import FakeVerifier, task

SLEEPER = """
import sys, time
from pathlib import Path
from sdpo.run.logs import redirect_output
def waits_for_nothing():
    print("ready", file=sys.__stdout__, flush=True)
    while True:
        time.sleep(60)
redirect_output(Path(sys.argv[1]))
waits_for_nothing()
"""


def eventually(holds: Callable[[], object], timeout_s: float = 20.0) -> None:
    until = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process of a run that does nothing."""
    process = subprocess.Popen([sys.executable, "-c", SLEEPER, str(tmp_path / "engine-0.log")])
    try:
        eventually(lambda: processes(tmp_path) == [process.pid] and "ready" in (tmp_path / "engine-0.log").read_text())
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_stall_is_reported_once_with_stacks_and_so_is_its_end(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    said: list[str] = []
    progress = Progress()
    progress.begins("generate")
    progress.completions(37, 64)
    progress.verdict()
    with Watchdog(progress, said.append, tmp_path, report_s=0.3):
        eventually(lambda: said)
        time.sleep(0.7)
        assert len(said) == 1
        assert "while generating (37 of 64 completions are there, 1 of them judged): waiting for the engines; " in said[0]
        assert said[0].startswith("no progress for 0 s")
        assert said[0].endswith(f"; the stacks of all processes of the run on this machine (2) are in {tmp_path}")
        progress.completions(64, 64)
        eventually(lambda: len(said) == 2)
        assert said[1].startswith("progress again, after ")
        eventually(lambda: len(said) == 3)  # another stall is another report
        assert "waiting for the verifiers" in said[2]
    assert "test_a_stall_is_reported_once" in (tmp_path / "driver.log").read_text()
    eventually(lambda: "in waits_for_nothing" in (tmp_path / "engine-0.log").read_text())
    assert sleeper.poll() is None


def test_a_run_that_moves_is_not_reported(tmp_path: Path) -> None:
    said: list[str] = []
    progress = Progress()
    with Watchdog(progress, said.append, tmp_path, report_s=1.0):
        for _ in range(15):
            progress.update()
            time.sleep(0.1)
    assert said == []


def test_a_report_that_cannot_be_written_is_still_said(tmp_path: Path) -> None:
    said: list[str] = []
    with Watchdog(Progress(), said.append, tmp_path / "missing", report_s=0.1):
        eventually(lambda: said)
    assert "while starting: waiting for engines, learner and verifiers" in said[0]


def test_verdicts_are_progress() -> None:
    progress = Progress()
    verifier = WatchedVerifier(verifier=FakeVerifier(broken=frozenset({"b"})), progress=progress)
    tasks = (task("a"), task("b"))
    completions = [
        (
            Prompt(token_ids=(1,), seed=0, task_index=index, attempt_index=0),
            Completion(token_ids=(1,), logprobs=(0.0,), text="0", finish=Finish.stop, weights_version=0),
        )
        for index in range(2)
    ]
    assert [isinstance(outcome, SetAside) for _, outcome in verifier.verify(tasks, completions)] == [False, True]
    assert progress.num_verdicts == 2


def test_only_a_process_that_signed_in_gets_the_signal(tmp_path: Path) -> None:
    """Its default action would end another that was given the same id since."""
    (tmp_path / PROCESSES).mkdir()
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        host = os.uname().nodename
        (tmp_path / PROCESSES / f"{host}-{stranger.pid}").write_text("1.0")
        (tmp_path / PROCESSES / f"elsewhere-{stranger.pid}").write_text("1.0")
        assert ask_for_stacks(tmp_path) == 0
        assert {file.name for file in (tmp_path / PROCESSES).iterdir()} == {f"elsewhere-{stranger.pid}"}
        assert stranger.poll() is None
    finally:
        stranger.send_signal(signal.SIGKILL)
        stranger.wait()


def test_every_phase_of_the_loop_has_words() -> None:
    """There were none for `record`: a stall there killed the thread that should have told of it."""
    source = (Path(sdpo.__file__).parent / "train.py").read_text()
    phases = re.findall(r'log\.phase\("(\w+)"\)', source)
    assert "record" in phases
    for phase in phases:
        progress = Progress()
        progress.begins(phase)
        assert progress.in_words().startswith("while ")
