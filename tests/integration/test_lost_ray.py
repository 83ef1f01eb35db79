"""A run whose Ray is gone ends at once, with a sentence, and is continued by the same command."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.integration.conftest import Trainer
from tests.integration.test_training import wait_for

pytestmark = pytest.mark.integration
MOST_S = 45.0
"""Ray would end the process after 60 s without a word, or never. On an idle machine it takes 2 to 7 s."""
CONTINUES = "The last checkpoint stands; the same command continues from it."
WORDS = ("evaluation.num_tasks=0", "num_steps=300", "checkpoint.keep=3")


def of_ray(process: subprocess.Popen[str], name: str) -> psutil.Process:
    return next(child for child in psutil.Process(process.pid).children(recursive=True) if child.name().startswith(name))


def end(process: subprocess.Popen[str], began: float) -> str:
    """What the run said by its end, which came soon."""
    output, _ = process.communicate(timeout=120)
    assert time.monotonic() - began < MOST_S, output
    assert process.returncode == 1, output
    assert "Traceback" not in output
    return " ".join(output[output.index("error:") :].split())


def goes_on(trainer: Trainer) -> None:
    """From the last checkpoint, with every step once."""
    last = max(int(path.name.removeprefix("step_")) for path in (trainer.runs / "run" / "checkpoints").glob("step_*"))
    output = trainer.run(trainer.words("evaluation.num_tasks=0", f"num_steps={last + 1}", "checkpoint.keep=3"))
    assert f"continuing after step {last}" in output
    assert [row["step"] for row in trainer.rows()] == list(range(1, last + 2))


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("raylet", "Ray's raylet on this machine"),
        pytest.param("gcs_server", "Ray's control store (gcs_server)", marks=pytest.mark.full),
    ],
)
def test_a_run_whose_ray_is_killed_ends_at_once_and_is_continued(trainer: Trainer, name: str, title: str) -> None:
    """It waited without end for the raylet, and a minute for the control store, to end without a word."""
    process = trainer.start_from_nothing(trainer.words(*WORDS))
    wait_for(trainer.runs / "run" / "checkpoints" / "step_000002" / "learner.json", process)
    began = time.monotonic()
    of_ray(process, name).send_signal(signal.SIGKILL)
    error = end(process, began)
    assert f"{title} was ended by SIGKILL, and without it no engine and no rank of the learner can go on. {CONTINUES}" in error
    goes_on(trainer)


def take_all(file: Path) -> None:
    """Make a file of all that is free there."""
    with file.open("wb") as filler:
        size = 0
        for num_bytes in (2**20, 2**12):
            with suppress(OSError):
                while True:
                    os.posix_fallocate(filler.fileno(), size, num_bytes)
                    size += num_bytes


@pytest.mark.full
def test_a_run_whose_shared_memory_is_full_ends_at_once_and_is_continued(trainer: Trainer) -> None:
    """The raylet is ended by SIGBUS, and the run waited for it without end. /dev/shm is the run's own, of 700 MiB."""
    isolated = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o size=700m tmpfs /dev/shm && exec "$@"', "sh"]
    if subprocess.run([*isolated, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("needs the right to mount a tmpfs")
    process = trainer.start_from_nothing(trainer.words(*WORDS), before=isolated)
    wait_for(trainer.runs / "run" / "logs" / "learner-0.log", process)  # Ray is up, and no weights were sent yet
    began = time.monotonic()
    take_all(Path(f"/proc/{process.pid}/root/dev/shm/filler"))
    error = end(process, began)
    assert "/dev/shm is full (0 MiB of 0.7 GiB are free), and Ray's object store lies there: free it, enlarge it" in error
    assert CONTINUES in error
    trainer.run(trainer.words("evaluation.num_tasks=0", "num_steps=1", "checkpoint.keep=3"))


@pytest.mark.full
def test_a_run_that_ray_s_memory_monitor_kills_says_so_and_what_needs_less(trainer: Trainer) -> None:
    """ "rank 0 of the learner died", it said. The monitor takes any use for too much here."""
    process = trainer.start_from_nothing(
        trainer.words(*WORDS), RAY_memory_usage_threshold="0.01", RAY_memory_monitor_refresh_ms="200"
    )
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 2, output
    error = " ".join(output[output.index("error:") :].split())
    assert "was killed by Ray's memory monitor (" in error
    assert "By sdpo plan the run holds " in error
    assert "The last checkpoint stands; the same command, with such a key besides, continues from it." in error
