"""How good is the policy on tasks it never learned from?"""

from __future__ import annotations

import math
from collections.abc import Sequence

from sdpo.attempts.survey import Survey
from sdpo.config import Config, WarmupConfig
from sdpo.metrics import ENVIRONMENT_PREFIX, MEMBER_SUCCESS, distinct_share
from sdpo.protocols import Sampler, Watcher
from sdpo.types import Evaluation, Group, Task


def heldout_survey(config: Config | WarmupConfig, sampler: Sampler, tasks_P: tuple[Task, ...]) -> Survey:
    """What each of the config's evaluations asks."""
    return Survey(
        sampler=sampler,
        tasks_P=tasks_P,
        num_attempts=config.evaluation.num_attempts,
        sampling=config.sampling.drawn(temperature=config.evaluation.temperature, top_p=config.evaluation.top_p),
        seed=config.seed,
        max_set_aside_share=config.rollout.max_set_aside_share,
    )


def evaluate(survey: Survey, log: Watcher) -> Evaluation:
    """Success of the engine's present weights. Raises UserError where verification breaks too often."""
    log.phase("evaluate")
    groups_P = survey.groups("evaluate", log)
    return Evaluation(num_attempts=survey.num_attempts, groups=groups_P, metrics=heldout_metrics(groups_P))


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
        **_of_members(groups_P),
    }


def _of_members(groups_P: Sequence[Group]) -> dict[str, float]:
    """Success by the member of a mix that a task is of: what such an environment says of each attempt."""
    found: dict[str, list[float]] = {}
    for group in groups_P:
        for attempt in group.attempts:
            for name, value in attempt.verdict.metrics.items():
                if name.endswith(MEMBER_SUCCESS):
                    found.setdefault(f"heldout/{ENVIRONMENT_PREFIX}{name}", []).append(value)
    return {name: sum(values) / len(values) for name, values in sorted(found.items())}
