"""A driver that is killed in the middle of a step costs the run nothing that it had sampled, on the real engines."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from tests.integration.conftest import Trainer, comparable

pytestmark = pytest.mark.integration
THOUGHTFUL = f"{Path(__file__).parent.parent / 'letters.py'}:Thoughtful"


def num_lines(file: Path) -> int:
    return file.read_text().count("\n") if file.exists() else 0


def test_a_driver_killed_while_a_step_is_generated_asks_only_for_the_rest_of_it(trainer: Trainer) -> None:
    words = trainer.words("num_steps=2", "evaluation.num_tasks=0", env=THOUGHTFUL)
    trainer.run([*words, "name=whole"])
    unfinished = trainer.runs / "run" / "unfinished"
    process = trainer.start(words)
    until = time.monotonic() + 300.0
    while num_lines(unfinished / "step_000002.jsonl") < 3:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < until, trainer.logs()
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert len(trainer.rows()) == 1

    output = trainer.run(words)
    assert "continuing after step 1" in output
    taken_over = re.search(r"took over (\d+) of 16 attempts of step 2", output)
    assert taken_over is not None, output
    assert 3 <= int(taken_over[1]) < 16
    assert trainer.rollouts(2) == trainer.rollouts(2, "whole")
    for row, whole in zip(trainer.rows(), trainer.rows("whole"), strict=True):
        assert comparable(row) == pytest.approx(comparable(whole), rel=1e-4)  # the rest is a smaller batch, rounded otherwise
    assert list(unfinished.iterdir()) == [], "no step is left that might be repeated"
