"""Advantages, ratio, clips and k3 against the formulas, gradients included."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sdpo.config import Deviation, PolicyGradientConfig
from sdpo.objectives.advantage import group_advantages
from sdpo.objectives.policy_gradient import policy_gradient_loss, reference_kl
from tests.objectives.oracle import policy_gradients as oracle

GROUPS = ([1.0, 0.0, 0.0, 0.0], [0.1 + 0.2, 0.3, 0.3, 0.3], [0.5, 0.5 + 2e-6], [0.25, 1.0, 0.5], [0.0, 0.0], [0.7])


def of(ours: Tensor, at: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(ours.sum(), at, retain_graph=True)
    return gradient


@pytest.mark.parametrize("rewards", GROUPS, ids=str)
@pytest.mark.parametrize(("deviation", "free"), [(Deviation.population, 0), (Deviation.sample, 1)], ids=["population", "sample"])
def test_advantages_over_either_deviation_are_the_formula(deviation: Deviation, free: int, rewards: list[float]) -> None:
    ours = group_advantages(rewards, divide_by_std=True, deviation=deviation)
    assert ours == pytest.approx(oracle.advantages(rewards, free=free), rel=1e-12)


@pytest.mark.parametrize("dual", [None, 1.5, 3.0])
def test_the_loss_of_a_token_is_the_formula_from_ratios_of_e_to_the_minus_100_to_e_to_the_100(dual: float | None) -> None:
    """A grid of log-ratios and advantages of both signs, also in the type that is trained in: no gradient is lost to overflow."""
    log_ratios = torch.tensor([-100.0, -21.0, -19.0, -1.0, -0.3, -0.1, 0.0, 0.1, 0.3, 0.5, 1.2, 19.0, 21.0, 100.0])
    advantages = torch.tensor([-2.0, -0.5, 0.0, 0.7])
    log_ratio, advantage = (part.flatten() for part in torch.meshgrid(log_ratios, advantages, indexing="ij"))
    config = PolicyGradientConfig(clip_low=0.2, clip_high=0.28, clip_ratio_c=dual)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        old = torch.full_like(log_ratio, -101.0).to(dtype)
        student = (old + log_ratio.to(dtype)).requires_grad_()
        ours = policy_gradient_loss(student, old, old, advantage.to(dtype), torch.arange(len(old)), config)
        exact = student.detach().double().requires_grad_()
        theirs = oracle.clipped(exact - old.double(), advantage.double(), low=0.2, high=0.28, dual=dual)
        torch.testing.assert_close(ours.double(), theirs, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(of(ours, student).double(), of(theirs, exact), rtol=tolerance, atol=tolerance)


def test_the_estimate_of_the_kl_is_the_formula_where_the_policies_are_100_nats_apart() -> None:
    student = torch.tensor([-0.1, -1.0, -3.0, -120.0, -100.0, -0.5]).requires_grad_()
    reference = torch.tensor([-0.2, -1.0, -2.0, -3.0, -90.0, -120.0])
    exact = student.detach().double().requires_grad_()
    ours, theirs = reference_kl(student, reference), oracle.k3(reference.double() - exact)
    torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(of(ours, student).double(), of(theirs, exact), rtol=1e-5, atol=1e-5)
