"""What is held against the run's best: success while training, and on held-out tasks."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field

from sdpo.config import GuardsConfig
from sdpo.types import Metrics


@dataclass(slots=True)
class Success:
    """The sliding window's mean against the best one's. Noise is what neighbouring steps differ by, which no trend enlarges."""

    config: GuardsConfig
    _window: list[float] = field(default_factory=list)
    _best: float = -1.0
    _squares: float = 0.0
    """Sum over all pairs of neighbouring steps of their squared difference."""
    _num_pairs: int = 0

    def check(self, metrics: Metrics) -> str | None:
        config, success = self.config, metrics["success"]
        if self._window:
            self._squares += (success - self._window[-1]) ** 2
            self._num_pairs += 1
        self._window = [*self._window, success][-config.window :]
        if len(self._window) < config.window:
            return None
        mean = statistics.fmean(self._window)
        self._best = max(self._best, mean)
        of_a_step = self._squares / (2 * self._num_pairs)
        noise = math.sqrt(2.0 * of_a_step / config.window)
        has_fallen = mean < config.min_success_factor * self._best
        if not has_fallen or self._best - mean <= config.num_success_se * noise:
            return None
        return (
            f"success while training should stay above {config.min_success_factor:g} times its best over {config.window} steps, "
            f"{self._best:.1%}; the last {config.window} have {mean:.1%}, more than {config.num_success_se:g} standard errors "
            f"({noise:.1%}) less. Read this step's rollouts; go back to an earlier checkpoint with a lower learner.lr, a frozen "
            "teacher or a policy gradient."
        )


@dataclass(slots=True)
class Heldout:
    """Held-out success against its best. The tasks stay the same, so their spread, the standard error, overstates the noise."""

    config: GuardsConfig
    _best: float = -1.0
    _best_se: float = 0.0

    def check(self, metrics: Metrics) -> str | None:
        if "heldout/success" not in metrics:
            return None
        success, noise = metrics["heldout/success"], metrics["heldout/success_se"]
        if success > self._best:
            self._best, self._best_se = success, noise
            return None
        has_fallen = success < self.config.min_heldout_factor * self._best
        if not has_fallen or self._best - success <= self.config.num_heldout_se * self._best_se:
            return None
        return (
            f"held-out success should stay above {self.config.min_heldout_factor:g} times its best, {self._best:.1%} ± "
            f"{self._best_se:.1%}; it is {success:.1%}, more than {self.config.num_heldout_se:g} standard errors "
            "less. Go back to the best checkpoint (checkpoint.keep_best) with a lower learner.lr, a frozen teacher or a policy "
            "gradient."
        )
