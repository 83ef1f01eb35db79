"""Does a group teach anything? What the dynamic sampling of DAPO (arXiv 2503.14476, section 3.2) asks of it.

There the answer is whether some attempts are solved and others are not. Here it is whether one of the algorithm's losses has a
gradient on the group: rewards that differ for a policy gradient, an attempt that the teacher scores for a distillation.
"""

from __future__ import annotations

from collections.abc import Sequence

from sdpo.config import AlgorithmConfig, QuestionWeight, SDPOConfig
from sdpo.protocols import Renderer
from sdpo.types import Attempt, Group, Hint

UNIFORM = 1e-6
"""Rewards that differ by less are alike: a judge that adds up shares is off by as much."""


def has_signal(group: Group, hints_G: Sequence[Hint | None], algorithm: AlgorithmConfig, renderer: Renderer) -> bool:
    """Whether some attempt carries a gradient. The environment's reward counts, not one that is shaped by length."""
    rewards_G = [attempt.verdict.reward for attempt in group.attempts]
    is_uniform = is_alike(rewards_G)
    mean = sum(rewards_G) / max(len(rewards_G), 1)
    for attempt, hint in zip(group.attempts, hints_G, strict=True):
        if not attempt.completion.token_ids:
            continue
        distillation, policy_gradient = algorithm.weights(
            is_solved=attempt.verdict.is_solved, has_hint=hint is not None, is_uniform=is_uniform
        )
        if policy_gradient != 0.0 and not is_uniform and abs(attempt.verdict.reward - mean) >= UNIFORM / 2:
            return True
        if distillation != 0.0 and _is_scored(group, attempt, hint, algorithm, renderer):
            return True
    return False


def is_alike(rewards_G: Sequence[float]) -> bool:
    """Whether no reward differs from another."""
    return not rewards_G or max(rewards_G) - min(rewards_G) < UNIFORM


def _is_scored(group: Group, attempt: Attempt, hint: Hint | None, algorithm: AlgorithmConfig, renderer: Renderer) -> bool:
    """Whether the teacher has something to say of the attempt."""
    is_weighed = isinstance(algorithm, SDPOConfig) and algorithm.question_weight is QuestionWeight.uncertainty
    if is_weighed and len({one.verdict.is_solved for one in group.attempts}) == 1:
        return False
    if algorithm.taught_by is not None and algorithm.hints is None:
        return True
    return hint is not None and renderer.hindsight_prompt(group.task, hint) is not None
