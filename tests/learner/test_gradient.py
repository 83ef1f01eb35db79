"""One update has one gradient: however its rows are split, permuted and dealt out, and whatever holds the parameters.

fp32 against fp32 is held to 1e-6 of the whole gradient's norm, and against the plain computation in fp64 to 2e-6. On the model
used here both come to 5e-7; on tests/tiny.py's as it is they come to 1.5e-6 and 4e-6, because its gradient is that sensitive to
rounding (``write_calm_model``).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sdpo.config import (
    Blend,
    Dtype,
    FrozenTeacher,
    LoraConfig,
    Offload,
    SDPOConfig,
    TopSupport,
)
from sdpo.types import Sample, Update
from tests.learner import reference
from tests.learner.launch import launch
from tests.learner.ranks import Gradient, Setup, gradients
from tests.learner.samples import MAX_RESPONSE_TOKENS, TEMPERATURE, rows, taught, unshared, update_of
from tests.learner.tiers import tiered

pytestmark = pytest.mark.integration
BLEND = SDPOConfig(support=TopSupport(num_ids=10), routing=Blend(policy_gradient_share=0.4), teacher=FrozenTeacher())
NUM_REPEATS = 20
BUDGETS = (100_000, 450, 150, 1)
"""Tokens of a micro-batch: all rows in one, then in ever more."""


def splits(samples: Sequence[Sample], num_ranks: int) -> list[Update]:
    """The same update in several ways."""
    found = []
    for seed, budget in enumerate(BUDGETS):
        permuted = list(samples)
        if seed:
            random.Random(seed).shuffle(permuted)
        found.append(update_of(permuted, BLEND, num_ranks=num_ranks, micro_batch_tokens=budget))
    if num_ranks == 1:
        found += [unshared(samples, found[0], num) for num in (1, 2, 3)]
    return found


def difference(one: Tensor, other: Tensor) -> float:
    return float((one.double() - other.double()).norm() / other.double().norm())


@cache
def plain(model: Path) -> tuple[float, Tensor]:
    """Loss and gradient in fp64."""
    llama, weights = reference.read(model)
    loss = reference.loss(
        llama,
        weights,
        reference.Teacher(models=((weights, 1.0, True),)),
        taught(model),
        BLEND,
        temperature=TEMPERATURE,
        max_response_tokens=MAX_RESPONSE_TOKENS,
    )
    by_parameter = torch.autograd.grad(loss, list(weights.values()))
    named = dict(zip(weights, by_parameter, strict=True))
    return loss.item(), torch.cat([named[name].flatten() for name in sorted(named)])


@cache
def single(model: Path) -> Gradient:
    """One rank, one micro-batch, no ZeRO."""
    update = update_of(taught(model), BLEND)
    return launch(1, gradients, [(Setup(model=model, algorithm=BLEND).with_(zero_stage=0), [update])])[0][0][0]


def check(found: Sequence[Sequence[Gradient]], labels: Sequence[str], model: Path) -> None:
    """All of them agree with the single one to 1e-6, and their losses too."""
    worst = 0.0
    for label, of_setup in zip(labels, found, strict=True):
        apart = [difference(one.vector, single(model).vector) for one in of_setup]
        of_loss = [abs(one.loss / single(model).loss - 1.0) for one in of_setup]
        print(f"{label}: gradient {max(apart):.1e}, loss {max(of_loss):.1e}")
        worst = max(worst, *apart, *of_loss)
    assert worst < 1e-6


@pytest.mark.parametrize("which", ["model", "untied"])
def test_the_gradient_is_that_of_the_formulas_in_fp64(which: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(which)
    loss, vector = plain(model)
    one = single(model)
    print(
        f"{which}: gradient {difference(one.vector, vector):.1e}, loss {abs(one.loss / loss - 1.0):.1e}, norm {vector.norm():.3f}"
    )
    assert difference(one.vector, vector) < 2e-6
    assert one.loss == pytest.approx(loss, rel=1e-6)
    assert one.loss == pytest.approx(sum(one.sums[part] for part in ("distillation", "policy_gradient", "supervised")), rel=1e-6)


def test_a_row_that_no_engine_sampled_enters_neither_mismatch_nor_the_other_losses(model: Path) -> None:
    """Its log-probabilities are placeholders: 0, as if it had been certain."""
    without = launch(1, gradients, [(Setup(model=model, algorithm=BLEND).with_(zero_stage=0), [update_of(rows(model), BLEND)])])
    alone, beside = without[0][0][0].sums, single(model).sums
    for name in ("mismatch", "sampled", "distillation", "policy_gradient", "distilled", "divergence", "credit"):
        assert beside[name] == pytest.approx(alone[name], rel=1e-6), name
    assert alone["supervised"] == 0.0 < beside["supervised"]
    assert alone["sampled"] == alone["learned"]
    assert beside["learned"] - beside["sampled"] == sum(sum(s.loss_mask) for s in taught(model) if s.supervised_weight)


@pytest.mark.parametrize(
    ("which", "num_ranks"),
    [
        ("model", 2),
        ("untied", 1),
        pytest.param("model", 1, marks=pytest.mark.full),
        pytest.param("untied", 2, marks=pytest.mark.full),
    ],
)
def test_the_gradient_depends_on_no_split_order_rank_or_zero_stage(
    which: str, num_ranks: int, request: pytest.FixtureRequest
) -> None:
    model = request.getfixturevalue(which)
    updates = splits(taught(model), num_ranks)
    numbers = {len(update.micro_batches[0]) for update in updates}
    assert {1, 2} < numbers
    assert max(numbers) * num_ranks >= 14
    setup = Setup(model=model, algorithm=BLEND)
    stages = (0, 1, 2, 3)
    found = launch(num_ranks, gradients, [(setup.with_(zero_stage=stage), updates) for stage in stages])[0]
    check(found, [f"{which}, {num_ranks} ranks, ZeRO {stage}, {sorted(numbers)} micro-batches" for stage in stages], model)


@pytest.mark.parametrize("stages", tiered([(0, 3), (1, 2)], [(0, 3)]), ids=str)
def test_ranks_that_share_rows_have_the_gradient_of_one(stages: tuple[int, ...], model: Path) -> None:
    """Ulysses: every rank computes a slice of the tokens and some of the heads."""
    setup = Setup(model=model, algorithm=BLEND)
    updates = [update for update in splits(taught(model), 1)[: len(BUDGETS)] if len(update.micro_batches[0]) < 5]
    asked = [(setup.with_(zero_stage=stage, num_ranks=2, sequence_parallel=2), updates) for stage in stages]
    check(launch(2, gradients, asked)[0], [f"Ulysses, ZeRO {stage}" for stage in stages], model)


@pytest.mark.parametrize("stage", tiered([1, 3], [3]))
def test_two_teams_of_ranks_have_the_gradient_of_one(stage: int, model: Path) -> None:
    setup = Setup(model=model, algorithm=BLEND).with_(num_ranks=4, sequence_parallel=2)
    updates = [update_of(taught(model), BLEND, num_ranks=2, micro_batch_tokens=budget) for budget in (100_000, 150)]
    check(launch(4, gradients, [(setup.with_(zero_stage=stage), updates)])[0], [f"two teams, ZeRO {stage}"], model)


@pytest.mark.parametrize("corners", [True, pytest.param(False, marks=pytest.mark.full)], ids=["corners", "all"])
@pytest.mark.parametrize("num_ranks", tiered([1, 2], [2]))
def test_offload_and_recomputation_do_not_change_the_gradient(num_ranks: int, corners: bool, model: Path) -> None:
    setup = Setup(model=model, algorithm=BLEND)
    variants = {
        "optimizer offloaded, ZeRO 1": setup.with_(zero_stage=1, offload=Offload.optimizer),
        "optimizer offloaded, ZeRO 2": setup.with_(zero_stage=2, offload=Offload.optimizer),
        "optimizer offloaded, ZeRO 3": setup.with_(zero_stage=3, offload=Offload.optimizer),
        "all offloaded, ZeRO 3": setup.with_(zero_stage=3, offload=Offload.all),
        "recomputed, ZeRO 1": setup.with_(zero_stage=1, gradient_checkpointing=True),
        "recomputed, ZeRO 3": setup.with_(zero_stage=3, gradient_checkpointing=True),
        "logits in chunks": setup.with_(logits_chunk_mib=0.02),
    }
    if corners:
        chosen = ("optimizer offloaded, ZeRO 2", "all offloaded, ZeRO 3", "recomputed, ZeRO 3", "logits in chunks")
        variants = {label: variants[label] for label in chosen}
    updates = splits(taught(model), num_ranks)[:3]
    found = launch(num_ranks, gradients, [(variant, updates) for variant in variants.values()])[0]
    check(found, [f"{label}, {num_ranks} ranks" for label in variants], model)


def test_recomputation_and_shared_rows_go_together(model: Path) -> None:
    setup = Setup(model=model, algorithm=BLEND).with_(num_ranks=2, sequence_parallel=2, gradient_checkpointing=True)
    asked = [(setup.with_(zero_stage=stage), [update_of(taught(model), BLEND)]) for stage in (1, 3)]
    check(launch(2, gradients, asked)[0], ["Ulysses recomputed, ZeRO 1", "Ulysses recomputed, ZeRO 3"], model)


@pytest.mark.parametrize("corners", [True, pytest.param(False, marks=pytest.mark.full)], ids=["corners", "all"])
@pytest.mark.parametrize("num_ranks", tiered([1, 2], [2]))
def test_adapters_have_one_gradient_too(num_ranks: int, corners: bool, model: Path) -> None:
    setup = Setup(model=model, algorithm=BLEND).with_(lora=LoraConfig(rank=4))
    one = launch(1, gradients, [(setup.with_(zero_stage=0), [update_of(taught(model), BLEND)])])[0][0][0]
    assert one.vector.norm() > 0.01
    recomputed, stages = ((3,), (0,)) if corners else ((1, 3), (0, 1, 2, 3))
    variants = {f"ZeRO {stage}": setup.with_(zero_stage=stage) for stage in stages}
    variants |= {f"ZeRO {stage} recomputed": setup.with_(zero_stage=stage, gradient_checkpointing=True) for stage in recomputed}
    variants["ZeRO 3 all offloaded"] = setup.with_(zero_stage=3, offload=Offload.all)
    shared = {f"ZeRO {stage} Ulysses": setup.with_(zero_stage=stage, num_ranks=2, sequence_parallel=2) for stage in recomputed}
    updates = splits(taught(model), num_ranks)[: 2 if corners else 3]
    asked = {label: (variant, updates) for label, variant in variants.items()}
    if num_ranks == 2:
        asked |= {label: (variant, [update_of(taught(model), BLEND)]) for label, variant in shared.items()}
    for label, of_setup in zip(asked, launch(num_ranks, gradients, list(asked.values()))[0], strict=True):
        apart = max(difference(other.vector, one.vector) for other in of_setup)
        print(f"adapters, {num_ranks} ranks, {label}: {apart:.1e}")
        assert apart < 1e-6


@pytest.mark.parametrize("row", tiered(["hinted", "short", "plain"], ["short"]))
@pytest.mark.parametrize("stages", tiered([(0, 3), (1, 2)], [(0, 3)]), ids=str)
def test_ranks_without_rows_and_tokens_of_their_own_change_nothing(stages: tuple[int, ...], row: str, untied: Path) -> None:
    """One short row, with and without a hint, for three ranks, and for two that share it: the others have fillers, or padding."""
    setup = Setup(model=untied, algorithm=BLEND)
    hinted, plain_, hint_alone = rows(untied)[0], rows(untied)[3], rows(untied)[4]
    sample = {"hinted": hinted, "short": replace(hint_alone, prompt_ids=(7,), advantage=1.0), "plain": plain_}[row]
    one = launch(1, gradients, [(setup.with_(zero_stage=0), [update_of([sample], BLEND)])])[0][0][0]
    assert one.vector.norm() > 0.01
    labels, found = [], []
    for num_ranks, size in ((3, 1), (2, 2)):
        update = update_of([sample], BLEND, num_ranks=num_ranks // size)
        asked = [(setup.with_(zero_stage=stage, num_ranks=num_ranks, sequence_parallel=size), [update]) for stage in stages]
        found += launch(num_ranks, gradients, asked)[0]
        labels += [f"{num_ranks} ranks, teams of {size}, ZeRO {stage}" for stage in stages]
    apart = {label: difference(other.vector, one.vector) for label, (other,) in zip(labels, found, strict=True)}
    print({label: f"{value:.1e}" for label, value in apart.items()})
    assert max(apart.values()) < 1e-6


@pytest.mark.parametrize("corners", [True, pytest.param(False, marks=pytest.mark.full)], ids=["corners", "all"])
@pytest.mark.parametrize("num_ranks", tiered([1, 2], [2]))
def test_gradients_of_many_micro_batches_add_up_in_fp32_under_bf16(num_ranks: int, corners: bool, model: Path) -> None:
    """The same micro-batch 20 times over: a sum in bf16, with 8 bits, would be off by a percent."""
    setup = Setup(model=model, algorithm=BLEND).with_(dtype=Dtype.bfloat16)
    update = update_of(rows(model, num_tasks=1), BLEND, num_ranks=num_ranks)
    (batches,) = zip(*update.micro_batches, strict=True)
    often = replace(update, micro_batches=tuple((batch,) * NUM_REPEATS for batch in batches))
    plain_stages, offloaded_stages = ((1, 3), (2,)) if corners else ((1, 2, 3), (2, 3))
    variants = {f"ZeRO {stage}": setup.with_(zero_stage=stage) for stage in plain_stages}
    variants |= {
        f"ZeRO {stage} offloaded": setup.with_(zero_stage=stage, offload=Offload.optimizer) for stage in offloaded_stages
    }
    found = launch(num_ranks, gradients, [(variant, [update, often]) for variant in variants.values()])[0]
    apart = {
        label: difference(sum_.vector / NUM_REPEATS, once.vector) for label, (once, sum_) in zip(variants, found, strict=True)
    }
    print(f"{num_ranks} ranks: " + ", ".join(f"{label} {value:.1e}" for label, value in apart.items()))
    assert max(apart.values()) < 1e-5
