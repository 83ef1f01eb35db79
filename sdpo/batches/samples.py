"""Groups and hints become rows to learn from, each with the weights of its two losses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from sdpo.batches.filters import token_filter, unflagged
from sdpo.config import AlgorithmConfig, PolicyGradientConfig, QuestionWeight, SDPOConfig, Truncated
from sdpo.objectives.advantage import advantages_of, is_uniform
from sdpo.protocols import Renderer, TokenFilter
from sdpo.types import Attempt, Completion, Finish, Group, Hint, Sample


def training_samples(
    groups_P: Sequence[Group],
    hints_P_G: Sequence[Sequence[Hint | None]],
    renderer: Renderer,
    algorithm: AlgorithmConfig,
    max_response_tokens: int,
) -> tuple[Sample, ...]:
    """One sample for each attempt, those without a hint included: they may still carry an advantage, and they count."""
    samples: list[Sample] = []
    chosen = token_filter(algorithm.filter)
    is_unlearned_P_G = [[is_unlearned(attempt, algorithm) for attempt in group.attempts] for group in groups_P]
    counts_P_G = [
        [algorithm.truncated is not Truncated.leave_out or not is_cut_off for is_cut_off in is_unlearned_G]
        for is_unlearned_G in is_unlearned_P_G
    ]
    advantages_P_G = advantages_of(
        [
            [
                shaped_reward(attempt, algorithm.policy_gradient, max_response_tokens)
                for attempt, counts in zip(group.attempts, counts_G, strict=True)
                if counts
            ]
            for group, counts_G in zip(groups_P, counts_P_G, strict=True)
        ],
        algorithm.policy_gradient,
    )
    for task_index, (group, hints_G) in enumerate(zip(groups_P, hints_P_G, strict=True)):
        is_unlearned_G, counts_G = is_unlearned_P_G[task_index], counts_P_G[task_index]
        advantages_G = _among(counts_G, advantages_P_G[task_index])
        # What shaping by length adds is no success.
        rewards = [attempt.verdict.reward for attempt, counts in zip(group.attempts, counts_G, strict=True) if counts]
        alike = is_uniform(rewards)
        is_dropped = algorithm.policy_gradient.drop_uniform_groups and alike
        for attempt_index, (attempt, hint, advantage) in enumerate(zip(group.attempts, hints_G, advantages_G, strict=True)):
            completion = attempt.completion
            if not completion.token_ids or not counts_G[attempt_index]:
                continue
            teacher_prompt = None if hint is None else renderer.hindsight_prompt(group.task, hint)
            if algorithm.taught_by is not None and algorithm.hints is None:
                teacher_prompt = group.prompt_ids
            distillation, policy_gradient = algorithm.weights(
                is_solved=attempt.verdict.is_solved, has_hint=teacher_prompt is not None, is_uniform=alike
            )
            is_masked = is_unlearned_G[attempt_index]
            samples.append(
                Sample(
                    prompt_ids=group.prompt_ids,
                    teacher_prompt_ids=None if is_masked else teacher_prompt,
                    response_ids=completion.token_ids,
                    loss_mask=(False,) * len(completion.token_ids) if is_masked else _loss_mask(completion, chosen, renderer),
                    sampled_logprobs=completion.logprobs,
                    advantage=advantage,
                    distillation_weight=distillation,
                    policy_gradient_weight=0.0 if is_dropped else policy_gradient,
                    task_index=task_index,
                    attempt_index=attempt_index,
                    is_solved=attempt.verdict.is_solved,
                )
            )
    if isinstance(algorithm, SDPOConfig) and algorithm.question_weight is QuestionWeight.uncertainty:
        counted_P = [
            [attempt for attempt, counts in zip(group.attempts, counts_G, strict=True) if counts]
            for group, counts_G in zip(groups_P, counts_P_G, strict=True)
        ]
        return _weighed_by_uncertainty(samples, counted_P)
    return tuple(samples)


def is_unlearned(attempt: Attempt, algorithm: AlgorithmConfig) -> bool:
    """Whether nothing is learned from an attempt because the length limit has cut it off."""
    return algorithm.truncated is not Truncated.learn and attempt.completion.finish is Finish.length


def _among(counts_G: Sequence[bool], advantages: Sequence[float]) -> tuple[float, ...]:
    """[G] the advantages of those that count, in their places; 0 for the others."""
    given = iter(advantages)
    return tuple(next(given) if counts else 0.0 for counts in counts_G)


def shown_hints(hints_P_G: Sequence[Sequence[Hint | None]], samples: Sequence[Sample]) -> tuple[tuple[Hint | None, ...], ...]:
    """[P, G] the hints that the teacher is shown: None where nothing of one fitted its prompt, or there is no sample."""
    shown = {(sample.task_index, sample.attempt_index) for sample in samples if sample.teacher_prompt_ids is not None}
    return tuple(
        tuple(hint if (task, attempt) in shown else None for attempt, hint in enumerate(hints_G))
        for task, hints_G in enumerate(hints_P_G)
    )


def _loss_mask(completion: Completion, chosen: TokenFilter | None, renderer: Renderer) -> tuple[bool, ...]:
    """[R] the policy's own tokens, less those that the filter flags."""
    own_R = completion.own_mask or (True,) * len(completion.token_ids)
    if chosen is None:
        return own_R
    return tuple(own and kept for own, kept in zip(own_R, unflagged(completion.token_ids, chosen, renderer), strict=True))


def shaped_reward(attempt: Attempt, config: PolicyGradientConfig, max_response_tokens: int) -> float:
    """The reward, less up to 1 for the last ``overlong_tokens`` before the length limit (DAPO, arXiv 2503.14476, section 3.4)."""
    if config.overlong_tokens == 0:
        return attempt.verdict.reward
    over = len(attempt.completion.token_ids) - (max_response_tokens - config.overlong_tokens)
    return attempt.verdict.reward - min(max(over, 0) / config.overlong_tokens, 1.0)


def _weighed_by_uncertainty(samples: Sequence[Sample], attempts_P: Sequence[Sequence[Attempt]]) -> tuple[Sample, ...]:
    """The samples with each task's distillation weighted by √(p(1-p)), over its mean among the tasks that are distilled.

    Those have a hint and a weight above 0. So the loss, which is divided by what is distilled, keeps its scale (SC-SDPO,
    arXiv 2605.27765).
    """
    weights_P = [_uncertainty(attempts) for attempts in attempts_P]
    distilled = {sample.task_index for sample in samples if sample.is_distilled and weights_P[sample.task_index] > 0.0}
    mean = sum(weights_P[index] for index in sorted(distilled)) / max(len(distilled), 1) or 1.0
    return tuple(
        replace(sample, distillation_weight=sample.distillation_weight * weights_P[sample.task_index] / mean)
        for sample in samples
    )


def _uncertainty(attempts: Sequence[Attempt]) -> float:
    """The standard deviation of being solved among them; exactly 0 where all were or none."""
    solved = sum(attempt.verdict.is_solved for attempt in attempts) / max(len(attempts), 1)
    return math.sqrt(solved * (1.0 - solved))
