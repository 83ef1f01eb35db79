"""What has a search spent, what is left, and when will it be over?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sdpo.config import BudgetConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """By a search, in all processes that worked on it."""

    attempts: int = 0
    tokens: int = 0
    """Generated ones."""
    seconds: float = 0.0

    def plus(self, other: Spent) -> Spent:
        return Spent(
            attempts=self.attempts + other.attempts, tokens=self.tokens + other.tokens, seconds=self.seconds + other.seconds
        )


def exhausted(budget: BudgetConfig, spent: Spent) -> str | None:
    """Which of the budget's limits is reached; None while there is some of all."""
    return next((name for name, used, limit in _limits(budget, spent) if used >= limit), None)


def next_attempts(budget: BudgetConfig, spent: Spent, group_size: int) -> int:
    """How many the next step may make."""
    return group_size if budget.attempts is None else min(group_size, budget.attempts - spent.attempts)


def share_spent(budget: BudgetConfig, spent: Spent) -> float:
    """Share of the nearest limit that is spent; in [0, 1]."""
    return min(1.0, max(used / limit for _, used, limit in _limits(budget, spent)))


def eta_s(budget: BudgetConfig, spent: Spent) -> float | None:
    """Seconds until the first limit is reached at the present pace; None before there is one."""
    share = share_spent(budget, spent)
    return spent.seconds * (1.0 - share) / share if share > 0.0 and spent.seconds > 0.0 else None


def _limits(budget: BudgetConfig, spent: Spent) -> Iterator[tuple[str, float, float]]:
    """Name, used, limit of each that is set."""
    for name in ("attempts", "tokens", "seconds"):
        limit: float | None = getattr(budget, name)
        if limit is not None:
            used: float = getattr(spent, name)
            yield name, used, limit
