"""The whole stack, from the command line to the checkpoint, on a tiny model: real Ray, vLLM and DeepSpeed."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest

from sdpo.metrics import ENVIRONMENT_PREFIX, METRICS
from tests.forked import Forked
from tests.integration.conftest import Trainer, comparable
from tests.tiny import write_tiny_model

pytestmark = pytest.mark.integration
TINY = Path(__file__).parent.parent / "letters.py"


def wait_for(file: Path, process: Forked | subprocess.Popen[str], timeout_s: float = 200.0) -> None:
    until = time.monotonic() + timeout_s
    while not file.exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < until, f"{file} did not appear"
        time.sleep(0.02)


def test_sdpo_runs_and_a_killed_run_resumes_to_the_same_metrics(trainer: Trainer) -> None:
    """The uninterrupted run also shows what a run leaves behind; the other is killed in the middle of its second step."""
    bf16 = ("learner.dtype=bfloat16", "rollout.dtype=bfloat16", "tracking.credit_share=1")
    output = trainer.run(trainer.words(*bf16))
    whole = trainer.rows()
    assert [row["step"] for row in whole] == [1, 2, 3]
    for row in whole:
        unknown = {name for name in row if name not in METRICS and not name.startswith(ENVIRONMENT_PREFIX)}
        assert not unknown, f"undocumented metrics: {unknown}"
        assert 0.0 < row["success"] < 1.0
        assert row["hindsight"] > 0.5
        assert row["updates"] == 1.0
        assert row["divergence"] > 0.0
        assert row["mismatch"] < 0.05  # learner and engine agree on what was sampled, so the weights did arrive
    assert whole[1]["grad_norm"] != whole[0]["grad_norm"]
    assert "before (step 0)" in output
    assert "feedback: There is no" in output
    evaluations = trainer.evaluations()
    assert [evaluation["step"] for evaluation in evaluations] == [0, 3]
    for evaluation in evaluations:
        assert {"lift", "lift/plain", "lift/hindsight", "lift/share"} <= evaluation.keys()
        assert {name for name in evaluation if "/" in name} <= METRICS.keys()
        assert evaluation["hindsight_attempts"]
        assert all(attempt["hint"] for attempt in evaluation["hindsight_attempts"])
        assert all(attempt["weights_version"] == evaluation["step"] for attempt in evaluation["hindsight_attempts"])
    assert "teacher lift " in output
    run = trainer.runs / "run"
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"step_000002", "step_000003"}
    assert list((run / "tensorboard").iterdir())
    assert all(attempt["weights_version"] == 2 for attempt in trainer.rollouts(3))
    assert len(trainer.rollouts(3)) == 16
    for step, row in enumerate(whole, start=1):
        check_credit(trainer, step, row)
    check_libraries_are_quiet(output, run / "logs")

    words = trainer.words(*bf16, "name=killed")
    process = trainer.start(words)
    wait_for(trainer.runs / "killed" / "rollouts" / "step_000002.jsonl", process)
    process.kill()
    process.wait()
    assert len(trainer.rows("killed")) == 1
    output = trainer.run(words)
    assert "continuing after step 1" in output
    assert [comparable(row) for row in trainer.rows("killed")] == [comparable(row) for row in whole]
    assert [trainer.credit(step, "killed") for step in (1, 2, 3)] == [trainer.credit(step) for step in (1, 2, 3)]
    assert "all its 3 steps" in trainer.run(words)


def check_libraries_are_quiet(screen: str, logs: Path) -> None:
    """The screen is ours alone, and the logs have no progress bars and no warnings of what is as it should be."""
    assert "WARNING" not in screen
    assert "%|" not in screen
    kept = "".join(log.read_text(errors="replace") for log in logs.glob("*.log"))
    for noise in ("Failed to load weights", "Chat template warmup", "not writable", "Loading weights", "checkpoint shards"):
        assert noise not in kept


def check_credit(trainer: Trainer, step: int, row: dict[str, float]) -> None:
    """What was kept of the step's tokens is of its attempts, and adds up to what the learner says of itself."""
    attempts = {(attempt["task_index"], attempt["attempt"]): attempt for attempt in trainer.rollouts(step)}
    records = trainer.credit(step)
    assert len(records) == round(row["hindsight"] * 16)
    sums = {"teacher": 0.0, "student": 0.0, "divergence": 0.0}
    num = 0
    for record in records:
        attempt = attempts[record["task_index"], record["attempt"]]
        assert record["task"] == attempt["task"]
        assert len(record["tokens"]) == attempt["num_tokens"]
        assert attempt["question"] in record["prompt"]
        assert attempt["question"] in record["hindsight_prompt"]
        shown = {part: record["hindsight_prompt"][first:last] for part, (first, last) in record["marks"].items()}
        assert shown.keys() == ({"demonstration", "feedback"} if attempt["hint"] == "both" else {attempt["hint"]})
        assert shown.get("feedback", attempt["feedback"]) == attempt["feedback"]
        num += len(record["tokens"])
        for name in sums:
            sums[name] += sum(record[name])
    assert (sums["teacher"] - sums["student"]) / num == pytest.approx(row["credit"], abs=2e-4)  # of numbers to four places
    assert sums["divergence"] / num == pytest.approx(row["divergence"], abs=2e-4)


def test_grpo_learns_from_advantages_and_an_interrupt_ends_it_with_a_checkpoint(trainer: Trainer) -> None:
    words = trainer.grpo("num_steps=50", "evaluation.num_tasks=0", "batch.tasks_per_update=2", "learner.dtype=bfloat16")
    process = trainer.start(words)
    wait_for(trainer.runs / "run" / "rollouts" / "step_000002.jsonl", process)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGINT, output + trainer.logs()
    rows = trainer.rows()
    last = int(rows[-1]["step"])
    assert 2 <= last < 50
    assert (trainer.runs / "run" / "checkpoints" / f"step_{last:06d}" / "learner.json").is_file()
    assert all(row["hindsight"] == 0.0 and row["updates"] + row["updates_without_samples"] == 2.0 for row in rows)
    learned = [row for row in rows if row["updates"] > 0.0]
    assert learned
    assert all(row["grad_norm"] > 0.0 for row in learned)


def test_two_ranks_and_two_engines_learn_what_one_of_each_learns(trainer: Trainer) -> None:
    """Gradients are sums over tokens over one global count; which rank computed a row must not matter."""
    trainer.run(trainer.words("num_steps=2", "evaluation.num_tasks=0"))
    trainer.run(
        trainer.words("num_steps=2", "evaluation.num_tasks=0", "name=two", "learner.num_ranks=2", "rollout.num_engines=2")
    )
    for one, two in zip(trainer.rows("run"), trainer.rows("two"), strict=True):
        assert one["mismatch"] < 1e-4
        for name in ("loss", "divergence", "grad_norm", "learned_rows", "entropy", "success"):
            assert two[name] == pytest.approx(one[name], rel=1e-3), name


@pytest.mark.full
def test_two_ranks_with_an_untied_head_and_split_gradients_learn_what_one_learns(trainer: Trainer, tmp_path: Path) -> None:
    """A rank that has run out of rows must still reduce every parameter, the head's too, or the ranks wait for ever."""
    untied = write_tiny_model(tmp_path / "untied", tie_embeddings=False)
    one_micro_batch_a_row = "batch.micro_batch_tokens=1"
    common = (f"model.path={untied}", "num_steps=2", "evaluation.num_tasks=0", "batch.num_tasks=1", "batch.group_size=3")
    common = (*common, one_micro_batch_a_row, "learner.dtype=bfloat16")
    trainer.run(trainer.words(*common, env=f"{TINY}:Hopeless"))
    trainer.run(trainer.words(*common, "name=two", "learner.num_ranks=2", "learner.zero_stage=2", env=f"{TINY}:Hopeless"))
    for one, two in zip(trainer.rows("run"), trainer.rows("two"), strict=True):
        assert one["learned_rows"] == two["learned_rows"] == 3.0
        for name in ("loss", "divergence", "grad_norm"):
            assert two[name] == pytest.approx(one[name], rel=0.03), name


def test_a_checkpoint_is_evaluated_on_heldout_tasks(trainer: Trainer) -> None:
    trainer.run(trainer.words("num_steps=1", "evaluation.num_tasks=0"))
    shared = ("model.", "env", "sampling.", "rollout.", "cluster.")
    words = [word for word in trainer.words() if word.startswith(shared) and not word.startswith("model.path")]
    folder = trainer.runs / "run" / "checkpoints" / "step_000001"
    output = trainer.run(
        [
            *words, f"checkpoint={folder}", "k=2", "num_tasks=3", "lift=true", "hindsight.max_prompt_tokens=300",
            f"logs_dir={trainer.runs / 'evaluate' / 'logs'}",
        ],
        "evaluate",
    )  # fmt: skip
    assert '"heldout/pass_at_k"' in output.splitlines()[-1]
    assert '"lift/hindsight"' in output.splitlines()[-1]
    assert output.count("letters/") == 3


def test_an_environment_that_raises_or_hangs_is_set_aside_and_counted(trainer: Trainer) -> None:
    common = (
        "num_steps=1",
        "batch.num_tasks=16",
        "batch.group_size=2",
        "evaluation.num_tasks=0",
        "rollout.max_set_aside_share=0.9",
    )
    trainer.run(trainer.words(*common, env=f"{TINY}:Raising"))
    row = trainer.rows()[0]
    assert row["set_aside"] == 10.0  # c, f, i, l, o: five letters of sixteen, two attempts each
    assert row["attempts"] == 22.0
    broken = [attempt for attempt in trainer.rollouts(1) if "set_aside" in attempt]
    assert all("the verifier's own fault" in str(attempt["set_aside"]) for attempt in broken)

    trainer.run(trainer.words(*common, "name=hanging", "rollout.verify_timeout_s=3", env=f"{TINY}:Hanging"))
    assert trainer.rows("hanging")[0]["set_aside"] == 2.0
    assert trainer.rows("hanging")[0]["attempts"] == 30.0
