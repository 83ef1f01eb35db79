"""What does ``sdpo evaluate`` find out of a model that nobody is training?"""

from __future__ import annotations

from collections.abc import Sequence

from sdpo.config import EvaluateConfig
from sdpo.evaluation.heldout import evaluate
from sdpo.evaluation.lift import teacher_lift
from sdpo.protocols import Engine, Renderer, StepLog, Verifier
from sdpo.types import Evaluation, Metrics, Sampling, Task


def look(
    config: EvaluateConfig, engine: Engine, verifier: Verifier, renderer: Renderer, tasks_P: Sequence[Task], log: StepLog
) -> tuple[Evaluation, Metrics]:
    """Held-out success and, where asked for, the lift of the same weights under hindsight prompts."""
    sampling = Sampling(
        temperature=config.temperature,
        top_p=config.top_p,
        max_response_tokens=config.sampling.max_response_tokens,
        max_turns=config.sampling.max_turns,
    )
    seed, share = config.seed, config.rollout.max_set_aside_share
    evaluation = evaluate(
        engine,
        verifier,
        renderer,
        tasks_P,
        num_attempts=config.k,
        sampling=sampling,
        seed=seed,
        max_set_aside_share=share,
        log=log,
    )
    if not config.lift:
        return evaluation, {}
    lift = teacher_lift(
        evaluation, engine, verifier, renderer, config.hindsight, sampling, seed=seed, max_set_aside_share=share, log=log
    )
    return evaluation, lift.metrics
