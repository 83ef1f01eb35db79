"""A machine whose clock is set, by an hour, either way: nothing is waited for longer, given up earlier, or taken for another."""

from __future__ import annotations

import ast
import os
import time
from pathlib import Path

import psutil
import pytest

from sdpo.run.folder import records
from sdpo.run.logs import PROCESSES, answer_with_stacks, processes
from tests.loop.test_training_run import Run

ROOT = Path(__file__).parent.parent.parent
BY_THE_CLOCK = {
    "sdpo/forkserver/marks.py": "benchmarks/startup.py compares it with its own",
    "sdpo/preflight/proofs.py": "how old a file of the cache is",
    "sdpo/tracking/mlflow.py": "MLflow wants the time of a record",
}
"""Who may ask what time it is, and why; nothing is waited for by it."""


def asks_the_clock(file: Path) -> bool:
    """Whether a module calls ``time.time``, ``datetime.now`` or their like."""
    text = file.read_text()
    if not any(word in text for word in ("time.time", "from time import", "datetime")):
        return False  # most of them: parsing takes its time
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if (node.value.id, node.attr) in {("time", "time"), ("time", "time_ns"), ("datetime", "now"), ("datetime", "utcnow")}:
                return True
        elif (
            isinstance(node, ast.ImportFrom)
            and node.module == "time"
            and any(name.name.startswith("time") for name in node.names)
        ):
            return True
    return False


def test_nobody_else_asks_what_time_it_is() -> None:
    """A deadline by the clock is missed, or not met for an hour, when the clock is set. So the folder of a conversion of a model
    that was under way was removed: it was taken for one that had been killed an hour ago."""
    files = [*(ROOT / "sdpo").rglob("*.py"), *(ROOT / "envs").rglob("*.py")]
    found = {
        str(file.relative_to(ROOT)) for file in files if "/envs/" not in str(file.relative_to(ROOT)) and asks_the_clock(file)
    }
    assert found == set(BY_THE_CLOCK)


@pytest.mark.parametrize("hours", [1, -1])
def test_a_run_whose_clock_jumps_keeps_what_an_undisturbed_one_keeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    undisturbed = Run(tmp_path / "undisturbed")
    undisturbed()
    now, calls = time.time, [0]

    def jumping() -> float:
        calls[0] += 1
        return now() + 3600.0 * hours * calls[0]

    monkeypatch.setattr(time, "time", jumping)
    run = Run(tmp_path / "run", "update 4")
    run()
    assert run.recorded() == undisturbed.recorded()
    rows = [*records(run.folder.metrics), *records(run.folder.evaluations)]
    times = [value for row in rows for name, value in row.items() if name.startswith("time/")]
    assert times
    assert all(0.0 <= seconds < 600.0 for seconds in times)


@pytest.mark.parametrize("hours", [1, -1])
def test_a_process_is_still_known_after_the_clock_was_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hours: int) -> None:
    """When a process began was kept by the clock, which moves with it: after a jump nobody was asked for its stacks any more."""
    monkeypatch.setattr("faulthandler.register", lambda *_, **__: None)
    answer_with_stacks(tmp_path)
    boot = psutil.boot_time() + 3600.0 * hours
    monkeypatch.setattr("psutil._pslinux.boot_time", lambda: boot)
    assert processes(tmp_path) == [os.getpid()]
    assert list((tmp_path / PROCESSES).iterdir())
