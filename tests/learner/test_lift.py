"""What the learner tells of its teacher: weights to sample from, and credit for solved and for failed attempts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from sdpo.config import Blend, Dtype, EmaTeacher, FrozenTeacher, LearnerConfig, LoraConfig, SDPOConfig, TeacherConfig, TopSupport
from sdpo.types import Sample
from tests.learner import reference
from tests.learner.launch import launch
from tests.learner.ranks import Setup, lend
from tests.learner.samples import TEMPERATURE, rows, update_of

pytestmark = pytest.mark.integration
IDS = tuple(range(20, 60))
LORA: dict[str, object] = {"lora": LoraConfig(rank=4)}


def setup(model: Path, teacher: TeacherConfig, **changes: object) -> Setup:
    algorithm = SDPOConfig(support=TopSupport(num_ids=10), routing=Blend(policy_gradient_share=0.4), teacher=teacher)
    return Setup(model=model, algorithm=algorithm, config=LearnerConfig(dtype=Dtype.float32, lr=2e-3)).with_(**changes)


@pytest.mark.parametrize(("num_ranks", "stage"), [(1, 1), (2, 3)])
def test_the_teachers_weights_say_what_the_teacher_says(num_ranks: int, stage: int, model: Path) -> None:
    """The average and the frozen start, as models of their own and as adapters or their bare base."""
    cases = [(teacher, changes) for teacher in (EmaTeacher(ema_rate=0.2), FrozenTeacher()) for changes in ({}, LORA)]
    setups = [setup(model, teacher, zero_stage=stage, **changes) for teacher, changes in cases]
    steps = [[[update_of(rows(model, seed=seed), one.algorithm, num_ranks=num_ranks)] for seed in range(2)] for one in setups]
    found, *others = launch(num_ranks, lend, list(zip(setups, steps, strict=True)), IDS)
    start = load_file(model / "model.safetensors")
    llama, _ = reference.read(model)
    for (teacher, changes), lent in zip(cases, found, strict=True):
        assert lent.teacher.keys() == lent.policy.keys() == start.keys()
        said, of_policy = (
            llama.logits({name: tensor.double() for name, tensor in weights.items()}, IDS)
            for weights in (lent.teacher, lent.policy)
        )
        scale = lent.teacher_TV.double().norm()
        apart, from_policy = (float((other - lent.teacher_TV).norm() / scale) for other in (said, of_policy))
        print(f"{num_ranks} ranks, {teacher.kind}, {changes}: {apart:.1e} from the teacher, {from_policy:.1e} from the policy")
        assert apart < 2e-6
        assert from_policy > 20 * apart
        assert all(torch.equal(lent.teacher[name], start[name]) for name in start) == isinstance(teacher, FrozenTeacher)
    assert all(not lent.teacher and not lent.policy for of_rank in others for lent in of_rank)


@pytest.mark.parametrize(("num_ranks", "micro_batch_tokens"), [(1, 100_000), (2, 100)])
def test_credit_is_split_by_what_was_solved_however_the_update_is_split(
    num_ranks: int, micro_batch_tokens: int, model: Path
) -> None:
    one = setup(model, FrozenTeacher())
    samples = rows(model)
    update = update_of(samples, one.algorithm, num_ranks=num_ranks, micro_batch_tokens=micro_batch_tokens)
    (lent,) = launch(num_ranks, lend, [(one, [[update]])], IDS)[0]
    (metrics,) = lent.metrics
    expected = credits(model, [sample for sample in samples if sample.is_distilled])
    for name, tokens in expected.items():
        assert metrics[name] == pytest.approx(float(tokens.mean()), rel=1e-4, abs=1e-5), name
    assert abs(metrics["credit/solved"] - metrics["credit/failed"]) > 1e-3


def test_credit_of_what_there_is_none_of_is_left_out(model: Path) -> None:
    one = setup(model, FrozenTeacher())
    failed = [sample for sample in rows(model) if not sample.is_solved]
    (lent,) = launch(1, lend, [(one, [[update_of(failed, one.algorithm)]])], IDS)[0]
    (metrics,) = lent.metrics
    assert "credit/solved" not in metrics
    assert metrics["credit/failed"] == metrics["credit"]


def credits(model: Path, samples: Sequence[Sample]) -> Mapping[str, Tensor]:
    """By the formula, in fp64: log q(y) - log π(y) of the policy's own tokens, where both are the model in the folder."""
    llama, weights = reference.read(model)
    solved, failed = [], []
    for sample in samples:
        assert sample.teacher_prompt_ids is not None
        places, ids = range(len(sample.response_ids)), list(sample.response_ids)
        with torch.no_grad():
            teacher, student = (
                llama.logprobs(weights, prompt, sample.response_ids, TEMPERATURE)[places, ids]
                for prompt in (sample.teacher_prompt_ids, sample.prompt_ids)
            )
        (solved if sample.is_solved else failed).append((teacher - student)[torch.tensor(sample.loss_mask)])
    return {"credit/solved": torch.cat(solved), "credit/failed": torch.cat(failed), "credit": torch.cat(solved + failed)}
