"""The learner's losses of follow-up papers, against independent ones: the loss of an update and its gradients."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sdpo.batches.updates import micro_batch
from sdpo.config import (
    AlgorithmConfig,
    Auxiliary,
    Blend,
    Granularity,
    GRPOConfig,
    PolicyGradientConfig,
    RolloutCorrection,
    SDPOConfig,
    TopSupport,
)
from sdpo.learner.loss import OldLogprobs, micro_batch_loss
from sdpo.learner.orders import Scale
from sdpo.objectives.advantage import advantages_of
from sdpo.objectives.hindsight_losses import hindsight_loss_of
from sdpo.objectives.logits import Logits
from sdpo.objectives.rollout_weights import rollout_weights
from sdpo.objectives.scores import TokenScores
from sdpo.types import MicroBatch, Packing, Sample, Update
from tests.objectives.oracle import variants as oracle

VOCABULARY, WIDTH, TEMPERATURE = 13, 6, 0.8
LENGTHS = (5, 1, 4)
ADVANTAGES = (0.75, -1.5, -0.5)
MASKED = {(0, 2), (2, 3)}
"""Tokens, as (row, place), that no loss is of."""
TOLERANCE = 1e-6
"""Relative, of gradients and losses; weights and what the engine said come in fp32."""


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """Three responses, and what student, teacher, old policy and engine say of them."""

    hidden: Tensor
    head: Tensor
    hinted: Tensor
    ids: Tensor
    old: Tensor
    sampled: Tensor
    rows: Tensor
    mask: Tensor

    def student(self) -> Tensor:
        return (self.hidden @ self.head.T / TEMPERATURE).log_softmax(-1)

    def of_teacher(self) -> Tensor:
        return (self.hinted @ self.head.detach().T / TEMPERATURE).log_softmax(-1)

    def said(self, logprobs_NV: Tensor) -> Tensor:
        return logprobs_NV.gather(-1, self.ids[:, None])[:, 0]

    def kept(self) -> list[Tensor]:
        """For each row, which tokens a loss is of."""
        return [((self.rows == row) & self.mask).nonzero()[:, 0] for row in range(len(LENGTHS))]


def case() -> Case:
    num = sum(LENGTHS)
    rows = torch.tensor([row for row, length in enumerate(LENGTHS) for _ in range(length)])
    places = torch.tensor([place for length in LENGTHS for place in range(length)])
    hidden, head = normal(num, WIDTH, seed=1), normal(VOCABULARY, WIDTH, seed=2)
    ids = torch.randint(VOCABULARY, (num,), generator=torch.Generator().manual_seed(3))
    said = (hidden @ head.T / TEMPERATURE).log_softmax(-1).gather(-1, ids[:, None])[:, 0]
    old = said + 0.4 * normal(num, seed=4)
    return Case(
        hidden=hidden.requires_grad_(),
        head=head.requires_grad_(),
        hinted=hidden.detach() + 0.6 * normal(num, WIDTH, seed=5),
        ids=ids,
        old=old,
        sampled=(old + 0.4 * normal(num, seed=6)).float().double(),
        rows=rows,
        mask=torch.tensor([(row, place) not in MASKED for row, place in zip(rows.tolist(), places.tolist(), strict=True)]),
    )


def batch_of(of: Case, weights: tuple[float, float]) -> tuple[MicroBatch, Update]:
    """The rows with weights of distillation and policy gradient."""
    samples = [
        Sample(
            prompt_ids=(1,),
            teacher_prompt_ids=(1, 2) if weights[0] else None,
            response_ids=tuple(of.ids[of.rows == row].tolist()),
            loss_mask=tuple(of.mask[of.rows == row].tolist()),
            sampled_logprobs=tuple(of.sampled[of.rows == row].tolist()),
            advantage=ADVANTAGES[row],
            distillation_weight=weights[0],
            policy_gradient_weight=weights[1],
            attempt_index=row,
        )
        for row in range(len(LENGTHS))
    ]
    num = int(of.mask.sum())
    return micro_batch(samples, packing=Packing.joined), Update(
        index=0, micro_batches=(), num_loss_tokens=num, num_loss_rows=len(LENGTHS), num_distilled_tokens=num,
        num_supervised_tokens=0, num_scored_tokens=num, num_learned_rows=len(LENGTHS), num_learned_tokens=0,
    )  # fmt: skip


def ours(of: Case, algorithm: AlgorithmConfig, *, reference_weight: float = 0.0, chunk_mib: float = 1.0) -> Tensor:
    """The learner's loss; ``reference_weight``: the weight of the student's own logits in the teacher's."""
    weights = algorithm.weights(is_solved=False, has_hint=True, is_uniform=False)
    batch, update = batch_of(of, weights)
    teacher = [Logits(hidden_NH=of.hinted[of.mask], head_VH=of.head.detach(), weight=1.0 - reference_weight)]
    if reference_weight:
        teacher.append(Logits(hidden_NH=of.hidden.detach()[of.mask], head_VH=of.head.detach(), weight=reference_weight))
    loss, _ = micro_batch_loss(
        of.hidden,
        of.head,
        teacher,
        batch,
        torch.arange(len(of.ids)),
        OldLogprobs(old_n=of.old, reference_n=None),
        update,
        algorithm,
        Scale(temperature=TEMPERATURE, max_response_tokens=8),
        chunk_mib,
    )
    return loss


def alike(of: Case, found: Tensor, expected: Tensor, *, has_same_value: bool = True) -> None:
    if has_same_value:
        assert found.item() == pytest.approx(expected.item(), rel=TOLERANCE, abs=1e-7)
    leaves = (of.hidden, of.head)
    for mine, theirs in zip(torch.autograd.grad(found, leaves), torch.autograd.grad(expected, leaves), strict=True):
        assert theirs.abs().max() > 1e-3, "there is nothing to compare"
        assert float((mine - theirs).norm() / theirs.norm()) < TOLERANCE


def by_rows(of: Case, loss_of_row: Callable[[int, Tensor], Tensor]) -> Tensor:
    """The mean over tokens of what ``loss_of_row(row, kept tokens)`` sums."""
    total = torch.zeros((), dtype=torch.float64)
    for row, kept in enumerate(of.kept()):
        total = total + loss_of_row(row, kept)
    return total / int(of.mask.sum())


def policy_gradient(**changes: object) -> GRPOConfig:
    return GRPOConfig(policy_gradient=PolicyGradientConfig(**{"rollout_clip": 1e6, **changes}))  # type: ignore[arg-type]


@pytest.mark.parametrize(("low", "high"), [(1.0, 4.0), (0.1, 0.1)], ids=["as MiniMax has it", "clips that bite"])
def test_cispo_is_its_formula(low: float, high: float) -> None:
    of = case()

    def expected(row: int, kept: Tensor) -> Tensor:
        loss = torch.zeros((), dtype=torch.float64)
        for token in kept:
            one = token[None]
            weight = math.exp(float(of.old[token] - of.sampled[token]))
            loss = loss + weight * oracle.cispo(of.said(of.student())[one], of.old[one], ADVANTAGES[row], low, high)
        return loss

    alike(of, ours(of, policy_gradient(loss="cispo", clip_low=low, clip_high=high)), by_rows(of, expected))


def test_a_token_beyond_cispos_clip_keeps_its_gradient_where_the_clipped_loss_has_none() -> None:
    """The point of it: rare tokens that grew fast, often the forks of a chain of thought, go on being learned from."""
    of = case()
    of.old.copy_(of.said(of.student()).detach() - 1.0)  # every ratio is e
    of.sampled.copy_(of.old)
    clipped, cispo = (ours(of, policy_gradient(loss=name, clip_low=0.2, clip_high=0.2)) for name in ("clipped", "cispo"))
    first = of.rows == 0  # an attempt better than its siblings
    for loss, is_learned in ((clipped, False), (cispo, True)):
        (gradient,) = torch.autograd.grad(loss, of.hidden)
        assert bool(gradient[first & of.mask].abs().sum() > 0.0) is is_learned


@pytest.mark.parametrize("correction", list(RolloutCorrection), ids=lambda one: one.value)
@pytest.mark.parametrize("kind", ["policy gradient", "distillation"])
def test_rollout_weights_are_their_formulas(correction: RolloutCorrection, kind: str) -> None:
    """For both losses, with a clip that bites on some tokens and some responses and not on others."""
    of, clip = case(), 1.3
    algorithm: AlgorithmConfig
    if kind == "policy gradient":
        algorithm = policy_gradient(rollout_correction=correction, rollout_clip=clip)
    else:
        algorithm = SDPOConfig(
            granularity=Granularity.token, importance_clip=1e6, rollout_correction=correction, rollout_clip=clip
        )
    seen: list[float] = []

    def expected(row: int, kept: Tensor) -> Tensor:
        weights = oracle.rollout_weights(of.old[kept], of.sampled[kept], correction.value, clip)
        seen.extend(weights)
        loss = torch.zeros((), dtype=torch.float64)
        for token, weight in zip(kept, weights, strict=True):
            one = token[None]
            student = of.said(of.student())[one]
            if kind == "policy gradient":
                loss = loss + weight * oracle.ppo(student, of.old[one], [ADVANTAGES[row]], 0.2, 0.28)
            else:
                ratio = student.detach() - of.said(of.of_teacher())[one]
                importance = (student.detach() - of.old[one]).exp()
                loss = loss + (weight * importance * ratio * student).sum()
        return loss

    total = by_rows(of, expected)
    assert any(weight in (0.0, clip) for weight in seen)
    assert any(weight not in (0.0, clip) for weight in seen)
    alike(of, ours(of, algorithm), total, has_same_value=kind == "policy gradient")


@pytest.mark.parametrize("correction", list(RolloutCorrection), ids=lambda one: one.value)
def test_a_token_that_the_engine_gave_no_chance_has_a_finite_weight(correction: RolloutCorrection) -> None:
    """exp(100) is infinite in fp32, and infinity times 0 is no number."""
    old, sampled = torch.tensor([-1.0, -101.0, -1.0]), torch.tensor([-101.0, -1.0, -1.0])
    weights = rollout_weights(old, sampled, torch.tensor([0, 1, 2]), correction, 2.0)
    assert weights.tolist() == ([0.0, 0.0, 1.0] if correction.masks else pytest.approx([2.0, 0.0, 1.0], abs=1e-8))


@pytest.mark.parametrize(("share", "clip"), [(1.0, 0.9), (0.5, 0.2)], ids=["whole", "as the preset has it"])
def test_rlsd_is_its_formula(share: float, clip: float) -> None:
    """The loss is the policy gradient's alone, with other advantages: nothing is distilled."""
    of = case()
    algorithm = SDPOConfig(
        loss="evidence", evidence_share=share, evidence_clip=clip, routing=Auxiliary(), support=TopSupport(num_ids=4),
        policy_gradient=PolicyGradientConfig(rollout_clip=1e6),
    )  # fmt: skip

    def expected(row: int, kept: Tensor) -> Tensor:
        student, teacher = of.said(of.student())[kept], of.said(of.of_teacher())[kept]
        advantages = oracle.rlsd_advantages(student, teacher, ADVANTAGES[row], share=share, clip=clip)
        assert all(advantage * ADVANTAGES[row] > 0.0 for advantage in advantages), "the sign is the environment's"
        weights = (of.old[kept] - of.sampled[kept]).exp()
        each = [
            weights[i] * oracle.ppo(student[i : i + 1], of.old[kept][i : i + 1], [advantages[i]], 0.2, 0.28)
            for i in range(len(kept))
        ]
        return torch.stack(each).sum()

    alike(of, ours(of, algorithm), by_rows(of, expected))


def test_evidence_of_a_token_that_the_teacher_excludes_is_a_number() -> None:
    """A credit of -inf times the sign of an advantage of 0 was none."""
    nothing = torch.zeros(3)
    scores = TokenScores(
        student_N=torch.full((3,), -1.0), entropy_N=nothing, teacher_N=torch.full((3,), -torch.inf), teacher_entropy_N=nothing,
        divergence_N=nothing,
    )  # fmt: skip
    advantages = hindsight_loss_of(SDPOConfig(loss="evidence", routing=Auxiliary())).advantages(
        scores, torch.tensor([1.0, 0.0, -1.0])
    )
    assert advantages.tolist() == pytest.approx([0.9, 0.0, -1.1])


def test_sdar_is_its_formula() -> None:
    """The policy gradient in full, and a hundredth of the gated distillation. The paper has no importance ratio: here it is 1."""
    of = case()
    of.old.copy_(of.said(of.student()).detach())
    of.sampled.copy_(of.old.float().double())
    algorithm = SDPOConfig(loss="gated", gate_sharpness=5.0, routing=Auxiliary(distillation_weight=0.01))

    def expected(row: int, kept: Tensor) -> Tensor:
        student = of.said(of.student())[kept]
        reinforced = oracle.ppo(student, of.old[kept], [ADVANTAGES[row]] * len(kept), 0.2, 0.28)
        return reinforced + 0.01 * oracle.sdar(student, of.said(of.of_teacher())[kept], 5.0)

    alike(of, ours(of, algorithm), by_rows(of, expected))


def test_sdars_gate_is_its_formula_where_it_stands_alone() -> None:
    """Beside the policy gradient a hundredth of it would hide an error of a per cent."""
    of = case()
    of.old.copy_(of.said(of.student()).detach())
    of.sampled.copy_(of.old.float().double())
    algorithm = SDPOConfig(loss="gated", gate_sharpness=2.0, routing=Blend())
    expected = by_rows(of, lambda row, kept: oracle.sdar(of.said(of.student())[kept], of.said(of.of_teacher())[kept], 2.0))
    alike(of, ours(of, algorithm), expected)


@pytest.mark.parametrize("beta", [2.0, 1.25])
def test_beta_opsd_is_its_formula(beta: float) -> None:
    """The gradient: the value that is shown is the mean log-ratio."""
    of = case()
    of.old.copy_(of.said(of.student()).detach())
    of.sampled.copy_(of.old.float().double())
    algorithm = SDPOConfig(granularity=Granularity.token, future_credit=0.99)

    def expected(row: int, kept: Tensor) -> Tensor:
        target = oracle.anchored(of.student().detach(), of.of_teacher(), beta)
        return oracle.return_to_go(of.said(of.student())[kept], of.said(target)[kept], 0.99)

    alike(of, ours(of, algorithm, reference_weight=1.0 - 1.0 / beta), by_rows(of, expected), has_same_value=False)


@pytest.mark.parametrize(
    "algorithm",
    [
        policy_gradient(loss="cispo"),
        policy_gradient(rollout_correction=RolloutCorrection.sequence_truncate, rollout_clip=1.3),
        SDPOConfig(rollout_correction=RolloutCorrection.sequence_mask, rollout_clip=1.3),
        SDPOConfig(loss="evidence", routing=Auxiliary()),
        SDPOConfig(loss="gated", routing=Auxiliary()),
    ],
    ids=["cispo", "sequence truncate", "sequence mask", "evidence", "gated"],
)
def test_a_chunk_of_one_token_gives_the_same_gradient(algorithm: AlgorithmConfig) -> None:
    """A weight that is a whole response's was that of a chunk's part of it where the loss called itself pointwise."""
    of = case()
    alike(of, ours(of, algorithm, chunk_mib=1e-9), ours(of, algorithm))


REWARDS = [[1.0, 0.0, 0.0, 0.25], [0.5, 0.5], [0.0, 1.0, 1.0]]


def test_advantages_are_their_formulas() -> None:
    def found(name: str) -> list[list[float]]:
        return [list(of) for of in advantages_of(REWARDS, PolicyGradientConfig(advantage=name))]

    def approximately(expected: list[list[float]]) -> list[object]:
        return [pytest.approx(of, rel=1e-12, abs=1e-15) for of in expected]

    assert found("leave_one_out") == approximately([oracle.leave_one_out(of) for of in REWARDS])
    assert found("batch") == approximately(oracle.reinforce_plus_plus(REWARDS, has_baseline=False))
    assert found("group_then_batch") == approximately(oracle.reinforce_plus_plus(REWARDS, has_baseline=True))


@pytest.mark.parametrize("name", ["leave_one_out", "batch", "group_then_batch"])
def test_advantages_are_exactly_zero_where_nothing_differs(name: str) -> None:
    config = PolicyGradientConfig(advantage=name)
    assert advantages_of([[0.1] * 3, [0.1] * 3], config) == ((0.0,) * 3,) * 2
    assert advantages_of([[], [0.7]], config) == ((), (0.0,))
    if name != "batch":
        assert advantages_of([[0.1] * 3, [1.0, 0.0]], config)[0] == (0.0,) * 3


def test_a_group_without_a_difference_is_learned_from_where_the_step_is_the_baseline() -> None:
    """That is what tells ``batch`` from the others: a task that all attempts solved is better than the step's mean."""
    solved, failed = advantages_of([[1.0, 1.0], [0.0, 0.0]], PolicyGradientConfig(advantage="batch"))
    assert (solved, failed) == ((1.0, 1.0), (-1.0, -1.0))
