"""Asks held-out tasks, without a hint and with one: the same questions with the same seeds each time."""

from __future__ import annotations

from dataclasses import dataclass

from sdpo.config import HindsightConfig
from sdpo.evaluation.heldout import evaluate
from sdpo.evaluation.lift import teacher_lift
from sdpo.protocols import Engine, Renderer, StepLog, Verifier
from sdpo.types import Evaluation, Lift, Sampling, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Examiner:
    """Who is asked what, and how often."""

    engine: Engine
    verifier: Verifier
    renderer: Renderer
    tasks_P: tuple[Task, ...]
    num_attempts: int
    """At each task."""
    sampling: Sampling
    seed: int
    max_set_aside_share: float
    """Raises UserError above it: the environment is at fault."""

    def evaluation(self, log: StepLog) -> Evaluation:
        """Success of the engine's present weights. Raises UserError where verification breaks too often."""
        return evaluate(
            self.engine,
            self.verifier,
            self.renderer,
            self.tasks_P,
            num_attempts=self.num_attempts,
            sampling=self.sampling,
            seed=self.seed,
            max_set_aside_share=self.max_set_aside_share,
            log=log,
        )

    def lift(self, evaluation: Evaluation, hindsight: HindsightConfig, log: StepLog) -> Lift:
        """How much better the engine's present weights answer under hindsight prompts than they did in ``evaluation``.

        Raises UserError for a single attempt a task, and where verification breaks too often.
        """
        return teacher_lift(
            evaluation,
            self.engine,
            self.verifier,
            self.renderer,
            hindsight,
            self.sampling,
            seed=self.seed,
            max_set_aside_share=self.max_set_aside_share,
            log=log,
        )
