"""A teacher with weights of its own stays where it is told to, becomes the policy when it is told to, and survives a kill."""

from __future__ import annotations

from dataclasses import replace
from math import nan
from pathlib import Path

import pytest

from sdpo.config import (
    Blend,
    Dtype,
    EmaTeacher,
    LearnerConfig,
    LoraConfig,
    OnGainTeacher,
    PeriodicTeacher,
    SDPOConfig,
    TeacherConfig,
    TopSupport,
)
from tests.learner.launch import launch
from tests.learner.ranks import Leg, Setup, courses, steer
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


def test_a_periodic_teacher_is_made_anew_after_every_second_step_also_across_a_restart(model: Path, tmp_path: Path) -> None:
    """And where that step's only update was skipped: the step before it has moved the policy."""
    algorithm = SDPOConfig(support=TopSupport(num_ids=10), teacher=PeriodicTeacher(refresh_every=2))
    setup = Setup(model=model, algorithm=algorithm, config=CONFIG).with_(zero_stage=1)
    steps = [[update_of(rows(model, seed=seed), algorithm)] for seed in range(4)]
    spoilt = [replace(row, sampled_logprobs=(nan, *row.sampled_logprobs[1:])) for row in rows(model, seed=1)]
    legs = [
        Leg(setup=setup, steps=steps[:1], save=tmp_path / "saved"),
        *(Leg(setup=setup, steps=steps[:num]) for num in (2, 3, 4)),
        Leg(setup=setup, steps=steps[1:], restore=(tmp_path / "saved", 1, 1)),
        Leg(setup=setup, steps=[steps[0], [update_of(spoilt, algorithm)]]),
    ]
    one, two, three, four, resumed, skipped = launch(1, courses, legs)[0]
    begins = one.begins["master"]
    assert differing(one.ends["average"], begins) == []
    assert differing(two.ends["average"], two.ends["master"]) == []
    assert differing(two.ends["average"], begins) != []
    assert differing(three.ends["average"], two.ends["master"]) == []
    assert differing(four.ends["average"], four.ends["master"]) == []
    assert differing(four.ends["average"], two.ends["master"]) != []
    assert differing(four.ends, resumed.ends) == []
    assert skipped.metrics[1]["updates_skipped"] == 1.0
    assert differing(skipped.ends["average"], one.ends["master"]) == []
