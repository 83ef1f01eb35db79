"""What a run's last words are: which checkpoint is its best."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from sdpo.commands.outcome import show
from sdpo.learner.checkpoint import Counters, begin, commit
from sdpo.run.folder import RunFolder


def shown(path: Path, successes: dict[int, float]) -> str:
    """Of a run that was evaluated after these steps, each with its checkpoint but for step 0."""
    rows = [
        {"step": step, "k": 4, "heldout/success": success, "heldout/success_se": 0.05, "attempts": []}
        for step, success in successes.items()
    ]
    (path / "evaluations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for step, success in successes.items():
        if step:
            folder = path / "checkpoints" / f"step_{step:06d}"
            begin(folder)
            commit(folder, Counters(step=step, num_updates=step, score=success))
    screen = Console(width=100, record=True, file=(path / "screen").open("w"))
    show(screen, RunFolder(path))
    return screen.export_text()


def test_a_run_that_declined_names_its_best_checkpoint(tmp_path: Path) -> None:
    """Held-out success went 31.8, 47.9, 38.0, 39.1 %, and the run ended without a word about its second look."""
    said = shown(tmp_path, {0: 0.318, 10: 0.479, 20: 0.38, 30: 0.391})
    assert "The best checkpoint is not the last: after step 10 held-out success was 47.9%, after step 30 it is 39.1%." in said
    assert f"It is kept: {tmp_path / 'checkpoints' / 'step_000010'}" in said.replace("\n", "")


@pytest.mark.parametrize("last", [0.5, 0.4])
def test_a_run_that_was_best_at_its_end_says_so(tmp_path: Path, last: float) -> None:
    said = shown(tmp_path, {0: 0.3, 10: 0.4, 20: last})
    assert "No evaluated checkpoint has a higher held-out success than the last one" in said
    assert "step_000020" in said


def test_a_run_without_evaluations_has_no_best(tmp_path: Path) -> None:
    (tmp_path / "evaluations.jsonl").write_text("")
    screen = Console(width=100, record=True, file=(tmp_path / "screen").open("w"))
    show(screen, RunFolder(tmp_path))
    assert screen.export_text() == ""
