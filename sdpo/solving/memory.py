"""What was said of failed attempts, each thing once.

The environment often says the same of many attempts; told again it would crowd out what was said of others. A failure that
comes back counts as a new one: it moves to the end, so that the oldest are those that no longer happen.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Failure:
    """A way to fail."""

    feedback: str
    times: int
    """Attempts of which this was said."""


class FeedbackMemory:
    """Distinct failures, the one that happened last at the end."""

    def __init__(self) -> None:
        self._failures: dict[str, Failure] = {}

    def add(self, feedback: str | None) -> None:
        """What was said of a failed attempt; nothing, or white space, is no failure that one could learn from."""
        key = " ".join((feedback or "").split())
        if not key:
            return
        assert feedback is not None
        known = self._failures.pop(key, None)
        self._failures[key] = Failure(feedback=feedback.strip(), times=1 + (known.times if known else 0))

    def __len__(self) -> int:
        return len(self._failures)

    @property
    def feedbacks(self) -> tuple[str, ...]:
        """The latest last."""
        return tuple(failure.feedback for failure in self._failures.values())

    @property
    def failures(self) -> tuple[Failure, ...]:
        """Those said most often first."""
        return tuple(sorted(self._failures.values(), key=lambda failure: -failure.times))
