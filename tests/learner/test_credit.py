"""What is kept of single tokens is what student and teacher say of them: checked against the plain computation in fp64."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sdpo.config import FrozenTeacher, SDPOConfig, TopSupport
from sdpo.learner.orders import Recording
from sdpo.learner.recording import joined_credit
from sdpo.types import Sample, TokenCredit
from tests.learner import reference
from tests.learner.launch import launch
from tests.learner.ranks import Setup, credits
from tests.learner.samples import TEMPERATURE, rows, update_of

pytestmark = pytest.mark.integration
SDPO = SDPOConfig(support=TopSupport(num_ids=10), teacher=FrozenTeacher())
ALL = Recording(share=1.0, num_top=4)


def kept(
    model: Path, *, num_teams: int = 1, budget: int = 100_000, recording: Recording = ALL, **learner: int
) -> tuple[tuple[TokenCredit, ...], dict[str, float]]:
    """Of an update with rows of every kind, from all ranks."""
    num_ranks = num_teams * learner.get("sequence_parallel", 1)
    setup = Setup(model=model, algorithm=SDPO, recording=recording).with_(num_ranks=num_ranks, **learner)
    update = update_of(rows(model, share=0.0), SDPO, num_ranks=num_teams, micro_batch_tokens=budget)
    found = launch(num_ranks, credits, setup, update)
    assert all(not left for _, _, left in found), "what was asked for once is not kept"
    return joined_credit([part for of_rank, _, _ in found for part in of_rank]), found[0][1]


def distilled(model: Path) -> dict[tuple[int, int], Sample]:
    """The rows that a teacher scores, by where they stand."""
    samples = (sample for sample in rows(model, share=0.0) if sample.is_distilled and any(sample.loss_mask))
    return {(sample.task_index, sample.attempt_index): sample for sample in samples}


def logprobs(model: Path, prompt: Sequence[int] | None, response: Sequence[int]) -> Tensor:
    llama, weights = reference.read(model)
    assert prompt is not None
    with torch.no_grad():
        return llama.logprobs(weights, prompt, response, TEMPERATURE)


def test_every_token_has_the_numbers_of_the_plain_computation(model: Path) -> None:
    found, metrics = kept(model, budget=450)
    expected = distilled(model)
    assert [(one.task_index, one.attempt_index) for one in found] == sorted(expected)
    for one in found:
        sample = expected[one.task_index, one.attempt_index]
        own = [place for place, is_own in enumerate(sample.loss_mask) if is_own]
        assert one.places_n.tolist() == own, "every token of the policy's own, and none of the environment's"
        ids = torch.tensor(sample.response_ids)[own]
        student_nV = logprobs(model, sample.prompt_ids, sample.response_ids)[own]
        teacher_nV = logprobs(model, sample.teacher_prompt_ids, sample.response_ids)[own]
        for said_n, top, plain_nV in (
            (one.student_n, one.student_top, student_nV),
            (one.teacher_n, one.teacher_top, teacher_nV),
        ):
            torch.testing.assert_close(said_n.double(), plain_nV.gather(-1, ids[:, None])[:, 0], atol=1e-5, rtol=0)
            torch.testing.assert_close(top.logprobs_nk.double(), plain_nV.topk(4).values, atol=1e-5, rtol=0)
            torch.testing.assert_close(plain_nV.gather(-1, top.ids_nk), plain_nV.topk(4).values, atol=1e-5, rtol=0)
    num = sum(len(one.places_n) for one in found)
    assert sum(float((one.teacher_n - one.student_n).sum()) for one in found) / num == pytest.approx(metrics["credit"], abs=1e-5)
    assert sum(float(one.divergence_n.sum()) for one in found) / num == pytest.approx(metrics["divergence"], abs=1e-5)
    assert {"time/teacher_s", "time/student_s", "time/optimizer_s", "time/record_s"} <= metrics.keys()


@pytest.mark.parametrize(
    ("num_teams", "changes"), [(2, {"zero_stage": 3}), (1, {"sequence_parallel": 2})], ids=["two, ZeRO 3", "Ulysses"]
)
def test_ranks_together_keep_what_one_keeps(model: Path, num_teams: int, changes: dict[str, int]) -> None:
    alone, _ = kept(model)
    together, _ = kept(model, num_teams=num_teams, **changes)
    assert len(alone) == len(together) > 8
    for one, other in zip(alone, together, strict=True):
        assert (one.task_index, one.attempt_index, one.update_index) == (
            other.task_index,
            other.attempt_index,
            other.update_index,
        )
        assert one.places_n.tolist() == other.places_n.tolist()
        for name in ("student_n", "teacher_n", "divergence_n"):
            torch.testing.assert_close(getattr(one, name), getattr(other, name), atol=1e-5, rtol=0)
        torch.testing.assert_close(one.teacher_top.logprobs_nk, other.teacher_top.logprobs_nk, atol=1e-5, rtol=0)


def test_keeping_changes_nothing_of_what_is_learned(model: Path) -> None:
    def learned(recording: Recording) -> dict[str, float]:
        _, metrics = kept(model, recording=recording)
        return {name: value for name, value in metrics.items() if not name.startswith(("time/", "memory/"))}

    assert learned(ALL) == learned(Recording(share=0.0, num_top=4))


def test_of_a_later_epoch_nothing_is_kept_and_no_attempt_is_counted_again(model: Path) -> None:
    setup = Setup(model=model, algorithm=SDPO, recording=ALL)
    again = replace(update_of(rows(model, share=0.0), SDPO), epoch=1)
    ((found, metrics, _),) = launch(1, credits, setup, again)
    assert (found, metrics["learned_rows"], metrics["updates"]) == ([], 0.0, 1.0)


def test_a_share_of_the_attempts_is_kept_and_the_smaller_share_is_a_part_of_the_larger(model: Path) -> None:
    def keys(share: float) -> set[tuple[int, int]]:
        found, _ = kept(model, recording=Recording(share=share, num_top=1))
        return {(one.task_index, one.attempt_index) for one in found}

    assert not keys(0.0)
    assert keys(0.5) < keys(1.0) == set(distilled(model))
