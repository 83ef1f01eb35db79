"""How much better than its siblings was an attempt?"""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdpo.config import Deviation
from sdpo.objectives.advantage import group_advantages, is_uniform

rewards = st.lists(st.floats(0.0, 1.0), min_size=1, max_size=8)
either = pytest.mark.parametrize("divide_by_std", [False, True])


def test_advantage_is_the_distance_from_the_groups_mean():
    assert group_advantages([1.0, 0.0, 0.0, 0.0], divide_by_std=False) == (0.75, -0.25, -0.25, -0.25)


def test_dividing_weighs_a_rare_success_up():
    """One of four: mean ¼, deviation √3/4."""
    rare = group_advantages([1.0, 0.0, 0.0, 0.0], divide_by_std=True)
    assert rare == pytest.approx((math.sqrt(3), *[-1 / math.sqrt(3)] * 3))
    assert rare[0] > group_advantages([1.0, 0.0, 1.0, 0.0], divide_by_std=True)[0]


@either
@given(rewards=rewards)
@settings(derandomize=True, max_examples=60, deadline=None)
def test_advantages_of_a_group_sum_to_zero(divide_by_std, rewards):
    assert sum(group_advantages(rewards, divide_by_std=divide_by_std)) == pytest.approx(0.0, abs=1e-6)


@given(rewards=rewards)
@settings(derandomize=True, max_examples=60, deadline=None)
def test_divided_advantages_have_unit_deviation_or_are_all_zero(rewards):
    advantages = group_advantages(rewards, divide_by_std=True)
    square = sum(a * a for a in advantages) / len(advantages)
    assert square == pytest.approx(1.0) or set(advantages) == {0.0}


def test_divided_advantages_do_not_depend_on_the_scale_of_rewards():
    large, small = [1.0, 0.2, 0.6], [0.5, 0.1, 0.3]
    assert group_advantages(large, divide_by_std=True) == pytest.approx(group_advantages(small, divide_by_std=True))


@either
def test_advantages_follow_their_attempts(divide_by_std):
    forwards = group_advantages([1.0, 0.25, 0.5], divide_by_std=divide_by_std)
    backwards = group_advantages([0.5, 0.25, 1.0], divide_by_std=divide_by_std)
    assert backwards == pytest.approx(forwards[::-1])


@either
@pytest.mark.parametrize("reward", [0.0, 1.0, 0.5, 0.1])
@pytest.mark.parametrize("size", [1, 3, 8])
def test_advantages_are_exactly_zero_where_the_rewards_do_not_differ(divide_by_std, reward, size):
    """Exactly, because a row with any advantage is computed and its update taken: three rewards of 0.1 have a mean of
    0.10000000000000002."""
    assert set(group_advantages([reward] * size, divide_by_std=divide_by_std)) == {0.0}


@either
@pytest.mark.parametrize("rewards", [[0.1 + 0.2, 0.3, 0.3, 0.3], [1.0, 1.0 - 9e-7], [0.7, 0.7 + 1e-9, 0.7 - 1e-9]], ids=str)
def test_rewards_that_differ_by_rounding_do_not_differ(divide_by_std, rewards):
    """Divided by their deviation, four rewards of 0.3 had the advantages 0 and -1.155."""
    assert is_uniform(rewards)
    assert set(group_advantages(rewards, divide_by_std=divide_by_std)) == {0.0}


@either
def test_rewards_that_differ_by_more_than_a_millionth_differ(divide_by_std):
    assert not is_uniform([0.3, 0.3 + 2e-6])
    assert set(group_advantages([0.3, 0.3 + 2e-6], divide_by_std=divide_by_std)) != {0.0}


def test_the_samples_deviation_is_larger_than_the_populations():
    """One of four: √3/4 of the population, ½ of the sample."""
    found = group_advantages([1.0, 0.0, 0.0, 0.0], divide_by_std=True, deviation=Deviation.sample)
    assert found == pytest.approx((1.5, -0.5, -0.5, -0.5))


@either
def test_no_attempts_have_no_advantages(divide_by_std):
    assert group_advantages([], divide_by_std=divide_by_std) == ()
