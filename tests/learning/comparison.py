"""How many generations, tokens and seconds does SDPO need for what GRPO reaches?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tests.learning.runs import SOLVED, Curve

TAKEN_OFF = 0.2
"""Held-out success under which GRPO counts as not having begun to learn: what it ended at is then no goal."""
GOAL_WITHOUT_GRPO = 0.5
"""What SDPO has to reach instead, in fewer generations than GRPO's whole budget."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """A mean with its standard error over seeds."""

    mean: float
    error: float
    num: int

    def __str__(self) -> str:
        return f"{self.mean:.3g} ± {self.error:.2g}" if self.num > 1 else f"{self.mean:.3g}"


def spread(values: Sequence[float]) -> Spread:
    """Of at least one value; the error of a single one is 0."""
    mean = sum(values) / len(values)
    if len(values) < 2 or not math.isfinite(mean):
        return Spread(mean=mean, error=0.0, num=len(values))
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return Spread(mean=mean, error=math.sqrt(variance / len(values)), num=len(values))


def generations_to(curve: Curve, goal: float) -> float | None:
    """Generations until held-out success is first at ``goal``, interpolated between evaluations; None where it never is."""
    return _crossing(curve.generations, curve.success, goal)


def _crossing(costs: Sequence[float], success: Sequence[float], goal: float) -> float | None:
    for place, now in enumerate(success):
        if now >= goal:
            if place == 0:
                return float(costs[0])
            before = success[place - 1]
            return costs[place - 1] + (costs[place] - costs[place - 1]) * (goal - before) / (now - before)
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Runs of both algorithms on the same tasks; curves of the same place have the same seed."""

    length: int
    base_success: float
    sdpo: Sequence[Curve]
    grpo: Sequence[Curve]

    def ratios(self, cost: str) -> list[float]:
        """One a seed: SDPO's generations (tokens, seconds) to GRPO's final success, over those GRPO took to it.

        Where GRPO has not taken off it is SDPO's cost of ``GOAL_WITHOUT_GRPO`` over GRPO's whole budget: the true ratio is
        smaller. Where SDPO never gets there it is SDPO's whole budget over GRPO's cost: the true ratio is larger.
        """
        return [self._ratio(sdpo, grpo, cost) for sdpo, grpo in zip(self.sdpo, self.grpo, strict=True)]

    def bounds(self) -> str:
        """How many of the ratios are only bounds."""
        upper = sum(not _has_taken_off(grpo) for grpo in self.grpo)
        lower = sum(generations_to(sdpo, _goal(grpo)) is None for sdpo, grpo in zip(self.sdpo, self.grpo, strict=True))
        return ", ".join(
            [
                *([f"at most in {upper} of {len(self.grpo)}: GRPO did not take off"] if upper else []),
                *([f"at least in {lower} of {len(self.grpo)}: SDPO did not get there"] if lower else []),
            ]
        )

    @property
    def measured_base(self) -> float:
        """Held-out success before training, of all runs."""
        return spread([curve.success[0] for curve in (*self.sdpo, *self.grpo)]).mean

    def figures(self) -> dict[str, object]:
        """For a machine."""
        return {
            "measured_base_success": round(self.measured_base, 5),
            "sdpo_final": round(spread([curve.success[-1] for curve in self.sdpo]).mean, 4),
            "grpo_final": round(spread([curve.success[-1] for curve in self.grpo]).mean, 4),
            **{
                f"{cost}_vs_grpo": [round(value, 4) for value in (found.mean, found.error)]
                for cost in ("generations", "tokens", "seconds")
                for found in [spread(self.ratios(cost))]
            },
            "bounds": self.bounds(),
        }

    def row(self) -> list[str]:
        """Of the table."""
        mark = "≤ " if any(not _has_taken_off(grpo) for grpo in self.grpo) else ""
        return [
            f"{self.length}, {self.base_success:.2%} ({self.measured_base:.2%})",
            str(spread([curve.success[-1] for curve in self.sdpo])),
            str(spread([curve.success[-1] for curve in self.grpo])),
            *(mark + str(spread(self.ratios(cost))) for cost in ("generations", "tokens", "seconds")),
            str(len(self.sdpo)),
        ]

    def _ratio(self, sdpo: Curve, grpo: Curve, cost: str) -> float:
        goal = _goal(grpo)
        of_grpo = _crossing(getattr(grpo, cost), grpo.success, goal) if _has_taken_off(grpo) else None
        of_sdpo = _crossing(getattr(sdpo, cost), sdpo.success, goal)
        budget_grpo, budget_sdpo = float(getattr(grpo, cost)[-1]), float(getattr(sdpo, cost)[-1])
        return (budget_sdpo if of_sdpo is None else of_sdpo) / (budget_grpo if of_grpo is None else of_grpo)


def _has_taken_off(grpo: Curve) -> bool:
    return _final(grpo) >= TAKEN_OFF


def _goal(grpo: Curve) -> float:
    return _final(grpo) if _has_taken_off(grpo) else GOAL_WITHOUT_GRPO


def _final(curve: Curve) -> float:
    """Held-out success at the end: of the last two evaluations, which are noisy; never more than what ends a run."""
    last = curve.success[-2:]
    return min(max(last) if max(last) >= SOLVED else sum(last) / len(last), SOLVED)
