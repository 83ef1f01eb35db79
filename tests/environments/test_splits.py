"""Held-out tasks of the built-in environments never appear in training, whatever the seed."""

from __future__ import annotations

import pytest

from sdpo.attempts.task_stream import TaskStream
from sdpo.envs import registry
from sdpo.preflight.checks import HELDOUT_SEED


@pytest.mark.parametrize(
    ("name", "seed"), [("code", 0), ("code", 1), pytest.param("chemistry", 0, marks=pytest.mark.full), ("chemistry", 1)]
)
def test_no_batch_of_three_epochs_holds_a_heldout_task(name: str, seed: int) -> None:
    environment = registry.make(name, {})
    heldout = environment.tasks("heldout", HELDOUT_SEED)
    ids = {task.id for task in heldout}
    questions = {task.messages for task in heldout}
    train = environment.tasks("train", seed)
    stream = TaskStream(tasks=train, seed=seed)
    trained = [task for step in range(3 * len(train) // 8 + 1) for task in stream.batch(step, 8)]
    assert len({task.id for task in trained}) == len(train)
    assert ids.isdisjoint(task.id for task in trained)
    assert questions.isdisjoint(task.messages for task in trained)
