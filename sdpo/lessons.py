"""Groups and hints become rows to learn from."""

from __future__ import annotations

from collections.abc import Sequence

from sdpo.config import AlgorithmConfig
from sdpo.objectives.advantage import group_advantages
from sdpo.protocols import Renderer
from sdpo.types import Group, Hint, Sample


def lessons(
    groups_P: Sequence[Group],
    hints_P_G: Sequence[Sequence[Hint | None]],
    renderer: Renderer,
    algorithm: AlgorithmConfig,
) -> tuple[Sample, ...]:
    """One sample for each attempt, those without a hint included: they may still carry an advantage, and they count."""
    samples: list[Sample] = []
    for task_index, (group, hints_G) in enumerate(zip(groups_P, hints_P_G, strict=True)):
        advantages_G = group_advantages(
            [attempt.verdict.reward for attempt in group.attempts],
            divide_by_std=algorithm.policy_gradient.divide_by_std,
        )
        for attempt, hint, advantage in zip(group.attempts, hints_G, advantages_G, strict=True):
            completion = attempt.completion
            if not completion.token_ids:
                continue
            samples.append(
                Sample(
                    prompt_ids=group.prompt_ids,
                    teacher_prompt_ids=None if hint is None else renderer.hindsight_prompt(group.task, hint),
                    response_ids=completion.token_ids,
                    loss_mask=(True,) * len(completion.token_ids),
                    sampled_logprobs=completion.logprobs,
                    advantage=advantage,
                    task_index=task_index,
                )
            )
    return tuple(samples)
