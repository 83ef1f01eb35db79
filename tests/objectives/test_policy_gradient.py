"""GRPO's loss and its descendants' switches, by hand; and what the sums over tokens are divided by."""

import math

import pytest
import torch

from sdpo.config import LossMean, PolicyGradientConfig, RatioLevel
from sdpo.objectives.policy_gradient import mean_weights, policy_gradient_loss
from sdpo.objectives.rows import sum_by_row

TOKEN = PolicyGradientConfig(clip_low=0.2, clip_high=0.28)
GSPO = PolicyGradientConfig(clip_low=0.2, clip_high=0.28, ratio=RatioLevel.sequence)


def doubles(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def loss_and_gradient(
    ratios: torch.Tensor, advantages: torch.Tensor, rows: torch.Tensor, objective: PolicyGradientConfig
) -> tuple[list[float], list[float]]:
    """Loss of each token, and the gradient of their sum by log π_θ, for given ratios π_θ/π_old."""
    old = torch.full_like(ratios, -1.5)
    student = (old + ratios.log()).requires_grad_()
    losses = policy_gradient_loss(student, old, old, advantages, rows, objective)
    losses.sum().backward()
    return losses.tolist(), student.grad.tolist()


@pytest.mark.parametrize("objective", [TOKEN, GSPO], ids=["token", "gspo"])
def test_on_policy_gradient_is_minus_the_advantage(objective):
    """Also where the ratio is taken over the sequence: each of R tokens then carries 1/R of R equal losses."""
    advantages = doubles(0.7, 0.7, -1.3, -1.3, -1.3)
    losses, gradient = loss_and_gradient(doubles(1, 1, 1, 1, 1), advantages, torch.tensor([0, 0, 1, 1, 1]), objective)
    assert gradient == pytest.approx((-advantages).tolist())
    assert losses == pytest.approx((-advantages).tolist())


def test_on_policy_gradient_survives_a_clip_of_zero_width():
    objective = PolicyGradientConfig(clip_low=0.0, clip_high=0.0)
    _, gradient = loss_and_gradient(doubles(1, 1), doubles(0.7, -0.7), torch.arange(2), objective)
    assert gradient == pytest.approx([-0.7, 0.7])


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient"),
    [
        (1.27, 2.0, -2.54, -2.54),
        (1.29, 2.0, -2.56, 0.0),
        (0.10, 2.0, -0.20, -0.20),
        (0.81, -2.0, 1.62, 1.62),
        (0.79, -2.0, 1.60, 0.0),
        (5.00, -2.0, 10.0, 10.0),
    ],
    ids=[
        "a better attempt within the upper clip",
        "a better attempt beyond it stops pushing",
        "a better attempt that became rare is pulled back",
        "a worse attempt within the lower clip",
        "a worse attempt beyond it stops pushing",
        "a worse attempt that became likely is pushed down",
    ],
)
def test_clip_is_active_on_the_side_the_update_already_went(ratio, advantage, loss, gradient):
    losses, gradients = loss_and_gradient(doubles(ratio), doubles(advantage), torch.arange(1), TOKEN)
    assert losses == pytest.approx([loss])
    assert gradients == pytest.approx([gradient])


@pytest.mark.parametrize("objective", [TOKEN, GSPO], ids=["token", "gspo"])
def test_a_token_that_became_e_to_the_100_times_likelier_leaves_the_gradient_a_number(objective):
    """In fp32 the ratio was infinite, and an infinity times the 0 of a clipped token is no number."""
    student = torch.tensor([-0.5, -1.0, -100.0]).requires_grad_()
    old = torch.tensor([-100.5, -101.0, -0.5])
    for advantage in (1.0, -1.0):
        advantages = torch.full((3,), advantage)
        losses = policy_gradient_loss(student, old, old, advantages, torch.tensor([0, 0, 1]), objective)
        (gradient,) = torch.autograd.grad(losses.sum(), student)
        assert losses.isfinite().all()
        assert gradient.isfinite().all()


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient"),
    [(5.0, -2.0, 6.0, 0.0), (2.9, -2.0, 5.8, 5.8), (5.0, 2.0, -2.56, 0.0), (0.5, -2.0, 1.6, 0.0), (1.0, -2.0, 2.0, 2.0)],
    ids=[
        "a worse attempt far likelier costs no more than c",
        "below c as ever",
        "a better attempt has the upper clip",
        "the lower clip stays",
        "on-policy nothing changes",
    ],
)
def test_the_dual_clip_bounds_what_a_worse_attempt_costs(ratio, advantage, loss, gradient):
    objective = PolicyGradientConfig(clip_low=0.2, clip_high=0.28, clip_ratio_c=3.0)
    losses, gradients = loss_and_gradient(doubles(ratio), doubles(advantage), torch.arange(1), objective)
    assert losses == pytest.approx([loss])
    assert gradients == pytest.approx([gradient])


def test_gspo_ratio_is_the_geometric_mean_over_the_response():
    ratios = doubles(1.1, 0.9, 1.2, 0.95)
    losses, gradient = loss_and_gradient(ratios, doubles(2.0, 1.0, 1.0, 2.0), torch.tensor([1, 0, 0, 1]), GSPO)
    first, second = math.sqrt(0.9 * 1.2), math.sqrt(1.1 * 0.95)
    assert losses == pytest.approx([-2 * second, -first, -first, -2 * second])
    assert gradient == pytest.approx([-2 * second, -first, -first, -2 * second])


def test_gspo_clips_whole_responses():
    """One token far out takes its neighbour with it; the response beside it goes on."""
    ratios, advantages = doubles(4.0, 1.0, 1.05, 1.0), doubles(1.0, 1.0, 1.0, 1.0)
    losses, gradient = loss_and_gradient(ratios, advantages, torch.tensor([0, 0, 1, 1]), GSPO)
    assert losses[:2] == pytest.approx([-1.28, -1.28])
    assert gradient[:2] == [0.0, 0.0]
    assert gradient[2:] == pytest.approx([-math.sqrt(1.05)] * 2)


def test_rollout_weight_is_truncated_from_above_only_and_detached():
    old = doubles(-1.0, -1.0, -1.0)
    student = old.clone().requires_grad_()
    sampled = old - doubles(0.1, 1.5, 3.0).log()
    objective = PolicyGradientConfig(rollout_clip=2.0)
    losses = policy_gradient_loss(student, old, sampled, doubles(-1.0, -1.0, -1.0), torch.arange(3), objective)
    losses.sum().backward()
    assert losses.tolist() == pytest.approx([0.1, 1.5, 2.0])
    assert student.grad.tolist() == pytest.approx([0.1, 1.5, 2.0])


@pytest.mark.parametrize("objective", [TOKEN, GSPO], ids=["token", "gspo"])
def test_rows_do_not_see_each_other(objective):
    old = doubles(-1.0, -2.0, -3.0, -0.5, -0.1)
    student = old + doubles(0.1, -0.2, 0.4, 0.05, -0.3)
    advantages = doubles(1.0, 1.0, -2.0, -2.0, -2.0)
    together = policy_gradient_loss(student, old, old, advantages, torch.tensor([5, 5, 2, 2, 2]), objective)
    alone = [
        policy_gradient_loss(
            student[part], old[part], old[part], advantages[part], torch.zeros(size, dtype=torch.int64), objective
        )
        for part, size in ((slice(0, 2), 2), (slice(2, 5), 3))
    ]
    torch.testing.assert_close(together, torch.cat(alone))


def test_no_tokens_cost_nothing():
    empty = doubles()
    for objective in (TOKEN, GSPO):
        losses = policy_gradient_loss(empty, empty, empty, empty, torch.zeros(0, dtype=torch.int64), objective)
        assert losses.shape == (0,)


def test_sum_by_row_leaves_each_token_with_its_rows_sum():
    values, rows = doubles(1.0, 2.0, 4.0, 8.0), torch.tensor([4, 0, 4, 0])
    assert sum_by_row(values, rows).tolist() == [5.0, 10.0, 5.0, 10.0]


ROWS = torch.tensor([0, 0, 0, 0, 1, 2, 2, 2])
"""Three responses of 4, 1 and 3 tokens."""


def weights(rows: torch.Tensor, mean: LossMean) -> torch.Tensor:
    return mean_weights(rows, mean, num_loss_tokens=8, num_rows=3, max_response_tokens=10)


def test_token_mean_weighs_every_token_of_the_update_alike():
    assert weights(ROWS, LossMean.token).tolist() == pytest.approx([1 / 8] * 8)


def test_sequence_mean_weighs_every_response_alike_however_long():
    by_row = torch.zeros(3).index_add(0, ROWS, weights(ROWS, LossMean.sequence))
    assert by_row.tolist() == pytest.approx([1 / 3] * 3)


def test_constant_mean_is_one_for_responses_of_the_longest_possible_length():
    assert weights(ROWS, LossMean.constant).tolist() == pytest.approx([1 / 30] * 8)


@pytest.mark.parametrize("mean", list(LossMean), ids=lambda mean: mean.value)
def test_weights_do_not_depend_on_the_micro_batch_size(mean):
    parts = [weights(ROWS[:4], mean), weights(ROWS[4:5], mean), weights(ROWS[5:], mean)]
    assert torch.equal(weights(ROWS, mean), torch.cat(parts))


@pytest.mark.parametrize("mean", list(LossMean), ids=lambda mean: mean.value)
def test_weights_of_an_update_without_tokens_are_none(mean):
    nothing = torch.zeros(0, dtype=torch.int64)
    empty = mean_weights(nothing, mean, num_loss_tokens=0, num_rows=0, max_response_tokens=10)
    assert empty.shape == (0,)
