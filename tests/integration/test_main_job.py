"""Does the main job learn? Its short form: three families of functions, 192 attempts, the default model after a warm-up."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.integration.conftest import Trainer
from tests.session import RAY

pytestmark = [
    pytest.mark.integration,
    pytest.mark.full,
    pytest.mark.timeout(7200),
]  # bf16 takes eight times as long without AVX-512
HOURS = 7200
SAME = (
    "env.options.families=[last_items,surround,get_or]", "rollout.kv_cache_gib=1", "rollout.num_verifiers=1",
)  # fmt: skip


@pytest.fixture(scope="module")
def warmed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """From the model's package, which is fetched once."""
    folder = tmp_path_factory.mktemp("warmed")
    trainer = Trainer(model=folder / "model", runs=folder)
    words = [
        "experiment=warmup_one_liners", f"to={trainer.model}", *SAME, "num_updates=4", "pairs.num_tasks=12",
        "evaluation.num_tasks=0", "learner.dtype=float32", "rollout.dtype=float32", f"logs_dir={folder / 'logs'}", "quiet=true",
        f"cluster.address={os.environ[RAY]}",
    ]  # fmt: skip
    trainer.run(words, "warmup", timeout_s=HOURS)
    return trainer.model


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_held_out_success_rises_in_either_arithmetic(trainer: Trainer, warmed: Path, dtype: str) -> None:
    """On one of two machines, which computes in bf16, the first command that anybody runs learned nothing, and no test knew.

    ``make test`` has the same of a model of a million parameters (``tests/learning/test_learning.py``).
    """
    words = [
        "experiment=one_liners", f"model.path={warmed}", *SAME, f"learner.dtype={dtype}", f"rollout.dtype={dtype}", "num_steps=8",
        "batch.num_tasks=6", "evaluation.num_tasks=9", "evaluation.lift=never", "evaluation.num_constants=0",
        f"runs_dir={trainer.runs}", "name=run", f"cluster.address={os.environ[RAY]}", "tracking.tensorboard=false",
    ]  # fmt: skip
    trainer.run(words, timeout_s=HOURS)
    before, after = (look["heldout/success"] for look in trainer.evaluations())
    assert after > before + 0.2, f"{before:.1%} -> {after:.1%}"
