"""How much better than its siblings was an attempt? (GRPO, arXiv 2402.03300, section 4.1)"""

from __future__ import annotations

from collections.abc import Sequence


def group_advantages(rewards_G: Sequence[float], *, divide_by_std: bool) -> tuple[float, ...]:
    """[G] rewards less their mean and, if asked, over their standard deviation; all 0 where the rewards do not differ.

    Dividing by the deviation weighs groups with rare successes (or rare failures) up; Dr.GRPO (arXiv 2503.20783) leaves it out.
    """
    if len(set(rewards_G)) <= 1:  # exactly 0: a rounded mean would leave 1e-17 and so an update without a signal
        return (0.0,) * len(rewards_G)
    mean = sum(rewards_G) / len(rewards_G)
    centred = [reward - mean for reward in rewards_G]
    if not divide_by_std:
        return tuple(centred)
    deviation = (sum(c * c for c in centred) / len(centred)) ** 0.5
    return tuple(c / deviation for c in centred)
