"""The distillation loss: its sampled forms estimate the gradient they stand for, and its weights are clamped and detached."""

import itertools
import math

import pytest
import torch

from sdpo.config import Granularity, SDPOConfig
from sdpo.objectives.distillation import certainty, distillation_loss
from sdpo.objectives.rows import future_by_row
from sdpo.objectives.scores import TokenScores
from tests.objectives.kinds import KINDS
from tests.objectives.kinds import divergence as divergence_of

LOGITS = SDPOConfig(granularity=Granularity.logits)
TOKEN = SDPOConfig(granularity=Granularity.token)
SEQUENCE = SDPOConfig(granularity=Granularity.sequence)


def doubles(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def scored(student: torch.Tensor, teacher: torch.Tensor, apart: torch.Tensor | None = None) -> TokenScores:
    zeros = torch.zeros_like(student.detach())
    return TokenScores(
        student_N=student,
        entropy_N=zeros,
        teacher_N=teacher,
        teacher_entropy_N=zeros,
        divergence_N=zeros if apart is None else apart,
    )


def on_policy(scores: TokenScores, objective: SDPOConfig, rows: torch.Tensor | None = None) -> torch.Tensor:
    """The loss where learner and engine agree on what was sampled, so that every importance weight is 1."""
    old = scores.student_N.detach()
    rows = torch.arange(len(old)) if rows is None else rows
    return distillation_loss(scores, old, old, torch.ones_like(old), rows, objective)


def test_token_granularity_averages_to_the_gradient_and_value_of_the_reverse_kl():
    """Over all tokens y of the vocabulary, weighted by π(y): the expectation itself, not an estimate."""
    logits = doubles(0.3, -1.2, 0.8, 2.0, -0.4, 0.1).requires_grad_()
    teacher = doubles(-0.5, 0.4, 1.1, 0.2, 0.9, -2.0).log_softmax(-1)
    student = logits.log_softmax(-1)
    probabilities = student.detach().exp()
    expected_loss = (probabilities * on_policy(scored(student, teacher), TOKEN)).sum()
    reverse_kl = (student.exp() * (student - teacher)).sum()
    (ours,) = torch.autograd.grad(expected_loss, logits, retain_graph=True)
    (exact,) = torch.autograd.grad(reverse_kl, logits)
    torch.testing.assert_close(ours, exact)
    torch.testing.assert_close(expected_loss, reverse_kl)


def test_sequence_granularity_averages_to_the_gradient_of_the_sequences_reverse_kl():
    """Two dependent tokens of a vocabulary of three; each of the nine sequences is a row, weighted by its probability."""
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(3, generator=generator, dtype=torch.float64).requires_grad_()
    second = torch.randn(3, 3, generator=generator, dtype=torch.float64).requires_grad_()
    teacher_first = torch.randn(3, generator=generator, dtype=torch.float64).log_softmax(-1)
    teacher_second = torch.randn(3, 3, generator=generator, dtype=torch.float64).log_softmax(-1)
    log_first, log_second = first.log_softmax(-1), second.log_softmax(-1)
    sequences = list(itertools.product(range(3), repeat=2))
    student = torch.stack([part for a, b in sequences for part in (log_first[a], log_second[a, b])])
    teacher = torch.stack([part for a, b in sequences for part in (teacher_first[a], teacher_second[a, b])])
    rows = torch.arange(9).repeat_interleave(2)
    joint, joint_teacher = student.view(9, 2).sum(1), teacher.view(9, 2).sum(1)

    losses = on_policy(scored(student, teacher), SEQUENCE, rows)
    ours = torch.autograd.grad((joint.detach().exp() * losses.view(9, 2).sum(1)).sum(), (first, second), retain_graph=True)
    exact = torch.autograd.grad((joint.exp() * (joint - joint_teacher)).sum(), (first, second))
    for ours_part, exact_part in zip(ours, exact, strict=True):
        torch.testing.assert_close(ours_part, exact_part)


@pytest.mark.parametrize("divergence", KINDS, ids=lambda divergence: divergence)
@pytest.mark.parametrize("granularity", [Granularity.logits, Granularity.token], ids=lambda granularity: granularity.value)
def test_future_credit_of_one_averages_to_the_gradient_of_the_expected_sum_of_divergences(granularity, divergence):
    """Two dependent tokens of a vocabulary of three, all nine responses weighted by their probabilities. What the first token
    changes is also which divergence comes second, and that without the credit no gradient sees."""
    if granularity is Granularity.token and divergence != "reverse_kl":
        return
    generator = torch.Generator().manual_seed(1)
    first = torch.randn(3, generator=generator, dtype=torch.float64).requires_grad_()
    second = torch.randn(3, 3, generator=generator, dtype=torch.float64).requires_grad_()
    teachers = torch.randn(4, 3, generator=generator, dtype=torch.float64).log_softmax(-1)
    log_first, log_second = first.log_softmax(-1), second.log_softmax(-1)
    apart = divergence_of(torch.cat([log_first[None], log_second]), teachers, divergence, 0.3)
    expected = apart[0] + (log_first.exp() * apart[1:]).sum()

    responses = list(itertools.product(range(3), repeat=2))
    student = torch.stack([part for a, b in responses for part in (log_first[a], log_second[a, b])])
    teacher = torch.stack([part for a, b in responses for part in (teachers[0, a], teachers[1 + a, b])])
    places = torch.tensor([place for a, b in responses for place in (0, 1 + a)])
    weights = (student.view(9, 2).sum(1)).detach().exp()
    for credit, is_exact in ((1.0, True), (0.5, False), (0.0, False)):
        objective = SDPOConfig(granularity=granularity, divergence=divergence, future_credit=credit)
        scores = scored(student, teacher, apart[places])
        losses = on_policy(scores, objective, torch.arange(9).repeat_interleave(2)).view(9, 2).sum(1)
        torch.testing.assert_close((weights * losses).sum(), expected)
        ours = torch.autograd.grad((weights * losses).sum(), (first, second), retain_graph=True)
        exact = torch.autograd.grad(expected, (first, second), retain_graph=True)
        assert torch.allclose(ours[0], exact[0]) is is_exact
        assert torch.allclose(ours[1], exact[1])


def test_future_credit_does_not_depend_on_how_rows_are_mixed():
    """Each row's tokens in their order, but not next to each other; the weights of later tokens belong to them."""
    student = doubles(-1.0, -2.0, -3.0, -0.5, -0.7).requires_grad_()
    apart = doubles(1.0, 2.0, 3.0, 4.0, 5.0)
    objective = SDPOConfig(future_credit=0.5)
    weights, old = doubles(1.0, 1.0, 2.0, 1.0, 3.0), student.detach()
    losses = distillation_loss(scored(student, old, apart), old, old, weights, torch.tensor([4, 0, 4, 0, 4]), objective)
    losses.sum().backward()
    assert losses.tolist() == [1.0, 2.0, 6.0, 4.0, 15.0]
    assert student.grad.tolist() == [0.5 * 6.0 + 0.25 * 15.0, 0.5 * 4.0, 0.5 * 15.0, 0.0, 0.0]


def test_a_long_rows_credit_is_summed_without_losing_its_end():
    values = torch.ones(3000)
    rows = torch.zeros(3000, dtype=torch.int64)
    whole = future_by_row(values, rows, 1.0)
    assert (whole[0].item(), whole[-2].item(), whole[-1].item()) == (2999.0, 1.0, 0.0)
    assert future_by_row(values, rows, 0.5)[0].item() == pytest.approx(1.0)
    assert future_by_row(values[:0], rows[:0], 0.5).shape == (0,)
    assert torch.equal(future_by_row(values[:3], torch.tensor([2, 1, 0]), 1.0), torch.zeros(3))


def test_a_token_counts_by_how_sure_the_teacher_is_and_one_on_average():
    """SRPO's weights: the exponentials were not divided by their mean, which made its distillation a tenth of the paper's."""
    unsure = doubles(0.0, 2.0, 5.0)
    raw = [1.0, math.exp(-1.4), math.exp(-3.5)]
    weights = certainty(unsure, unsure, 0.7)
    assert weights.tolist() == pytest.approx([3 * part / sum(raw) for part in raw])
    assert certainty(unsure[1:], unsure, 0.7).tolist() == weights[1:].tolist()


def test_a_teacher_that_is_unsure_of_every_token_leaves_their_weights_at_one():
    """Every exponential is 0 in floating point, and 0 / 0 is no weight."""
    assert certainty(doubles(900.0, 900.0), doubles(900.0, 900.0), 2.0).tolist() == pytest.approx([1.0, 1.0])
    assert certainty(doubles(), doubles(), 1.0).tolist() == []


def test_token_granularity_weighs_each_token_with_its_own_log_ratio():
    student = doubles(-1.0, -2.0, -3.0).requires_grad_()
    losses = on_policy(scored(student, doubles(-1.5, -2.0, -1.0)), TOKEN)
    assert losses.tolist() == pytest.approx([0.5, 0.0, -2.0])
    losses.sum().backward()
    assert student.grad.tolist() == pytest.approx([0.5, 0.0, -2.0])


def test_sequence_granularity_weighs_each_token_with_its_rows_sum():
    student = doubles(-1.0, -2.0, -3.0, -4.0).requires_grad_()
    teacher = doubles(-1.5, -1.0, -1.0, -4.5)
    losses = on_policy(scored(student, teacher), SEQUENCE, torch.tensor([0, 1, 1, 0]))
    losses.sum().backward()
    assert student.grad.tolist() == pytest.approx([1.0, -3.0, -3.0, 1.0])


def test_logits_granularity_passes_the_divergence_and_its_gradient_on():
    apart = doubles(0.3, 0.7).requires_grad_()
    student = doubles(-1.0, -2.0).requires_grad_()
    losses = on_policy(scored(student, doubles(-5.0, -6.0), apart), LOGITS)
    losses.sum().backward()
    assert losses.tolist() == pytest.approx([0.3, 0.7])
    assert apart.grad.tolist() == [1.0, 1.0]


def test_importance_weight_is_clamped_from_above_only_and_detached():
    """π_θ/π_old of 0.1, 1.5 and 3 under a clamp of 2."""
    apart = doubles(1.0, 1.0, 1.0).requires_grad_()
    student = doubles(-1.0, -1.0, -1.0).requires_grad_()
    old = student.detach() - doubles(0.1, 1.5, 3.0).log()
    losses = distillation_loss(
        scored(student, old, apart), old, old, torch.ones(3), torch.arange(3), SDPOConfig(importance_clip=2.0)
    )
    losses.sum().backward()
    assert losses.tolist() == pytest.approx([0.1, 1.5, 2.0])
    assert apart.grad.tolist() == pytest.approx([0.1, 1.5, 2.0])
    assert student.grad is None


def test_rollout_weight_is_truncated_from_above_only_and_does_not_read_the_policy():
    """π_old/π_rollout of 0.1, 1.5 and 3 under a truncation of 2."""
    student = doubles(-1.0, -1.0, -1.0)
    sampled = student - doubles(0.1, 1.5, 3.0).log()
    losses = distillation_loss(
        scored(student, student, torch.ones(3, dtype=torch.float64)),
        student,
        sampled,
        torch.ones(3),
        torch.arange(3),
        SDPOConfig(rollout_clip=2.0),
    )
    assert losses.tolist() == pytest.approx([0.1, 1.5, 2.0])


def test_rows_that_were_not_sampled_by_the_policy_can_count_alike():
    """A warm-up's KL counted a token less the further the policy had moved away from it, so least where it mattered most."""
    student, sampled = doubles(-3.0, -1.0), doubles(-0.1, -2.0)
    losses = distillation_loss(
        scored(student, sampled, doubles(0.4, 0.4)),
        student,
        sampled,
        torch.ones(2),
        torch.arange(2),
        SDPOConfig(rollout_clip=None),
    )
    assert losses.tolist() == pytest.approx([0.4, 0.4])


def test_the_two_clamps_are_apart_and_their_weights_multiply():
    student, old = doubles(0.0), doubles(-math.log(10.0))
    sampled = old - math.log(10.0)
    objective = SDPOConfig(importance_clip=3.0, rollout_clip=5.0)
    losses = distillation_loss(scored(student, old, doubles(1.0)), old, sampled, torch.ones(1), torch.arange(1), objective)
    assert losses.item() == pytest.approx(15.0)


def test_vanishing_probabilities_of_the_engine_leave_the_loss_finite():
    student = torch.tensor([-1.0])
    far = torch.tensor([-1e4])
    for old, sampled in ((far, far), (student, far), (far, student)):
        scores = scored(student, student, torch.ones(1))
        assert distillation_loss(scores, old, sampled, torch.ones(1), torch.arange(1), LOGITS).isfinite().all()


def test_weight_of_a_row_scales_its_loss():
    student = doubles(-1.0, -1.0)
    scores = scored(student, student, doubles(0.4, 0.4))
    losses = distillation_loss(scores, student, student, doubles(1.0, 2.5), torch.arange(2), LOGITS)
    assert losses.tolist() == pytest.approx([0.4, 1.0])


@pytest.mark.parametrize("granularity", list(Granularity), ids=lambda granularity: granularity.value)
def test_rows_do_not_see_each_other(granularity):
    """The loss of two rows together is that of each alone, whatever their numbers are: packing must not show."""
    objective = SDPOConfig(granularity=granularity)
    student, teacher, apart = doubles(-1.0, -2.0, -3.0, -0.5), doubles(-0.3, -2.5, -1.0, -2.0), doubles(1, 2, 3, 4)
    together = on_policy(scored(student, teacher, apart), objective, torch.tensor([3, 3, 7, 7]))
    alone = [
        on_policy(scored(student[part], teacher[part], apart[part]), objective, torch.tensor([0, 0]))
        for part in (slice(0, 2), slice(2, 4))
    ]
    torch.testing.assert_close(together, torch.cat(alone))
