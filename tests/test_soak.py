"""One run outlives every way to die, in a short form of ``benchmarks/soak.py``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NUM_STEPS, EVERY = 63, 5


@pytest.mark.full
@pytest.mark.alone
@pytest.mark.integration
@pytest.mark.timeout(1800)
def test_a_run_outlives_everything_that_dies_in_it(tmp_path: Path) -> None:
    """So few steps, most of them by young processes, say nothing about memory: the long form does."""
    figures = tmp_path / "figures.json"
    asked = ("--steps", str(NUM_STEPS), "--every", str(EVERY), "--folder", str(tmp_path / "soak"), "--json", str(figures))
    ended = subprocess.run([sys.executable, ROOT / "benchmarks" / "soak.py", *asked], capture_output=True, text=True, check=False)
    assert figures.is_file(), ended.stdout + ended.stderr
    told = json.loads(figures.read_text())
    assert [sentence for sentence in told["not_as_it_should_be"] if not sentence.startswith("the memory of")] == []
    assert told["steps"] == NUM_STEPS
    assert len(told["faults"]) >= 10, "one of each kind; shared memory is filled where this process may mount its own"
