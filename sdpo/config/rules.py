"""Rules that a single value keeps; a breach is a ValueError that says the rule and what was found."""

from __future__ import annotations


def at_least(key: str, value: float, bound: float, reason: str) -> None:
    if not value >= bound:
        raise ValueError(f"{key} must be at least {bound} ({reason}); got {value}.")


def between(key: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"{key} must lie between {low} and {high}; got {value}.")


def positive(key: str, value: float) -> None:
    if not value > 0.0:
        raise ValueError(f"{key} must be positive; got {value}.")


def probability(key: str, value: float) -> None:
    if not 0.0 < value <= 1.0:
        raise ValueError(f"{key} must lie in (0, 1]; got {value}.")
