"""What is held against the start of the run: length, entropy, variety of answers, divergence.

A change of length or a fall of entropy is no alarm while success has risen, or nearly everything is solved. A good SDPO run gets
shorter and surer too: arXiv 2601.20802 reports responses several times shorter than GRPO's. Below ``guards.min_entropy``, entropy
is an alarm unless nearly everything is solved. Numbers that are missing are passed over.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field

from sdpo.config import GuardsConfig
from sdpo.types import Metrics

MASTERED = 0.9
"""Success from which on a policy may be as sure of its tokens as it likes."""
_REPLAY = "Look at the kept updates with `sdpo replay`; lower learner.lr."


@dataclass(slots=True)
class _Course:
    """What became of one number: its mean at the start and its last values."""

    num_first: int
    num_last: int
    _first: list[float] = field(default_factory=list)
    _last: list[float] = field(default_factory=list)

    def add(self, value: float | None) -> None:
        if value is None or not math.isfinite(value):
            return
        if len(self._first) < self.num_first:
            self._first.append(value)
        else:
            self._last = [*self._last, value][-self.num_last :]

    @property
    def is_known(self) -> bool:
        """Whether there are steps enough, at the start and of late."""
        return len(self._last) == self.num_last

    @property
    def early(self) -> float:
        return statistics.fmean(self._first)

    @property
    def median(self) -> float:
        return statistics.median(self._last)

    @property
    def mean(self) -> float:
        return statistics.fmean(self._last)


@dataclass(slots=True)
class _AgainstTheStart:
    """A number and success, each at the start and of late; success over more steps, since it is noisier."""

    config: GuardsConfig
    value: _Course = field(init=False)
    success: _Course = field(init=False)

    def __post_init__(self) -> None:
        self.value = _Course(self.config.early, self.config.recent)
        self.success = _Course(self.config.early, self.config.window)

    def add(self, value: float | None, success: float) -> bool:
        """Add a step's numbers. Returns whether enough is known."""
        self.value.add(value)
        self.success.add(success)
        return self.value.is_known

    @property
    def is_excused(self) -> bool:
        return self.success.mean > self.success.early or self.has_mastered

    @property
    def has_mastered(self) -> bool:
        return self.success.mean >= MASTERED

    @property
    def meanwhile(self) -> str:
        return f"while success went from {self.success.early:.0%} to {self.success.mean:.0%}"


@dataclass(slots=True)
class Length(_AgainstTheStart):
    """A policy that collapses often ends at once, or never."""

    def check(self, metrics: Metrics) -> str | None:
        if not self.add(metrics.get("response_tokens"), metrics["success"]) or self.is_excused:
            return None
        early, recent = self.value.early, self.value.median
        low, high = self.config.min_length_factor * early, self.config.max_length_factor * early
        if low <= recent <= high:
            return None
        return (
            f"responses should stay between {low:.0f} and {high:.0f} tokens ({self.config.min_length_factor:g} and "
            f"{self.config.max_length_factor:g} times their mean over the first {self.config.early} steps); they are at "
            f"{recent:.0f}, {self.meanwhile}. Read this step's rollouts; lower learner.lr or algorithm.teacher.ema_rate, or "
            "blend in a policy gradient."
        )


@dataclass(slots=True)
class Entropy(_AgainstTheStart):
    """Without entropy all attempts at a task are alike, and nothing is found out any more."""

    def check(self, metrics: Metrics) -> str | None:
        if not self.add(metrics.get("entropy"), metrics["success"]):
            return None
        early, recent = self.value.early, self.value.median
        has_fallen = recent < self.config.min_entropy_factor * early and not self.is_excused
        is_gone = recent < self.config.min_entropy and not self.has_mastered
        if not has_fallen and not is_gone:
            return None
        return (
            f"entropy should stay above {self.config.min_entropy_factor:g} times its early mean of {early:.3f} nats a token, and "
            f"above {self.config.min_entropy:g}; it is at {recent:.4f}, {self.meanwhile}. Lower learner.lr, set "
            "algorithm.entropy_bonus, or raise sampling.temperature."
        )


@dataclass(slots=True)
class Variety(_AgainstTheStart):
    """Attempts that are all alike find out nothing.

    Rising success while training is no excuse: held-out success may be falling meanwhile, as right answers are memorised.
    """

    def check(self, metrics: Metrics) -> str | None:
        if not self.add(metrics.get("answers/distinct"), metrics["success"]) or self.has_mastered:
            return None
        early, recent = self.value.early, self.value.median
        if recent >= self.config.min_variety_factor * early:
            return None
        return (
            f"attempts at a task should stay different: answers/distinct above {self.config.min_variety_factor:g} times its "
            f"early mean of {early:.0%}; it is at {recent:.0%}, {self.meanwhile}. Look at held-out success (evaluation.every), "
            "end at its best (guards.response=stop_at_best); lower learner.lr, or set algorithm.entropy_bonus or reference_kl."
        )


@dataclass(slots=True)
class Divergence:
    """Student and teacher are one model with and without a hint: far apart, one of them is lost."""

    config: GuardsConfig
    _course: _Course = field(init=False)

    def __post_init__(self) -> None:
        self._course = _Course(self.config.early, self.config.recent)

    def check(self, metrics: Metrics) -> str | None:
        broken = [name for name in ("loss", "divergence", "entropy", "mismatch") if not math.isfinite(metrics.get(name, 0.0))]
        if broken:
            return (
                f"numbers should be finite; {', '.join(broken)} of this step {'is' if len(broken) == 1 else 'are'} not. {_REPLAY}"
            )
        if metrics.get("updates_skipped", 0.0) > 0.0 and metrics.get("updates", 0.0) == 0.0:
            return f"gradients should be finite; none of this step's was, and its updates were skipped. {_REPLAY}"
        self._course.add(metrics.get("divergence"))
        if not self._course.is_known:
            return None
        early, recent = self._course.early, self._course.median
        if recent <= self.config.max_divergence_factor * early:
            return None
        return (
            f"the divergence should stay below {self.config.max_divergence_factor:g} times its early mean of {early:.4f} nats; "
            f"it is at {recent:.4f}. Student and teacher have come apart: lower learner.lr, or let the teacher follow faster "
            "(algorithm.teacher.ema_rate) or not at all (kind=frozen)."
        )
