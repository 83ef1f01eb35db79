"""A teacher with weights of its own stays where it is told to, becomes the policy when it is told to, and survives a kill."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdpo.config import (
    Blend,
    Dtype,
    EmaTeacher,
    LearnerConfig,
    LoraConfig,
    OnGainTeacher,
    SDPOConfig,
    TeacherConfig,
    TopSupport,
)
from tests.learner.launch import launch
from tests.learner.ranks import Setup, steer
from tests.learner.samples import rows, update_of
from tests.learner.test_resume import differing

pytestmark = pytest.mark.integration
CONFIG = LearnerConfig(dtype=Dtype.bfloat16, lr=1e-3, warmup_updates=0)
VARIANTS: dict[str, tuple[int, TeacherConfig, dict[str, object]]] = {
    "average": (1, EmaTeacher(ema_rate=0.2), {"zero_stage": 1}),
    "copy of adapters": (1, OnGainTeacher(), {"zero_stage": 1, "lora": LoraConfig(rank=4)}),
    "average on the host": (2, EmaTeacher(ema_rate=0.2, offload=True), {"zero_stage": 2}),
    "copy": (2, OnGainTeacher(), {"zero_stage": 3}),
}
"""Number of ranks, teacher, learner."""


@pytest.mark.parametrize("label", VARIANTS)
def test_a_teacher_stays_and_is_refreshed(label: str, model: Path, tmp_path: Path) -> None:
    num_ranks, teacher, changes = VARIANTS[label]
    algorithm = SDPOConfig(support=TopSupport(num_ids=10), routing=Blend(policy_gradient_share=0.4), teacher=teacher)
    setup = Setup(model=model, algorithm=algorithm, config=CONFIG).with_(**changes)
    steps = [[update_of(rows(model, seed=seed), algorithm, num_ranks=num_ranks)] for seed in range(3)]
    found = launch(num_ranks, steer, setup, steps, tmp_path / "saved")[0]
    assert (found.stayed, found.refreshed, found.speaks) == (True, True, True)
    assert found.follows_after == (teacher.kind == "ema")
    assert differing(found.whole, found.resumed) == []
