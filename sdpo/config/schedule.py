"""How does the learning rate change over a run? ``learner.schedule.kind`` picks one of these classes.

A rate is ``learner.lr`` times the schedule's share times the warm-up's. A share is a function of the steps finished, so all
updates of a step have the same one, and a continued run goes on with the very same rates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from omegaconf import MISSING

from sdpo.config.rules import at_least, between


@dataclass
class ScheduleConfig:
    """A course of the learning rate."""

    kind: str = MISSING

    @property
    def is_bounded(self) -> bool:
        """Whether it knows after how many steps it ends, or need not."""
        return True

    def share(self, step: int) -> float:
        """The share of ``learner.lr`` that the updates have which follow on ``step`` finished steps."""
        raise NotImplementedError

    def over(self, num_steps: int) -> ScheduleConfig:
        """The same over ``num_steps`` steps, unless it says how many itself."""
        return self


@dataclass
class ConstantSchedule(ScheduleConfig):
    """``learner.lr`` throughout."""

    kind: str = "constant"

    def share(self, step: int) -> float:
        return 1.0


@dataclass
class DecaySchedule(ScheduleConfig):
    """From ``learner.lr`` at the first step down to the floor after ``num_steps`` steps, and the floor from there on."""

    floor: float = 0.0
    """Share of ``learner.lr`` that is left in the end."""
    num_steps: int | None = None
    """Steps until the floor; None: the run's ``num_steps``."""

    @property
    def is_bounded(self) -> bool:
        return self.num_steps is not None

    def share(self, step: int) -> float:
        assert self.num_steps is not None, "whoever makes the config says over how many steps (over)"
        return self.floor + (1.0 - self.floor) * self.remainder(min(step / self.num_steps, 1.0))

    def remainder(self, progress: float) -> float:
        """What is left of the way down, from 1 at a ``progress`` of 0 to 0 at 1."""
        raise NotImplementedError

    def over(self, num_steps: int) -> ScheduleConfig:
        return self if self.is_bounded else replace(self, num_steps=num_steps)

    def __post_init__(self) -> None:
        between("learner.schedule.floor", self.floor, 0.0, 1.0)
        if self.num_steps is not None:
            at_least("learner.schedule.num_steps", self.num_steps, 1, "it counts steps")


@dataclass
class LinearSchedule(DecaySchedule):
    """Down in a straight line."""

    kind: str = "linear"

    def remainder(self, progress: float) -> float:
        return 1.0 - progress


@dataclass
class CosineSchedule(DecaySchedule):
    """Down along half a cosine (SGDR without restarts, arXiv 1608.03983)."""

    kind: str = "cosine"

    def remainder(self, progress: float) -> float:
        return 0.5 * (1.0 + math.cos(math.pi * progress))


SCHEDULES: dict[str, type[ScheduleConfig]] = {"constant": ConstantSchedule, "linear": LinearSchedule, "cosine": CosineSchedule}
