"""What says that the run cannot learn as it is set up: nothing to learn from, hindsight that misleads, an engine that is off."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field

from sdpo.config import GuardsConfig
from sdpo.types import Metrics


@dataclass(slots=True)
class NoSamples:
    """The mask of the loss is empty: time passes, and the policy stays as it is."""

    config: GuardsConfig
    _num: int = 0

    def check(self, metrics: Metrics) -> str | None:
        is_empty = metrics.get("updates", 0.0) == 0.0 and metrics.get("updates_skipped", 0.0) == 0.0
        self._num = self._num + 1 if is_empty else 0
        if self._num < self.config.patience:
            return None
        return (
            f"at most {self.config.patience - 1} steps in a row may pass without training samples; there were {self._num}, with "
            f"success at {metrics['success']:.0%} and hints for {metrics.get('hindsight', 0.0):.0%} of the attempts. Where all "
            "fail, take easier tasks, more attempts (batch.group_size) or an environment with feedback; where all succeed, "
            "harder tasks."
        )


@dataclass(slots=True)
class NoHint:
    """SDPO learns from hints alone, unless it is blended."""

    config: GuardsConfig
    _num: int = 0

    def check(self, metrics: Metrics) -> str | None:
        self._num = self._num + 1 if metrics.get("hindsight", 0.0) == 0.0 else 0
        if self._num < self.config.patience:
            return None
        return (
            f"at most {self.config.patience - 1} steps in a row may pass without a hint for any attempt; it were {self._num}, "
            f"with success at {metrics['success']:.0%}. SDPO needs solved siblings or feedback: take easier tasks, more attempts "
            "(batch.group_size) or an environment with feedback, or set algorithm.routing.kind=by_hint."
        )


@dataclass(slots=True)
class Credit:
    """Credit is log q(y) - log π(y). Where failures have more of it than successes, the student moves towards failing.

    Not so where the teacher was found to answer better: one that is shown a sibling's right answer finds other right answers less
    probable, and is right all the same. So evaluations are looked at for its lift.
    """

    config: GuardsConfig
    _gaps: list[float] = field(default_factory=list)
    _is_lifted: bool = False
    """Whether the lift that was measured last is above 0 by ``num_se`` standard errors."""

    def check(self, metrics: Metrics) -> str | None:
        if metrics.keys() >= {"lift", "lift/se"}:
            self._is_lifted = metrics["lift"] > self.config.num_se * metrics["lift/se"]
        if not metrics.keys() >= {"credit/solved", "credit/failed"}:
            return None
        gap = metrics["credit/solved"] - metrics["credit/failed"]
        if not math.isfinite(gap):
            return None
        self._gaps = [*self._gaps, gap][-self.config.window :]
        if len(self._gaps) < self.config.window:
            return None
        mean, noise = statistics.fmean(self._gaps), statistics.stdev(self._gaps) / math.sqrt(len(self._gaps))
        if self._is_lifted or mean + self.config.num_se * noise >= 0.0:
            return None
        return (
            "hindsight should find what solved a task more probable than what failed; over the last "
            f"{self.config.window} steps that had both it gave solved attempts {-mean:.3f} ± {noise:.3f} nats a token less. "
            "The teacher misleads: try algorithm.hindsight.choice=demonstration_only, a larger model, or a policy gradient."
        )


@dataclass(slots=True)
class Lift:
    """A self-teacher that hindsight makes no better has nothing to teach."""

    config: GuardsConfig

    def check(self, metrics: Metrics) -> str | None:
        lift, noise = metrics.get("lift"), metrics.get("lift/se")  # of a few tasks there is no error: it says nothing
        if lift is None or noise is None or not lift + self.config.num_se * noise < self.config.min_lift:
            return None
        return (
            f"hindsight should lift the teacher's success by at least {self.config.min_lift:+.1%}; it changes it by {lift:+.1%} "
            f"± {noise:.1%}. The model cannot use its hints yet: warm it up, take a larger one, or blend in a policy gradient."
        )


@dataclass(slots=True)
class Mismatch:
    """The engine samples from other weights, or other arithmetic, than the learner scores with: throughout, or here and there."""

    config: GuardsConfig
    _means: list[float] = field(default_factory=list)
    _highest: list[float] = field(default_factory=list)
    """99th percentiles over tokens."""

    def check(self, metrics: Metrics) -> str | None:
        mean = self._recent(self._means, metrics.get("mismatch"))
        highest = self._recent(self._highest, metrics.get("mismatch/p99"))
        if mean is not None and mean > self.config.max_mismatch:
            found = f"agree to {self.config.max_mismatch:g} nats a token; they are {mean:.3f} apart"
        elif highest is not None and highest > self.config.max_mismatch_p99:
            found = f"agree to {self.config.max_mismatch_p99:g} nats at all but one token in a hundred; there it is {highest:.3f}"
        else:
            return None
        return (
            f"learner and engine should {found}. Set rollout.dtype to learner.dtype, take fewer updates a step "
            "(batch.tasks_per_update), a lower learner.lr or less rollout.staleness."
        )

    def _recent(self, last: list[float], value: float | None) -> float | None:
        """The median of the last values, ``value`` among them; None where it is missing or there are too few."""
        if value is None or not math.isfinite(value):
            return None
        last[:] = [*last, value][-self.config.recent :]
        return statistics.median(last) if len(last) == self.config.recent else None
