"""A disk that fills up in the middle of a run costs the run nothing that it had."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.integration.conftest import Trainer
from tests.integration.test_training import wait_for

pytestmark = pytest.mark.integration


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """24 MiB, mounted: room for what the tiny run needs, and no more."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"needs the right to mount a tmpfs: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=False)


def test_a_full_disk_ends_the_run_with_one_paragraph_and_whole_checkpoints(trainer: Trainer, small_disk: Path) -> None:
    trainer = replace(trainer, runs=small_disk / "runs")
    words = trainer.words("num_steps=200", "evaluation.num_tasks=0")
    process = trainer.start(words)
    checkpoints = trainer.runs / "run" / "checkpoints"
    wait_for(checkpoints / "step_000002" / "learner.json", process)
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 65536)
        except OSError:
            pass
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 2, output
    assert "Traceback" not in output
    assert "error:" in output
    whole = [path for path in checkpoints.iterdir() if path.name.startswith("step_")]
    assert whole
    assert all((path / "learner.json").is_file() for path in whole)

    filler.unlink()
    last = max(int(path.name.removeprefix("step_")) for path in whole)
    output = trainer.run(trainer.words(f"num_steps={last + 1}", "evaluation.num_tasks=0"))
    assert f"continuing after step {last}" in output
    assert [row["step"] for row in trainer.rows()] == list(range(1, last + 2))
