"""How good is the policy on tasks it never learned from?"""

from __future__ import annotations

import math
from collections.abc import Sequence

from sdpo.attempts.conversation import attempts
from sdpo.attempts.groups import asked, grouped, refuse_broken_environment
from sdpo.metrics import distinct_share
from sdpo.protocols import Engine, Renderer, StepLog, Verifier
from sdpo.types import Evaluation, Group, Sampling, Task


def evaluate(
    engine: Engine,
    verifier: Verifier,
    renderer: Renderer,
    tasks_P: Sequence[Task],
    *,
    num_attempts: int,
    sampling: Sampling,
    seed: int,
    max_set_aside_share: float,
    log: StepLog,
) -> Evaluation:
    """Sample ``num_attempts`` answers to each task with the engine's present weights, with the same seeds each time."""
    log.phase("evaluate")
    prompts_P = tuple(renderer.prompt(task) for task in tasks_P)
    prompts = asked(prompts_P, num_attempts, f"{seed}/evaluate")
    groups_P = grouped(tasks_P, prompts_P, attempts(tasks_P, prompts, engine, verifier, renderer, sampling, log.watch))
    refuse_broken_environment(groups_P, max_set_aside_share)
    return Evaluation(num_attempts=num_attempts, groups=groups_P, metrics=heldout_metrics(groups_P))


def heldout_metrics(groups_P: Sequence[Group]) -> dict[str, float]:
    """avg@k, pass@k and the standard error of avg@k over tasks; tasks all of whose attempts were set aside do not count."""
    rates = [
        sum(attempt.verdict.is_solved for attempt in group.attempts) / len(group.attempts) for group in groups_P if group.attempts
    ]
    lengths = [len(attempt.completion.token_ids) for group in groups_P for attempt in group.attempts]
    mean = sum(rates) / len(rates) if rates else 0.0
    spread = math.sqrt(sum((rate - mean) ** 2 for rate in rates) / (len(rates) - 1)) if len(rates) > 1 else 0.0
    return {
        "heldout/success": mean,
        "heldout/pass_at_k": sum(rate > 0 for rate in rates) / len(rates) if rates else 0.0,
        "heldout/success_se": spread / math.sqrt(len(rates)) if rates else 0.0,
        "heldout/distinct": distinct_share(groups_P),
        "heldout/set_aside": float(sum(len(group.set_aside) for group in groups_P)),
        "heldout/response_tokens": sum(lengths) / len(lengths) if lengths else 0.0,
    }
