"""``sdpo solve`` on the real engine and learner: killed and continued, alone and with another task, the attempts are the same."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from tests.integration.conftest import LETTERS, Trainer

pytestmark = pytest.mark.integration
HOPELESS = LETTERS.replace(":Letters", ":Hopeless")


def words(trainer: Trainer, *more: str) -> list[str]:
    return [
        f"model.path={trainer.model}", "model.name=tiny", "env=custom", f"env.name={HOPELESS}", f"runs_dir={trainer.runs}",
        "batch.group_size=4", "batch.micro_batch_tokens=600", "sampling.max_prompt_tokens=100", "sampling.max_response_tokens=8",
        "context_tokens=200", "algorithm.hindsight.max_prompt_tokens=300", "learner.lr=1e-1", "rollout.dtype=float32",
        "learner.dtype=float32", "rollout.kv_cache_gib=1", "in_process=true", "budget.attempts=24", *more,
    ]  # fmt: skip


def attempts(folder: Path) -> list[str]:
    steps = [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]
    return [one["text"] for step in steps for one in step["attempts"]]


def test_a_search_is_the_same_killed_and_continued_and_beside_another_task(trainer: Trainer) -> None:
    together = trainer.run(words(trainer, "name=both", "tasks=letters/q,letters/c"), "solve", expected=3)
    found = json.loads(together.splitlines()[-1])
    assert (found["solved"], found["attempts"], found["endings"]) == (0, 48, {"letters/q": "attempts", "letters/c": "attempts"})

    alone = words(trainer, "name=alone", "task=letters/c")
    process = trainer.start(alone, "solve")
    file = trainer.runs / "alone" / "steps.jsonl"
    while process.poll() is None and not (file.is_file() and file.read_text().count("\n") >= 2):
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    num_before = len(attempts(trainer.runs / "alone"))
    assert 8 <= num_before < 24, "it was killed while it searched"
    output = trainer.run(alone, "solve", expected=3)
    assert "continuing after" in output

    beside = attempts(next((trainer.runs / "both" / "tasks").glob("letters_c-*")))
    assert attempts(trainer.runs / "alone") == beside
    assert len(set(beside)) > 12, "the weights move, and the attempts with them"
    assert attempts(next((trainer.runs / "both" / "tasks").glob("letters_q-*"))) != beside
