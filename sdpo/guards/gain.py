"""When does the teacher move? Consolidation-Gated Teacher Refresh (arXiv 2606.03532): only on evidence that the policy is better.

A teacher that moves with the policy (an average, or a copy every few steps) takes on whatever the policy drifts into. The two
then agree on it. So this one stands still until success has risen since its last refresh and responses have not grown: drift
begins with their growth. The paper looks at the tail of the lengths; here it is their mean, which every run records.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

from sdpo.config import OnGainTeacher
from sdpo.types import Metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class _Standing:
    """How good the policy was, and how long its answers were."""

    success: float
    response_tokens: float


@dataclass(slots=True)
class Gain:
    """A fold over steps or evaluations that says when to refresh."""

    config: OnGainTeacher
    by_evaluation: bool
    """Whether there are held-out evaluations to go by; else windows of training steps, one after the other."""
    _before: _Standing | None = None
    """At the last refresh, or at the start."""
    _window: list[_Standing] = field(default_factory=list)

    def step(self, metrics: Metrics) -> bool:
        """Whether to refresh after this step."""
        if self.by_evaluation:
            return False
        self._window.append(_Standing(success=metrics["success"], response_tokens=metrics["response_tokens"]))
        if len(self._window) < self.config.gain_window:
            return False
        success = statistics.fmean(one.success for one in self._window)
        length = statistics.fmean(one.response_tokens for one in self._window)
        self._window = []
        return self._is_gain(_Standing(success=success, response_tokens=length))

    def evaluation(self, metrics: Metrics) -> bool:
        """Whether to refresh after this evaluation."""
        if not self.by_evaluation or "heldout/success" not in metrics:
            return False
        now = _Standing(success=metrics["heldout/success"], response_tokens=metrics["heldout/response_tokens"])
        return self._is_gain(now)

    def refreshed(self) -> None:
        """The teacher became the policy for another reason: gains are over what comes next."""
        self._before, self._window = None, []

    def _is_gain(self, now: _Standing) -> bool:
        before = self._before
        if before is None:
            self._before = now
            return False
        longest = (1.0 + self.config.max_length_growth) * before.response_tokens
        if now.success <= before.success + self.config.min_gain or now.response_tokens > longest:
            return False
        self._before = now
        return True
