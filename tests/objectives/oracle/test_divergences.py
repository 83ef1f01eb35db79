"""The clamped divergence against the formula: over a support and over the whole vocabulary, from above and from both sides."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sdpo.config import ClipSide, FullSupport, SDPOConfig, SupportConfig, SupportKind, TopSupport
from sdpo.objectives.comparison import Comparison
from sdpo.objectives.divergence import ForwardKL, divergence, divergence_of
from sdpo.objectives.fused import fused_loss, teacher_entropy
from sdpo.objectives.logits import Budget, Logits
from sdpo.objectives.scores import TokenScores
from tests.objectives.kinds import KINDS
from tests.objectives.oracle import divergences as oracle

NUM, WIDTH, VOCABULARY, TEMPERATURE = 37, 8, 40, 0.8
BUDGET = Budget(temperature=TEMPERATURE, chunk_mib=20.1 * VOCABULARY * 8 / 2**20)


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Summed:
    """The divergence alone."""

    is_pointwise = True

    def __call__(self, scores: TokenScores, tokens: slice) -> Tensor:
        return scores.divergence_N


@pytest.mark.parametrize(
    "support", [FullSupport(), TopSupport(kind=SupportKind.teacher, num_ids=VOCABULARY)], ids=["full", "all"]
)
@pytest.mark.parametrize("side", list(ClipSide), ids=lambda side: side.value)
@pytest.mark.parametrize("kind", KINDS)
def test_a_clamp_over_the_whole_vocabulary_is_the_formula_and_its_gradient(
    kind: str, side: ClipSide, support: SupportConfig
) -> None:
    """It was refused there, and OPSD compares over the whole vocabulary. Terms lie beyond the clamp, and within."""
    clip = 0.02
    hidden, head = normal(NUM, WIDTH, seed=0), normal(VOCABULARY, WIDTH, seed=1) / 2
    other = hidden + normal(NUM, WIDTH, seed=2)
    comparison = Comparison(
        teacher=(Logits(hidden_NH=other, head_VH=head),),
        support=support,
        divergence=divergence_of(SDPOConfig(divergence=kind)),
        pointwise_clip=clip,
        pointwise_clip_side=side,
    )
    ours = [part.clone().requires_grad_() for part in (hidden, head)]
    ids = torch.zeros(NUM, dtype=torch.int64)
    loss, scores = fused_loss(ours[0], ours[1], ids, Summed(), comparison=comparison, budget=BUDGET)
    theirs = [part.clone().requires_grad_() for part in (hidden, head)]
    student, teacher = ((states @ theirs[1].T / TEMPERATURE).log_softmax(-1) for states in (theirs[0], other))
    teacher = teacher.detach()
    each = oracle.terms(student, teacher, kind)
    assert 0.01 < (each > clip).double().mean() < 0.5
    exact = oracle.clamped(student, teacher, kind, clip, least=-clip if side is ClipSide.both else -math.inf)
    torch.testing.assert_close(scores.divergence_N, exact.detach(), rtol=1e-12, atol=1e-14)
    for mine, right in zip(torch.autograd.grad(loss, ours), torch.autograd.grad(exact.sum(), theirs), strict=True):
        torch.testing.assert_close(mine, right, rtol=1e-10, atol=1e-12)


def test_opsds_clamp_from_above_leaves_terms_below_alone_and_ours_does_not() -> None:
    """Two tokens: the teacher's 0.9 and 0.1 against the student's halves. The second term is 0.1 ln 0.2 = -0.161."""
    student, teacher = torch.tensor([[0.5, 0.5]]).log().double(), torch.tensor([[0.9, 0.1]]).log().double()
    low, high = 0.1 * math.log(0.2), 0.9 * math.log(1.8)
    assert low < -0.05 < 0.05 < high
    for side, expected in ((ClipSide.above, 0.05 + low), (ClipSide.both, 0.0)):
        comparison = Comparison(
            teacher=(), support=FullSupport(), divergence=ForwardKL(), pointwise_clip=0.05, pointwise_clip_side=side
        )
        found = divergence(ForwardKL(), student, teacher, bounds=comparison.bounds)
        assert found.item() == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("support", [FullSupport(), TopSupport(num_ids=3)], ids=["full", "top"])
def test_the_teachers_entropy_is_over_the_vocabulary_whatever_the_support(support: SupportConfig) -> None:
    """Of a mixture of two, one of which has rows beyond the student's vocabulary."""
    head, wider = normal(VOCABULARY, WIDTH, seed=3), normal(VOCABULARY + 5, WIDTH, seed=4)
    one, two = normal(NUM, WIDTH, seed=5), normal(NUM, WIDTH, seed=6)
    comparison = Comparison(
        teacher=(Logits(hidden_NH=one, head_VH=wider, weight=0.7), Logits(hidden_NH=two, head_VH=head, weight=0.3)),
        support=support,
        divergence=divergence_of(SDPOConfig()),
    )
    q = ((0.7 * one @ wider[:VOCABULARY].T + 0.3 * two @ head.T) / TEMPERATURE).softmax(-1)
    found = teacher_entropy(comparison, VOCABULARY, budget=BUDGET)
    torch.testing.assert_close(found, -(q * q.log()).sum(-1), rtol=1e-12, atol=1e-12)
