"""What a tracker is given, and what it must be able to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from sdpo.types import Metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """The numbers of a step, or of an evaluation after it."""

    step: int
    """Steps finished; 0 for the evaluation before the first."""
    is_evaluation: bool
    metrics: Metrics
    """Names as in ``sdpo.metrics``."""

    @property
    def row(self) -> int:
        """Its place in the run: a pure function of what it is of, and greater than that of any record before it."""
        return 2 * self.step + self.is_evaluation


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a tracker shows of a run besides its numbers."""

    name: str
    tags: Sequence[str]
    config: dict[str, object]
    """Nested, of plain values."""


class Sink(Protocol):
    """A tracker of one run. Any method may raise anything: whoever calls it does without it then."""

    def go_back(self, step: int) -> None:
        """The run goes on after ``step`` steps; records of later ones will come again. Called before the first record too."""
        ...

    def record(self, record: Record) -> None:
        """In order, but for records that come again, each of which counts once."""
        ...

    def close(self) -> None: ...
