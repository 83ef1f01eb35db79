"""The teacher's average follows steps that bf16 cannot even hold, also across a checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdpo.config import Dtype, EmaTeacher, LoraConfig, Offload, SDPOConfig
from tests.learner.launch import launch
from tests.learner.ranks import Setup, follow_small_steps
from tests.tiny import write_tiny_model

pytestmark = pytest.mark.integration
NUM_STEPS, SIZE, RATE = 400, 1e-6, 0.01


@pytest.mark.parametrize(
    ("num_ranks", "stage", "changes"),
    [
        (1, 1, {}),
        pytest.param(2, 1, {}, marks=pytest.mark.full),
        pytest.param(2, 2, {}, marks=pytest.mark.full),
        pytest.param(1, 3, {}, marks=pytest.mark.full),
        pytest.param(2, 3, {}, marks=pytest.mark.full),
        (2, 3, {"offload": Offload.all}),
        (2, 1, {"lora": LoraConfig(rank=4)}),
        pytest.param(2, 3, {"lora": LoraConfig(rank=4)}, marks=pytest.mark.full),
    ],
    ids=str,
)
def test_the_average_follows_steps_of_a_millionth(
    num_ranks: int, stage: int, changes: dict[str, object], tmp_path: Path, tiny: Path
) -> None:
    teacher = EmaTeacher(ema_rate=RATE, offload=num_ranks == 2 and stage == 2)
    setup = Setup(model=tiny, algorithm=SDPOConfig(teacher=teacher)).with_(dtype=Dtype.bfloat16, zero_stage=stage, **changes)
    middle, end = launch(num_ranks, follow_small_steps, setup, NUM_STEPS, SIZE, tmp_path / "middle")[0]
    print(
        f"{num_ranks} ranks, ZeRO {stage}, {changes}: cosine after {NUM_STEPS // 2} steps {middle.fp32:.6f} (in bf16 "
        f"{middle.bf16:.3f}), after {NUM_STEPS} {end.fp32:.6f} (in bf16 {end.bf16:.3f}), length {end.length:.5f}"
    )
    for seen in (middle, end):
        assert seen.speaks
        assert seen.fp32 > 0.999
        assert seen.length == pytest.approx(1.0, abs=0.01)
    assert end.bf16 < 0.9


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With weights of a size that real models have."""
    return write_tiny_model(tmp_path_factory.mktemp("average") / "tiny")
