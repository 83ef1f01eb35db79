"""What a start leaves behind when it is killed, whenever that is: nothing that a later start waits for."""

from __future__ import annotations

import fcntl
import os
import random
import subprocess
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from tests.integration.conftest import Trainer

pytestmark = [pytest.mark.integration, pytest.mark.alone, pytest.mark.full]
NUM_KILLED = 10
MARKER = "SDPO_TEST_OF_KILLED_STARTS"
MOST_LATER_S = 2.0


def started(trainer: Trainer, name: str) -> subprocess.Popen[str]:
    words = [word for word in trainer.words("num_steps=1", "evaluation.num_tasks=0") if not word.startswith("name=")]
    return trainer.start_from_nothing([*words, f"name={name}"], **{MARKER: "1"})


def seconds(trainer: Trainer, name: str) -> float:
    """Of a run of one step, from the command to its end."""
    began = time.monotonic()
    process = started(trainer, name)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return time.monotonic() - began


def ours() -> list[psutil.Process]:
    """Processes of killed starts that still live."""
    found = []
    for process in psutil.process_iter():
        try:
            if MARKER in process.environ() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def is_held(folder: Path) -> bool:
    """Whether the owner of a scratch folder lives."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return True  # gone in the meantime: it is not left
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def test_a_start_killed_at_any_moment_delays_the_next_one_by_no_more_than_two_seconds(trainer: Trainer) -> None:
    """Killed by SIGKILL, which nobody can clean up after: Ray, fork servers and actors end by themselves, and what lies in
    /tmp and /dev/shm is passed by or swept."""
    seconds(trainer, "first")  # proves the prompts, once
    before = [seconds(trainer, f"before-{number}") for number in range(2)]
    draw = random.Random(0)
    for number in range(NUM_KILLED):
        process = started(trainer, f"killed-{number}")
        time.sleep(draw.uniform(0.0, max(before)))
        process.kill()
        process.communicate()
    after = [seconds(trainer, f"after-{number}") for number in range(2)]
    assert min(after) <= max(before) + MOST_LATER_S, (before, after)
    until = time.monotonic() + 30.0
    while ours() and time.monotonic() < until:
        time.sleep(0.5)
    assert not ours(), [process.cmdline()[:4] for process in ours()]
    assert not [folder for folder in Path(tempfile.gettempdir()).glob("sdpo-fork-*.held") if not is_held(folder)]
