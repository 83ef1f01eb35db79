"""``sdpo warmup`` as a user runs it, on a tiny model and an environment that knows its answers."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.integration.conftest import Trainer

pytestmark = pytest.mark.integration
SUMS = f"{Path(__file__).parent.parent / 'letters.py'}:Sums"


def words(trainer: Trainer, *more: str) -> list[str]:
    shared = ("model.", "env", "sampling.", "rollout.", "cluster.", "algorithm.", "evaluation.", "learner.dtype")
    return [
        *(word for word in trainer.words(env=SUMS) if word.startswith(shared)),
        f"to={trainer.runs / 'warm'}", f"logs_dir={trainer.runs / 'warmup' / 'logs'}", "num_updates=4", "lr=1e-2",
        "sampling.max_response_tokens=12", "pairs_per_update=6", "plain_per_update=2", "pairs.num_tasks=8",
        "pairs.num_attempts=2",
        *more,
    ]  # fmt: skip


def test_a_warmup_leaves_a_model_that_has_learned_from_pairs_and_says_what_it_measured(trainer: Trainer) -> None:
    output = trainer.run(words(trainer), "warmup")
    model = trainer.runs / "warm"
    about = json.loads((model / "warmup.json").read_text())
    summary = json.loads(output.splitlines()[-1])
    assert summary["pairs"] == about["pairs"]
    assert about["pairs"]["demonstration"] == {"reference-itself": 8}
    assert sum(about["pairs"]["feedback"].values()) == sum(about["pairs"]["both"].values()) >= 16
    assert set(about["pairs"]["feedback"]) == {"reference-own", "reference-reference"}
    for measured in (about["before"], about["after"]):
        assert {"plain", "plain/se", "feedback/lift"} <= set(measured)
    assert about["config"]["num_updates"] == 4
    entropies = [float(line.split("cross-entropy ")[1].split()[0]) for line in output.splitlines() if line.startswith("update ")]
    assert len(entropies) == 4
    assert entropies[-1] < entropies[0] - 0.5
    assert "teacher lift" in output

    AutoModelForCausalLM.from_pretrained(model)
    assert AutoTokenizer.from_pretrained(model).chat_template
    before, after = (load_file(folder / "model.safetensors") for folder in (trainer.model, model))
    assert before.keys() == after.keys()
    assert any(not before[name].equal(after[name]) for name in before)
    assert [path.name for path in trainer.runs.iterdir() if "partial" in path.name] == []
    assert "must name a folder that is not there yet" in trainer.run(words(trainer), "warmup", expected=2)


@pytest.mark.full
def test_an_interrupt_leaves_nothing_half_written(trainer: Trainer) -> None:
    process = trainer.start(words(trainer, "num_updates=10000", "evaluation.num_tasks=0"), "warmup")
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("update 2/"):
            break
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "was not made" in output
    assert {path.name for path in trainer.runs.iterdir()} == {"warmup"}
