"""Does SDPO learn? Few seeds, short answers, a model that is made here: the real engine and learner, in minutes."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import torch

from tests.learning.pool import Pool
from tests.learning.pretrain import Recipe, gym_model
from tests.learning.runs import Case, Curve

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]  # the first one makes the model
RECIPE = Recipe(num_steps=450, longest_from=((4, 0.0),))
RARE = ("experiment=gym_sdpo", "env.options.length=4", "env.options.base_success=0.01")


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    folder = tmp_path_factory.mktemp("gym")
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # where others work on the same cores, a second thread is waited for: four times as slow
    with Pool(gym_model(folder, RECIPE, lambda sentence: None), folder) as pool:
        torch.set_num_threads(before)
        yield pool


def runs(pool: Pool, **words: tuple[str, ...]) -> list[Curve]:
    """Side by side, one a core."""
    return pool.curves("", [Case(name=name, words=of_case, seed=0) for name, of_case in words.items()])


def rows(pool: Pool, name: str, file: str) -> list[dict[str, float]]:
    return [json.loads(line) for line in (pool.folder / "runs" / f"{name}-s0" / file).read_text().splitlines()]


def test_sdpo_learns_from_feedback_alone_where_success_is_rare(pool: Pool) -> None:
    """All groups fail at first, so there is nothing but feedback, and GRPO has nothing at all."""
    rare = ("env.options.length=4", "env.options.base_success=0.01", "num_steps=24", "learner.lr=1e-3")
    sdpo, grpo = runs(
        pool,
        sdpo=("experiment=gym_sdpo", *rare, "evaluation.lift=first_and_last", "algorithm.hindsight.choice=feedback_only"),
        grpo=("experiment=gym_grpo", *rare),
    )
    first = rows(pool, "sdpo", "evaluations.jsonl")[0]
    print(sdpo, grpo, first["lift"])
    assert first["heldout/success"] < 0.1
    assert first["lift"] > 0.5, "the model must know better when it is told, or there is nothing to be learned here"
    assert max(sdpo.success) > 0.6, "SDPO has stopped learning"
    ours, theirs = zip(*zip(sdpo.success, grpo.success, strict=False), strict=True)  # as long as neither has ended
    assert sum(ours) > 1.15 * sum(theirs), "both get there; SDPO has to be there sooner"


VARIANTS = (
    "cispo", "rloo", "reinforce_plus_plus", "reinforce_plus_plus_baseline", "grpo_sequence_truncate", "grpo_token_mask",
    "grpo_sequence_mask", "rlsd", "sdar", "beta_opsd", "majority_vote",
)  # fmt: skip
"""Presets of docs/algorithm.md, "Variants"."""
GRPO_LIKE = VARIANTS[:7]
FREQUENT = (
    "experiment=gym_sdpo", "env.options.length=4", "env.options.base_success=0.3", "num_steps=16", "learner.lr=1e-3",
)  # fmt: skip


@pytest.mark.full
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_learns_where_success_is_frequent(pool: Pool, variant: str) -> None:
    """The parts have tests of their own: tests/objectives/test_variants.py, tests/hindsight/test_majority_vote.py.

    Where a third of the attempts succeeds each has something to learn from, be it an advantage, an answer or a majority.
    """
    words = FREQUENT if variant not in GRPO_LIKE else ("experiment=gym_grpo", *FREQUENT[1:])
    (curve,) = runs(pool, **{variant: (*words, f"algorithm={variant}")})
    print(curve)
    assert max(curve.success) > curve.success[0] + 0.1


COLLAPSE = (
    "experiment=gym_sdpo", "env.options.length=4", "env.options.base_success=0.3", "env.options.misleading=true",
    "algorithm.teacher.kind=live", "algorithm.hindsight.choice=feedback_only", "num_steps=36", "learner.lr=1e-4",
    "evaluation.every=1", "evaluation.num_tasks=128", "evaluation.num_attempts=2",
)  # fmt: skip
RESPONSE = (
    "guards.response=raise_policy_gradient", "guards.policy_gradient_step=1.0", "guards.max_policy_gradient_share=1.0",
)  # fmt: skip


@pytest.mark.full
def test_a_run_that_collapses_is_noticed_before_its_success_has_halved_and_the_response_saves_it(pool: Pool) -> None:
    """A live teacher, a rate at which success halves in four steps, and feedback that insists on what is wrong.

    What raises the alarm and what the response does, by itself: tests/guards/test_guards.py and tests/loop/test_guards.py.
    """
    lost, saved = runs(pool, lost=COLLAPSE, saved=(*COLLAPSE, *RESPONSE))
    alarms, evaluations = rows(pool, "lost", "alarms.jsonl"), rows(pool, "lost", "evaluations.jsonl")
    print(lost, alarms, saved)
    best = max(lost.success)
    assert lost.success[-1] < 0.5 * best, "this run should have collapsed"
    at_alarm = next(evaluation["heldout/success"] for evaluation in evaluations if evaluation["step"] >= alarms[0]["step"])
    assert at_alarm >= 0.5 * best
    assert saved.success[-1] > 1.5 * best
