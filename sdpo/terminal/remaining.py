"""How long will it still take? Estimated from the durations of steps, evaluations and checkpoints, and how many are to come.

The first of a kind is slow (caches, compilation, the first batch of an engine), so it does not count once there are others. As
long as there is but one evaluation, it is compared with what the steps say of the engine's speed. Later ones count alike: they
differ mostly by chance, and a mean over too few would follow that. Pure: time is what the caller says it is.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from statistics import mean, median

from sdpo.config import Config

_RECENT = 20
"""Durations that count: a run's steps become longer or shorter as responses do."""
_MOST_TIMES_MEDIAN = 3.0
"""No duration counts for more: an engine that was restarted will not be restarted in every step."""


class Part(Enum):
    """What a run's time goes into; nothing else takes long."""

    step = "step"
    evaluation = "evaluation"
    lift = "lift"
    """The teacher's evaluation."""
    checkpoint = "checkpoint"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be done: for each part the steps after which it comes, in order. A part may come twice after a step."""

    num_steps: int
    evaluations: Sequence[int] = ()
    lifts: Sequence[int] = ()
    checkpoints: Sequence[int] = ()

    def due(self, part: Part) -> Sequence[int]:
        match part:
            case Part.step:
                return range(1, self.num_steps + 1)
            case Part.evaluation:
                return self.evaluations
            case Part.lift:
                return self.lifts
            case Part.checkpoint:
                return self.checkpoints


def plan_of(config: Config) -> Plan:
    """The plan of a training run."""
    steps = range(config.num_steps + 1)
    evaluations = [step for step in steps if config.evaluation.is_due(step, config.num_steps)]
    is_measured = config.hindsight_answered is not None
    return Plan(
        num_steps=config.num_steps,
        evaluations=evaluations,
        lifts=[step for step in evaluations if is_measured and config.evaluation.asks_for_lift(step, config.num_steps)],
        checkpoints=[step for step in steps[1:] if config.checkpoint.is_due(step, config.num_steps)],
    )


class Remaining:
    """Follows a plan, and estimates the seconds that are left of it."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._took: dict[Part, list[float]] = {part: [] for part in Part}
        self._took_before: Mapping[Part, Sequence[float]] = {}
        self._num_ended = dict.fromkeys(Part, 0)
        self._speeds: list[float] = []
        self._evaluation_tokens = 0
        self._under_way: Part | None = None
        self._since = 0.0

    def go_back(self, step: int, took: Mapping[Part, Sequence[float]]) -> None:
        """The run goes on after ``step`` steps; ``took``: seconds that were recorded until there."""
        self._under_way = None
        self._num_ended = {part: bisect_right(self._plan.due(part), step) if step > 0 else 0 for part in Part}
        self._took_before = took

    def begins(self, part: Part, now: float) -> None:
        """Note that ``part`` begins; what was under way has ended."""
        self.ends(now)
        self._under_way, self._since = part, now

    def ends(self, now: float) -> None:
        if self._under_way is not None:
            self._took[self._under_way].append(now - self._since)
            self._num_ended[self._under_way] += 1
            self._under_way = None

    def sampled(self, num_tokens: int) -> None:
        """Note how many tokens an evaluation has sampled so far."""
        if self._under_way is Part.evaluation:
            self._evaluation_tokens = num_tokens

    def speed(self, tokens_per_s: float) -> None:
        """Note the speed of a step's generation."""
        if tokens_per_s > 0.0:  # else all was taken over from a run that was killed
            self._speeds.append(tokens_per_s)

    def seconds(self, now: float, share: float = 0.0) -> float | None:
        """Seconds until the end; None where nothing is known yet. ``share`` of what is under way is done, by its own progress."""
        spent = now - self._since
        expected = self._expected(self._under_way, spent, share)
        left = 0.0 if expected is None else max(0.0, expected - spent)
        if self._under_way is not None and expected is None:
            return None
        for part in Part:
            num = len(self._plan.due(part)) - self._num_ended[part] - (part is self._under_way)
            if num <= 0:
                continue
            each = self.typical(part)
            if each is None and part is Part.lift:  # about as many answers
                each = expected if self._under_way is Part.evaluation else self.typical(Part.evaluation)
            if each is None and part is Part.step:
                return None
            left += num * (each or 0.0)
        return left

    def _expected(self, part: Part | None, spent: float, share: float) -> float | None:
        """Seconds that what is under way takes in all; None where they are not known."""
        if part is None:
            return 0.0
        typical = self.typical(part)
        return spent / share if typical is None and share > 0.0 else typical

    def typical(self, part: Part) -> float | None:
        """Seconds that one takes; None where none has ended."""
        took, before = self._took[part], self._took_before.get(part, ())
        if len(took) > 1:
            return _typical(took[1:])
        if before:
            return _typical([*(before[1:] or before), *took[1:]])
        if part is Part.evaluation and took and self._evaluation_tokens and len(self._speeds) > 1:
            return min(took[0], self._evaluation_tokens / _typical(self._speeds[1:]))
        return took[0] if took else None


def _typical(values: Sequence[float]) -> float:
    recent = values[-_RECENT:]
    most = _MOST_TIMES_MEDIAN * median(recent)
    return mean(min(value, most) for value in recent)
