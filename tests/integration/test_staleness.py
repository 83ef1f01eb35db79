"""Batches generated ahead, on the real engines: evaluations and a lent engine beside them, and no weights older than allowed."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from tests.integration.conftest import Trainer
from tests.integration.test_training import wait_for

pytestmark = pytest.mark.integration
THOUGHTFUL = f"{Path(__file__).parent.parent / 'letters.py'}:Thoughtful"


def test_a_run_that_generates_ahead_learns_from_weights_one_step_old(trainer: Trainer) -> None:
    trainer.run(
        trainer.words("num_steps=4", "rollout.staleness=1", "evaluation.every=1", "evaluation.lift=always", "learner.lr=1e-4")
    )
    rows = trainer.rows()
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert [row["staleness"] for row in rows][:2] == [0.0, 1.0]
    for row in rows:
        assert row["staleness"] == row["staleness/max"] <= 1.0
        versions = {attempt["weights_version"] for attempt in trainer.rollouts(int(row["step"]))}
        assert versions == {row["step"] - 1.0 - row["staleness"]}
        assert row["updates"] == 1.0
        assert row["mismatch"] <= row["mismatch/p99"] < 0.3
    assert rows[0]["mismatch"] < 1e-5 < rows[1]["mismatch"]  # what importance weights are for
    evaluations = trainer.evaluations()
    assert [evaluation["step"] for evaluation in evaluations] == [0, 1, 2, 3, 4]
    for evaluation in evaluations:
        assert {attempt["weights_version"] for attempt in evaluation["attempts"]} == {evaluation["step"]}
        assert evaluation["hindsight_attempts"]


def test_with_partial_completions_go_on_across_an_update_and_each_token_knows_its_weights(trainer: Trainer) -> None:
    trainer.run(
        trainer.words(
            "num_steps=4", "rollout.staleness=1", "rollout.partial=true", "evaluation.num_tasks=0", "learner.lr=1e-4",
            "sampling.max_response_tokens=60", "batch.micro_batch_tokens=2000", "rollout.max_num_seqs=4",
        )
    )  # fmt: skip
    assert [row["step"] for row in trainer.rows()] == [1, 2, 3, 4]
    attempts = [attempt for step in range(1, 5) for attempt in trainer.rollouts(step)]
    assert len(attempts) == 4 * 16
    spanning = [attempt["versions"] for attempt in attempts if "versions" in attempt]
    assert spanning, "no completion was under way when weights came"
    for runs in spanning:
        versions = [version for version, _ in runs]
        assert versions == sorted(set(versions))
    assert max(row["mismatch"] for row in trainer.rows()) < 0.05


@pytest.mark.full
def test_an_interrupt_ends_a_run_that_is_ahead_and_what_it_had_begun_is_taken_over(trainer: Trainer) -> None:
    words = trainer.words("rollout.staleness=1", "evaluation.num_tasks=0", env=THOUGHTFUL)
    process = trainer.start([*words, "num_steps=50"])
    wait_for(trainer.runs / "run" / "rollouts" / "step_000002.jsonl", process)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGINT, output + trainer.logs()
    last = int(trainer.rows()[-1]["step"])
    kept = trainer.runs / "run" / "unfinished" / f"step_{last + 1:06d}.jsonl"
    num_kept = kept.read_text().count("\n")

    output = trainer.run([*words, f"num_steps={last + 1}"])
    assert f"continuing after step {last}" in output
    taken_over = re.search(rf"took over (\d+) of 16 attempts of step {last + 1}", output)
    assert num_kept == (0 if taken_over is None else int(taken_over[1]))
    assert [row["step"] for row in trainer.rows()] == [float(step) for step in range(1, last + 2)]
