"""Divergences against their textbook sums, at the ends of their range and where probabilities vanish."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.objectives.kinds import KINDS, divergence, jensen_shannon

every_kind = pytest.mark.parametrize("kind", KINDS, ids=str)


def log_distributions(num: int, size: int, seed: int, scale: float = 2.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(num, size, generator=generator, dtype=torch.float64)).log_softmax(-1)


def log_of(*probabilities: float) -> torch.Tensor:
    return torch.tensor([probabilities], dtype=torch.float64).log()


def kl_by_hand(p: list[float], q: list[float]) -> float:
    return math.fsum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def by_hand(kind: str, student: list[float], teacher: list[float], beta: float) -> float:
    match kind:
        case "reverse_kl":
            return kl_by_hand(student, teacher)
        case "forward_kl":
            return kl_by_hand(teacher, student)
        case "jsd":
            mixture = [(1 - beta) * s + beta * t for s, t in zip(student, teacher, strict=True)]
            return (1 - beta) * kl_by_hand(student, mixture) + beta * kl_by_hand(teacher, mixture)


@every_kind
@pytest.mark.parametrize("beta", [0.1, 0.5, 0.8])
def test_value_is_the_textbook_sum(kind, beta):
    student, teacher = log_distributions(7, 5, seed=0), log_distributions(7, 5, seed=1)
    expected = [by_hand(kind, s, t, beta) for s, t in zip(student.exp().tolist(), teacher.exp().tolist(), strict=True)]
    assert divergence(student, teacher, kind, beta).tolist() == pytest.approx(expected, rel=1e-12)


def test_kl_of_two_coins():
    """KL(½,½ ‖ ¼,¾) = ½ log 2 + ½ log ⅔, and not the other way round."""
    fair, biased = log_of(0.5, 0.5), log_of(0.25, 0.75)
    assert divergence(fair, biased, "reverse_kl", 0.5).item() == pytest.approx(0.14384103622589045)
    assert divergence(fair, biased, "forward_kl", 0.5).item() == pytest.approx(0.13081203594113697)


@every_kind
def test_equal_distributions_are_not_apart(kind):
    student = log_distributions(20, 9, seed=0, scale=5.0)
    assert divergence(student, student.clone(), kind, 0.3).abs().max() < 1e-15


@every_kind
def test_slightly_different_distributions_are_apart(kind):
    assert divergence(log_of(0.5, 0.5), log_of(0.501, 0.499), kind, 0.5).item() > 1e-7


@every_kind
@given(
    student=st.lists(st.floats(-30, 30), min_size=4, max_size=4),
    teacher=st.lists(st.floats(-30, 30), min_size=4, max_size=4),
    beta=st.floats(0.01, 0.99),
)
@settings(derandomize=True, max_examples=60, deadline=None)
def test_value_is_never_negative(kind, student, teacher, beta):
    student_NK, teacher_NK = torch.tensor([student], dtype=torch.float64), torch.tensor([teacher], dtype=torch.float64)
    assert divergence(student_NK.log_softmax(-1), teacher_NK.log_softmax(-1), kind, beta).item() > -1e-12


@every_kind
def test_gradient_is_the_numerical_one(kind):
    logits = log_distributions(3, 4, seed=2).requires_grad_()
    teacher = log_distributions(3, 4, seed=3)
    assert torch.autograd.gradcheck(lambda x: divergence(x.log_softmax(-1), teacher, kind, 0.3), (logits,))


@every_kind
@pytest.mark.parametrize(
    ("student", "teacher"),
    [
        ([100.0, 0.0, -100.0], [-100.0, 0.0, 100.0]),
        ([1e4, 0.0, 0.0], [0.0, 0.0, 0.0]),
        ([0.0, 0.0, 0.0], [1e4, 0.0, 0.0]),
        ([1e4, 0.0, 0.0], [0.0, 0.0, 1e4]),
        ([3e-5, 0.0, -3e-5], [0.0, 0.0, 0.0]),
    ],
    ids=["opposite", "student one-hot", "teacher one-hot", "both one-hot", "nearly equal"],
)
def test_value_and_gradient_are_finite_at_extreme_logits_in_fp32(kind, student, teacher):
    logits = torch.tensor([student], requires_grad=True)
    value = divergence(logits.log_softmax(-1), torch.tensor([teacher]).log_softmax(-1), kind, 0.5)
    value.sum().backward()
    assert value.isfinite().all()
    assert logits.grad.isfinite().all()


@every_kind
def test_bucket_that_both_exclude_counts_nothing(kind):
    student, teacher = log_of(0.2, 0.8), log_of(0.7, 0.3)
    padded = divergence(log_of(0.2, 0.0, 0.8), log_of(0.7, 0.0, 0.3), kind, 0.5)
    assert padded.item() == pytest.approx(divergence(student, teacher, kind, 0.5).item(), rel=1e-12)


@every_kind
def test_bucket_that_both_exclude_leaves_the_gradient_finite(kind):
    """0 · (log 0 - log q) is not selected, but its derivative is -inf · 0: a `where` after the product lets it through."""
    logits = torch.tensor([[0.5, -torch.inf, 0.1]], dtype=torch.float64, requires_grad=True)
    divergence(logits.log_softmax(-1), log_of(0.7, 0.0, 0.3), kind, 0.5).sum().backward()
    assert logits.grad.isfinite().all(), logits.grad


@pytest.mark.parametrize("kind", ["reverse_kl", "jsd"], ids=str)
def test_bucket_that_the_student_excludes_counts_nothing_for_the_student(kind):
    """KL(S‖T) of S = (1, 0) is log 1/t; the JSD adds what the teacher has there."""
    expected = {
        "reverse_kl": math.log(1 / 0.75),
        "jsd": by_hand("jsd", [1.0, 0.0], [0.75, 0.25], 0.5),
    }[kind]
    assert divergence(log_of(1.0, 0.0), log_of(0.75, 0.25), kind, 0.5).item() == pytest.approx(expected, rel=1e-12)


def test_only_the_kls_are_infinite_where_one_side_excludes_what_the_other_may_say():
    half, sure = log_of(0.5, 0.5), log_of(1.0, 0.0)
    assert divergence(half, sure, "reverse_kl", 0.5).item() == math.inf
    assert divergence(sure, half, "forward_kl", 0.5).item() == math.inf
    assert divergence(half, sure, "jsd", 0.5).isfinite().all()


def test_forward_kl_is_the_reverse_kl_with_the_sides_exchanged():
    student, teacher = log_distributions(7, 5, seed=4), log_distributions(7, 5, seed=5)
    there = divergence(student, teacher, "forward_kl", 0.5)
    assert torch.equal(there, divergence(teacher, student, "reverse_kl", 0.5))


def test_jsd_is_symmetric_at_one_half():
    student, teacher = log_distributions(50, 6, seed=6, scale=4.0), log_distributions(50, 6, seed=7, scale=4.0)
    torch.testing.assert_close(jensen_shannon(student, teacher, 0.5), jensen_shannon(teacher, student, 0.5))


def test_exchanging_the_sides_of_the_jsd_exchanges_the_weights():
    student, teacher = log_distributions(50, 6, seed=6), log_distributions(50, 6, seed=7)
    torch.testing.assert_close(jensen_shannon(student, teacher, 0.2), jensen_shannon(teacher, student, 0.8))


@pytest.mark.parametrize("beta", [0.1, 0.5, 0.9])
def test_jsd_is_bounded_by_the_entropy_of_beta(beta):
    bound = -(beta * math.log(beta) + (1 - beta) * math.log(1 - beta))
    student, teacher = log_distributions(200, 4, seed=8, scale=50.0), log_distributions(200, 4, seed=9, scale=50.0)
    assert jensen_shannon(student, teacher, beta).max().item() <= bound + 1e-12


def test_jsd_of_disjoint_distributions_is_log_2():
    assert jensen_shannon(log_of(1.0, 0.0), log_of(0.0, 1.0), 0.5).item() == pytest.approx(math.log(2), rel=1e-12)


def test_jsd_tends_to_zero_at_both_ends_and_to_the_kls_when_divided():
    student, teacher = log_distributions(10, 5, seed=10), log_distributions(10, 5, seed=11)
    small = 1e-7
    assert jensen_shannon(student, teacher, small).max() < 1e-5
    assert jensen_shannon(student, teacher, 1 - small).max() < 1e-5
    kl_teacher_student = divergence(student, teacher, "forward_kl", 0.5)
    kl_student_teacher = divergence(student, teacher, "reverse_kl", 0.5)
    torch.testing.assert_close(jensen_shannon(student, teacher, small) / small, kl_teacher_student, rtol=1e-4, atol=0)
    torch.testing.assert_close(jensen_shannon(student, teacher, 1 - small) / small, kl_student_teacher, rtol=1e-4, atol=0)
