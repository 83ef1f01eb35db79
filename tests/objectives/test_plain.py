"""The objectives as the papers write them, and the fused ones that the learner minimises: the same losses, the same gradients."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from sdpo.config import (
    ClipSide,
    FullSupport,
    Granularity,
    PolicyGradientConfig,
    RatioLevel,
    SDPOConfig,
    SupportConfig,
    SupportKind,
    TopSupport,
)
from sdpo.objectives import plain
from sdpo.objectives.distillation import certainty
from tests.objectives.kinds import KINDS
from tests.objectives.test_fused import VOCABULARY, Problem, apart, fused, leaf, problem

SUPPORTS = (
    TopSupport(num_ids=7),
    TopSupport(kind=SupportKind.teacher, num_ids=7, tail=False),
    TopSupport(num_ids=VOCABULARY),
    FullSupport(),
)
VARIANTS = {
    "everything at once": SDPOConfig(future_credit=0.8, support=SUPPORTS[0], rollout_clip=None),
    **{
        f"terms clamped, {side.value}, {support}": SDPOConfig(pointwise_clip=0.05, pointwise_clip_side=side, support=support)
        for side, support in itertools.product(ClipSide, SUPPORTS)
    },
    **{f"clamped advantages, {support}": SDPOConfig(advantage_clip=0.1, support=support) for support in SUPPORTS},
    "clamped advantages, token": SDPOConfig(advantage_clip=0.1, granularity=Granularity.token, future_credit=0.8),
    **{granularity.value: SDPOConfig(granularity=granularity) for granularity in Granularity},
    **{
        f"{kind} {support}": SDPOConfig(divergence=kind, jsd_beta=0.3, support=support)
        for kind, support in itertools.product(KINDS, SUPPORTS)
    },
}


def plainly(case: Problem) -> tuple[Tensor, Tensor, Tensor]:
    """The loss of ``case`` and its gradients by hidden states and head."""
    hidden_NH, head_VH, objective = leaf(case.hidden), leaf(case.head), case.objective
    student_NV = (hidden_NH @ head_VH.T / case.temperature).log_softmax(-1)
    theirs = [part.weight * part.hidden_NH @ part.head_VH.T for part in case.teacher]
    teacher_NV = (sum(theirs[1:], start=theirs[0]) / case.temperature).log_softmax(-1)
    total = torch.zeros((), dtype=torch.float64)
    for row in objective.rows.unique():
        mine = objective.rows == row
        ids, old, sampled, weights = case.ids[mine], objective.old[mine], objective.sampled[mine], objective.weights[mine]
        distilled = plain.distillation(student_NV[mine], teacher_NV[mine], ids, old, sampled, objective.sdpo, weights)
        reinforced = weights * plain.policy_gradient(
            student_NV[mine].gather(-1, ids[:, None])[:, 0],
            old,
            sampled,
            float(objective.advantages[mine][0]),
            objective.sdpo.policy_gradient,
        )
        total = total + ((1.0 - objective.share) * distilled + objective.share * reinforced).sum()
    total = total - objective.entropy * plain.entropy(student_NV).sum()
    return total, *torch.autograd.grad(total, (hidden_NH, head_VH))


def check(case: Problem) -> None:
    ours = fused(case)
    total, of_hidden, of_head = plainly(case)
    assert ours.loss.item() == pytest.approx(total.item(), rel=1e-10, abs=1e-10)
    assert apart(ours.of_hidden, of_hidden) < 1e-10
    assert apart(ours.of_head, of_head) < 1e-10


@pytest.mark.parametrize("sdpo", VARIANTS.values(), ids=list(VARIANTS))
def test_the_fused_distillation_is_the_plain_one(sdpo: SDPOConfig) -> None:
    check(problem(sdpo=sdpo, temperature=0.7))


@pytest.mark.parametrize("ratio", list(RatioLevel), ids=lambda ratio: ratio.value)
def test_the_fused_blend_is_the_plain_one(ratio: RatioLevel) -> None:
    check(problem(sdpo=SDPOConfig(policy_gradient=PolicyGradientConfig(ratio=ratio)), share=0.4, entropy=0.05))


def test_the_plain_certainties_are_the_learners() -> None:
    """Two responses: SRPO's weights of their tokens, 1 on average over both."""
    algorithm = SDPOConfig(entropy_weight=1.3)
    teachers = [
        torch.randn(length, 6, generator=torch.Generator().manual_seed(length)).double().log_softmax(-1) for length in (3, 5)
    ]
    entropies = [plain.entropy(teacher_RV) for teacher_RV in teachers]
    found = plain.certainties(teachers, algorithm)
    assert torch.cat(found).mean().item() == pytest.approx(1.0)
    for weights_R, entropy_R in zip(found, entropies, strict=True):
        torch.testing.assert_close(certainty(entropy_R, torch.cat(entropies), algorithm.entropy_weight), weights_R)


def test_an_advantage_by_hand_is_clamped_where_the_term_of_its_bucket_is_small() -> None:
    """The paper's clip of 5 at test time was taken for one of each bucket's term, p·|A|, which is hardly ever that large.

    Two tokens, 10 % and 90 %; the teacher gives the first a millionth. Its advantage of -11.5 counts as -5.
    """

    def slope(algorithm: SDPOConfig) -> float:
        """By the first logit: -Σ A ∂p, with ∂p = ±p(1-p)."""
        logits_RV = torch.tensor([[0.1, 0.9]], dtype=torch.float64).log().requires_grad_()
        teacher_RV = torch.tensor([[1e-6, 1.0 - 1e-6]], dtype=torch.float64).log()
        old_R = torch.tensor([0.1], dtype=torch.float64).log()
        plain.distillation(logits_RV.log_softmax(-1), teacher_RV, torch.tensor([0]), old_R, old_R, algorithm).sum().backward()
        assert logits_RV.grad is not None
        return float(logits_RV.grad[0, 0])

    first, second = math.log(1e-6 / 0.1), math.log((1.0 - 1e-6) / 0.9)
    support = FullSupport()
    assert slope(SDPOConfig(support=support)) == pytest.approx(-(first - second) * 0.09)
    assert slope(SDPOConfig(support=support, advantage_clip=5.0)) == pytest.approx(-(-5.0 - second) * 0.09)
    of_term = SDPOConfig(support=TopSupport(num_ids=2), pointwise_clip=5.0)
    assert slope(of_term) == pytest.approx(-(first - second) * 0.09)


@pytest.mark.parametrize("support", SUPPORTS, ids=str)
def test_a_clip_that_no_advantage_reaches_changes_neither_loss_nor_gradient(support: SupportConfig) -> None:
    """The loss is then the KL: what a clamp leaves out, the gradient of A itself, sums to 0."""
    plainly, clipped = (fused(problem(sdpo=SDPOConfig(support=support, advantage_clip=clip))) for clip in (None, 1e3))
    assert clipped.loss.item() == pytest.approx(plainly.loss.item(), rel=1e-10, abs=1e-10)
    assert apart(clipped.of_hidden, plainly.of_hidden) < 1e-10
    assert apart(clipped.of_head, plainly.of_head) < 1e-10


def test_an_example_by_hand() -> None:
    """One token of a vocabulary of two: KL((1/2, 1/2) ‖ (1/4, 3/4)) = ln 2 - ln 3 / 2, halved by the ratio of old to engine."""
    student_RV, teacher_RV = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.75]]).log()
    old_R = torch.tensor([0.5]).log()
    algorithm = SDPOConfig(support=FullSupport())
    loss_R = plain.distillation(student_RV, teacher_RV, torch.tensor([0]), old_R, torch.tensor([1.0]).log(), algorithm)
    expected = (torch.tensor(2.0).log() - torch.tensor(3.0).log() / 2.0) / 2.0
    torch.testing.assert_close(loss_R, expected[None])
