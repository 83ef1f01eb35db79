"""The times that a step recorded, as parts that do not overlap and add up to the step.

``time/verify_s`` is a part of ``time/generate_s``, and ``time/teacher_s``, ``time/student_s`` and ``time/optimizer_s`` are parts
of ``time/learn_s``. Any of them may be missing; then its seconds stay with the whole that it is a part of.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from math import isfinite
from statistics import median

from sdpo.types import Metrics


class Phase(Enum):
    """A part of a step, in the order in which they come; the value is its word."""

    generate = "generation"
    """Until the last completion, with what was verified beside it."""
    verify = "verification"
    """From the last completion until the last verdict."""
    hindsight = "hindsight"
    """Hints, rendering and packing."""
    teacher = "teacher"
    """Its forward passes."""
    student = "student"
    """Its forward and backward passes."""
    optimizer = "optimizer"
    learn = "learning, other"
    """What the learner did besides, or all of it where its parts were not recorded."""
    sync = "sync"
    """The teacher's update, and weights to the engines."""
    record = "recording"
    """Keeping what student and teacher said of single tokens."""
    rest = "rest"
    """In none of the phases."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTimes:
    """The median step of a run, the first one aside: it starts engines' caches and kernels, and is no measure."""

    num_steps: int
    """Number of steps that were counted."""
    is_first_counted: bool
    """Whether the first step was counted, because there is no other."""
    seconds: Mapping[Phase, float]
    """Median of each phase that took part; they need not add up to the median step."""

    @property
    def total_s(self) -> float:
        """Sum of the medians, in seconds, so that shares add up to 1."""
        return sum(self.seconds.values())

    def share(self, *phases: Phase) -> float:
        return sum(self.seconds.get(phase, 0.0) for phase in phases) / self.total_s if self.total_s > 0.0 else 0.0


def step_times(rows: Sequence[Metrics]) -> StepTimes | None:
    """The median step. None where no step recorded its times."""
    first, later = ([parts for row in some if (parts := phases(row))] for some in (rows[:1], rows[1:]))
    steps = later or first
    if not steps:
        return None
    found = [phase for phase in Phase if any(phase in parts for parts in steps)]
    return StepTimes(
        num_steps=len(steps),
        is_first_counted=not later,
        seconds={phase: median(parts.get(phase, 0.0) for parts in steps) for phase in found},
    )


def phases(row: Metrics) -> dict[Phase, float]:
    """Seconds of a step's phases; none where the step recorded none."""
    given = {phase: _seconds(row, phase.name) for phase in Phase if phase is not Phase.rest}
    parts: dict[Phase, float] = {phase: seconds for phase, seconds in given.items() if seconds is not None}
    _take_out(parts, Phase.generate, (Phase.verify,))
    _take_out(parts, Phase.learn, (Phase.teacher, Phase.student, Phase.optimizer))
    whole = _seconds(row, "step")
    if whole is not None and parts:
        rest = whole - sum(parts.values())
        if rest < 0.0 and Phase.learn in parts:  # what is recorded inside the updates is in time/learn_s too
            parts[Phase.learn] = max(0.0, parts[Phase.learn] + rest)
        parts[Phase.rest] = max(0.0, rest)
    return parts


def typical(rows: Iterable[Metrics], name: str) -> float | None:
    """The median of a metric over the steps after the first, or at the first where it is the only one; None if in none."""
    values = [row[name] for row in rows if name in row and isfinite(row[name])]
    return median(values[1:] or values) if values else None


def _seconds(row: Metrics, phase: str) -> float | None:
    seconds = row.get(f"time/{phase}_s")
    return max(0.0, seconds) if seconds is not None and isfinite(seconds) else None


def _take_out(parts: dict[Phase, float], whole: Phase, inner: Sequence[Phase]) -> None:
    """A whole keeps what its parts leave of it."""
    if whole in parts:
        parts[whole] = max(0.0, parts[whole] - sum(parts.get(phase, 0.0) for phase in inner))
