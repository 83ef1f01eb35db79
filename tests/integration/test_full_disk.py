"""A disk that fills up in the middle of a run costs the run nothing that it had, and is the user's to mend: no retry."""

from __future__ import annotations

import shutil
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
    filler.write_bytes(b"\0" * (shutil.disk_usage(small_disk).free - 256 * 1024))  # room for a step's lines, for no checkpoint
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 2, output
    assert "Traceback" not in output
    assert "rebuilt" not in output
    error = " ".join(output[output.index("error:") :].split())
    assert "could not be written" in error
    assert "Nothing half-written was kept, and earlier checkpoints are whole. Free some space and repeat the command" in error
    whole = sorted(checkpoints.iterdir())
    assert len(whole) == 2
    for path in whole:
        assert path.name.startswith("step_")
        assert {"learner.json", "rank-00000.safetensors", "policy", "SHA256SUMS"} == {item.name for item in path.iterdir()}

    filler.unlink()
    last = max(int(path.name.removeprefix("step_")) for path in whole)
    output = trainer.run(trainer.words(f"num_steps={last + 1}", "evaluation.num_tasks=0"))
    assert f"continuing after step {last}" in output
    assert [row["step"] for row in trainer.rows()] == list(range(1, last + 2))
