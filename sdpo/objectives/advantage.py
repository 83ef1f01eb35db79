"""How much better was an attempt: than its group (GRPO, arXiv 2402.03300, section 4.1), its siblings, or the whole step?

Another answer is a function of the step's rewards. It is named in ``sdpo/plugins/seams.py``, by an entry point, or by its file.
Shapes: P tasks, G attempts at each, which may be another number at each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, cast

from sdpo.config import Deviation, PolicyGradientConfig
from sdpo.plugins.seams import ADVANTAGES


class Advantage(Protocol):
    """How attempts are compared."""

    def __call__(self, rewards_P_G: Sequence[Sequence[float]], config: PolicyGradientConfig) -> tuple[tuple[float, ...], ...]:
        """[P, G] advantages; exactly 0 where there is nothing to tell attempts apart by. A group may be empty."""
        ...


def advantages_of(rewards_P_G: Sequence[Sequence[float]], config: PolicyGradientConfig) -> tuple[tuple[float, ...], ...]:
    """[P, G] as ``config.advantage`` has them."""
    found = advantage_of(config)(rewards_P_G, config)
    lengths, wanted = [len(advantages_G) for advantages_G in found], [len(rewards_G) for rewards_G in rewards_P_G]
    if lengths != wanted:
        raise ValueError(
            f"algorithm.policy_gradient.advantage must give each attempt a number; {config.advantage!r} gave groups of {wanted} "
            f"attempts {lengths}."
        )
    return found


def advantage_of(config: PolicyGradientConfig) -> Advantage:
    """The one that ``config.advantage`` names. Raises ValueError where it names none."""
    found = ADVANTAGES.load(config.advantage)
    if not callable(found):
        raise ValueError(
            "algorithm.policy_gradient.advantage must name a function of a step's rewards and the config "
            f"(sdpo.objectives.advantage.Advantage); {config.advantage!r} is {found!r}"
        )
    return cast(Advantage, found)


def over_groups(rewards_P_G: Sequence[Sequence[float]], config: PolicyGradientConfig) -> tuple[tuple[float, ...], ...]:
    """[P, G] as GRPO has them."""
    return tuple(
        group_advantages(rewards_G, divide_by_std=config.divide_by_std, deviation=config.deviation) for rewards_G in rewards_P_G
    )


def leave_one_out(rewards_P_G: Sequence[Sequence[float]], config: PolicyGradientConfig) -> tuple[tuple[float, ...], ...]:
    """[P, G] each reward less the mean of its siblings' (RLOO, arXiv 2402.14740, section 2): G/(G-1) of the centred reward."""
    return tuple(
        tuple(len(centred_G) / (len(centred_G) - 1) * centred for centred in centred_G) if len(centred_G) > 1 else centred_G
        for centred_G in _centred(rewards_P_G)
    )


def over_batch(rewards_P_G: Sequence[Sequence[float]], config: PolicyGradientConfig) -> tuple[tuple[float, ...], ...]:
    """[P, G] rewards less the step's mean, over the step's deviation (REINFORCE++, arXiv 2501.03262)."""
    rewards = [reward for rewards_G in rewards_P_G for reward in rewards_G]
    flat = iter(group_advantages(rewards, divide_by_std=True, deviation=config.deviation))
    return tuple(tuple(next(flat) for _ in rewards_G) for rewards_G in rewards_P_G)


def over_groups_then_batch(rewards_P_G: Sequence[Sequence[float]], config: PolicyGradientConfig) -> tuple[tuple[float, ...], ...]:
    """[P, G] rewards less their group's mean, over the deviation of these in the step (REINFORCE++ with baseline, likewise).

    The step's mean of them is 0. A task with rare successes weighs no more than its rewards do.
    """
    centred_P_G = _centred(rewards_P_G)
    squares = [centred * centred for centred_G in centred_P_G for centred in centred_G]
    deviation = (sum(squares) / max(config.deviation.num_free(len(squares)), 1)) ** 0.5 or 1.0
    return tuple(tuple(centred / deviation for centred in centred_G) for centred_G in centred_P_G)


def _centred(rewards_P_G: Sequence[Sequence[float]]) -> tuple[tuple[float, ...], ...]:
    return tuple(group_advantages(rewards_G, divide_by_std=False) for rewards_G in rewards_P_G)


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
