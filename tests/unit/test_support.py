"""The buckets over which two distributions are compared: which ids, how much probability, and what gradient."""

import itertools
import math

import pytest
import torch

from sdpo.config import Divergence, SupportConfig, SupportKind
from sdpo.objectives.divergence import divergence
from sdpo.objectives.support import buckets

VOCABULARY = 12
FULL = SupportConfig(kind=SupportKind.full)


def log_distributions(seed: int, num: int = 5, size: int = VOCABULARY) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(num, size, generator=generator, dtype=torch.float64)).log_softmax(-1)


STUDENT, TEACHER = log_distributions(0), log_distributions(1)


@pytest.mark.parametrize("kind", list(SupportKind), ids=lambda kind: kind.value)
@pytest.mark.parametrize(("num_ids", "tail"), [(1, True), (4, True), (4, False), (VOCABULARY, True), (VOCABULARY, False)])
def test_buckets_of_both_sides_sum_to_one(kind, num_ids, tail):
    for side in buckets(STUDENT, TEACHER, SupportConfig(kind=kind, num_ids=num_ids, tail=tail)):
        torch.testing.assert_close(side.exp().sum(-1), torch.ones(5, dtype=torch.float64))


@pytest.mark.parametrize(
    ("kind", "chooser"), [(SupportKind.student, STUDENT), (SupportKind.teacher, TEACHER)], ids=["student", "teacher"]
)
def test_the_chosen_ids_are_the_choosers_most_probable_and_keep_their_true_logprobs(kind, chooser):
    student, teacher = buckets(STUDENT, TEACHER, SupportConfig(kind=kind, num_ids=4, tail=True))
    for row in range(5):
        best = sorted(range(VOCABULARY), key=lambda token: -chooser[row, token].item())[:4]
        assert sorted(student[row, :4].tolist()) == sorted(STUDENT[row, best].tolist())
        assert sorted(teacher[row, :4].tolist()) == sorted(TEACHER[row, best].tolist())


def test_both_sides_have_their_buckets_in_the_same_order():
    """A teacher that is the student shifted by one constant per id keeps that constant in each bucket."""
    shift = torch.arange(VOCABULARY, dtype=torch.float64)
    student, shifted = buckets(STUDENT, STUDENT + 100 * shift, SupportConfig(num_ids=4, tail=True))
    ids = ((shifted - student)[:, :4] / 100).round().long()
    torch.testing.assert_close(STUDENT.gather(-1, ids), student[:, :4])


def test_tail_holds_what_the_support_leaves_out():
    student, teacher = buckets(STUDENT, TEACHER, SupportConfig(num_ids=4, tail=True))
    for side in (student, teacher):
        assert side.shape == (5, 5)
        torch.testing.assert_close(side[:, 4], (1 - side[:, :4].exp().sum(-1)).log())


@pytest.mark.parametrize("kind", [SupportKind.student, SupportKind.teacher], ids=lambda kind: kind.value)
@pytest.mark.parametrize("tail", [True, False])
@pytest.mark.parametrize("comparison", list(Divergence), ids=lambda comparison: comparison.value)
def test_support_of_the_whole_vocabulary_is_the_full_one_in_value_and_gradient(kind, tail, comparison):
    def value_and_gradient(support: SupportConfig) -> tuple[torch.Tensor, torch.Tensor]:
        logits = STUDENT.clone().requires_grad_()
        value = divergence(*buckets(logits.log_softmax(-1), TEACHER, support), comparison, 0.5)
        return value.detach(), torch.autograd.grad(value.sum(), logits)[0]

    everything = SupportConfig(kind=kind, num_ids=VOCABULARY, tail=tail)
    for ours, full in zip(value_and_gradient(everything), value_and_gradient(FULL), strict=True):
        torch.testing.assert_close(ours, full)


@pytest.mark.parametrize("comparison", list(Divergence), ids=lambda comparison: comparison.value)
def test_finer_buckets_see_no_less(comparison):
    """Merging buckets never raises a divergence (data processing), so with a tail it grows with K up to the full one."""
    by_size = [
        divergence(*buckets(STUDENT, TEACHER, SupportConfig(num_ids=num_ids, tail=True)), comparison, 0.5)
        for num_ids in range(1, VOCABULARY + 1)
    ]
    assert all((finer - coarser).min() > -1e-12 for coarser, finer in itertools.pairwise(by_size))


def test_support_of_one_id_with_a_tail_compares_two_coins():
    student, teacher = buckets(
        torch.tensor([[0.7, 0.2, 0.1]]).log(), torch.tensor([[0.4, 0.5, 0.1]]).log(), SupportConfig(num_ids=1, tail=True)
    )
    expected = 0.7 * math.log(0.7 / 0.4) + 0.3 * math.log(0.3 / 0.6)
    assert divergence(student, teacher, Divergence.reverse_kl, 0.5).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("num_ids", "tail"), [(1, True), (3, True), (3, False)])
def test_gradient_through_the_buckets_is_the_numerical_one(num_ids, tail):
    support = SupportConfig(num_ids=num_ids, tail=tail)

    def value(logits: torch.Tensor) -> torch.Tensor:
        return divergence(*buckets(logits.log_softmax(-1), TEACHER, support), Divergence.jsd, 0.5)

    assert torch.autograd.gradcheck(value, (STUDENT.clone().requires_grad_(),))


def test_tail_is_right_in_fp32_when_the_support_holds_nearly_everything():
    """log(1 - Σp) is log 0 here: 1e-17 is far below what fp32 can tell from nothing."""
    logits = torch.tensor([[40.0, 38.0, 0.0, -1.0]], requires_grad=True)
    logprobs = logits.log_softmax(-1)
    tail = buckets(logprobs, logprobs.detach(), SupportConfig(num_ids=2, tail=True))[0][0, 2]
    tail.backward()
    exact = torch.tensor([[40.0, 38.0, 0.0, -1.0]], dtype=torch.float64, requires_grad=True)
    exact_tail = exact.log_softmax(-1)[0, 2:].logsumexp(-1)
    exact_tail.backward()
    assert tail.item() == pytest.approx(exact_tail.item(), rel=1e-6)
    assert logits.grad[0].tolist() == pytest.approx(exact.grad[0].tolist(), rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("comparison", list(Divergence), ids=lambda comparison: comparison.value)
@pytest.mark.parametrize("teacher", [[0.0, 0.0, 30.0, 0.0], [40.0, 38.0, 0.0, -1.0], [0.0, 0.0, 0.0, 0.0]])
def test_gradient_in_fp32_is_the_one_in_fp64_when_all_mass_is_inside_the_support(comparison, teacher):
    support = SupportConfig(num_ids=2, tail=True)

    def gradient(dtype: torch.dtype) -> list[float]:
        logits = torch.tensor([[40.0, 38.0, 0.0, -1.0]], dtype=dtype, requires_grad=True)
        teacher_NV = torch.tensor([teacher], dtype=dtype).log_softmax(-1)
        divergence(*buckets(logits.log_softmax(-1), teacher_NV, support), comparison, 0.5).sum().backward()
        return logits.grad[0].tolist()

    assert gradient(torch.float32) == pytest.approx(gradient(torch.float64), rel=1e-4, abs=1e-6)
