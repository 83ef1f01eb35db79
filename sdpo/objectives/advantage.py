"""How much better than its siblings was an attempt? (GRPO, arXiv 2402.03300, section 4.1)"""

from __future__ import annotations

from collections.abc import Sequence

from sdpo.config import Deviation

SMALLEST_DIFFERENCE = 1e-6
"""Rewards that lie closer together are the same: what parts them is rounding, as 0.1 + 0.2 and 0.3 are."""


def is_uniform(rewards_G: Sequence[float]) -> bool:
    """Whether a group's rewards do not differ, so that no attempt is better than another."""
    return not rewards_G or max(rewards_G) - min(rewards_G) < SMALLEST_DIFFERENCE


def group_advantages(
    rewards_G: Sequence[float], *, divide_by_std: bool, deviation: Deviation = Deviation.population
) -> tuple[float, ...]:
    """[G] rewards less their mean and, if asked, over their standard deviation; all 0 where the rewards do not differ.

    Dividing by the deviation weighs groups with rare successes (or rare failures) up; Dr.GRPO (arXiv 2503.20783) leaves it out.
    """
    if is_uniform(rewards_G):  # exactly 0: a rounded mean would leave 1e-17 and so an update without a signal
        return (0.0,) * len(rewards_G)
    mean = sum(rewards_G) / len(rewards_G)
    centred = [reward - mean for reward in rewards_G]
    if not divide_by_std:
        return tuple(centred)
    std = (sum(c * c for c in centred) / deviation.num_free(len(centred))) ** 0.5
    return tuple(c / std for c in centred)
