"""What the gym's figures say of curves that are known."""

from __future__ import annotations

import pytest

from tests.learning.comparison import Comparison, generations_to
from tests.learning.runs import Curve


def curve(*success: float, every: int = 100) -> Curve:
    generations = [every * place for place in range(len(success))]
    return Curve(
        name="", seed=0, generations=generations, success=list(success), tokens=[5 * g for g in generations],
        seconds=[g / 50 for g in generations], credit=0.0,
    )  # fmt: skip


def compared(sdpo: Curve, grpo: Curve) -> Comparison:
    return Comparison(length=8, base_success=0.001, sdpo=[sdpo], grpo=[grpo])


def test_the_goal_is_crossed_between_two_looks() -> None:
    assert generations_to(curve(0.0, 0.2, 0.6), 0.5) == pytest.approx(175)
    assert generations_to(curve(0.0, 0.2, 0.4), 0.5) is None
    assert generations_to(curve(0.6, 0.2), 0.5) == 0


def test_a_method_that_is_twice_as_fast_has_a_ratio_of_a_half() -> None:
    one = compared(curve(0.0, 0.5, 1.0), curve(0.0, 0.25, 0.5, 0.75, 1.0))
    assert one.ratios("generations") == pytest.approx([0.5], abs=0.01)
    assert one.ratios("tokens") == pytest.approx([0.5], abs=0.01)
    assert one.bounds() == ""


def test_a_grpo_that_never_learns_is_no_goal_but_a_bound() -> None:
    """Its final success is noise, which anything reaches at once."""
    one = compared(curve(0.0, 0.5, 1.0), curve(0.0, 0.01, 0.0, 0.02, 0.01))
    assert one.ratios("generations") == [100 / 400]
    assert one.bounds().startswith("at most in 1 of 1")
    assert "≤" in one.row()[3]


def test_an_sdpo_that_does_not_get_there_counts_with_all_that_it_used() -> None:
    one = compared(curve(0.0, 0.1, 0.2, 0.3), curve(0.0, 0.9, 0.9))
    assert one.ratios("generations")[0] == pytest.approx(300 / 100)
    assert one.bounds().startswith("at least in 1 of 1")
