"""Does the main job learn? Its short form: three families of functions, a hundred attempts, the default model as it comes."""

from __future__ import annotations

import os

import pytest

from tests.integration.conftest import Trainer
from tests.session import RAY

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]  # the model is fetched once


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_held_out_success_rises_in_either_arithmetic(trainer: Trainer, dtype: str) -> None:
    """On one of two machines, which computes in bf16, the first command that anybody runs learned nothing, and no test knew."""
    trainer.run(
        [
            "experiment=one_liners", "model.path=package:smollm2_135m", f"learner.dtype={dtype}", f"rollout.dtype={dtype}",
            "env.options.families=[last_items,surround,get_or]", "num_steps=4", "batch.num_tasks=6", "evaluation.num_tasks=9",
            "evaluation.lift=never", "evaluation.num_constants=0", "rollout.kv_cache_gib=1", "rollout.num_verifiers=1",
            f"runs_dir={trainer.runs}", "name=run", f"cluster.address={os.environ[RAY]}", "tracking.tensorboard=false",
        ],
        timeout_s=800,
    )  # fmt: skip
    before, after = (look["heldout/success"] for look in trainer.evaluations())
    assert after > before + 0.2, f"{before:.1%} -> {after:.1%}"
