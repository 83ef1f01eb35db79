"""Does a group teach anything? What the dynamic sampling of DAPO (arXiv 2503.14476, section 3.2) asks of it.

There the answer is whether some attempts are solved and others are not. Here it is whether one of the algorithm's losses has a
gradient on the group: rewards that differ for a policy gradient, an attempt that the teacher scores for a distillation.
"""

from __future__ import annotations

from collections.abc import Sequence

from sdpo.batches.samples import is_unlearned
from sdpo.config import AlgorithmConfig, QuestionWeight, SDPOConfig, Truncated
from sdpo.objectives.advantage import SMALLEST_DIFFERENCE, is_uniform
from sdpo.protocols import Renderer
from sdpo.types import Attempt, Group, Hint


def has_signal(group: Group, hints_G: Sequence[Hint | None], algorithm: AlgorithmConfig, renderer: Renderer) -> bool:
    """Whether some attempt carries a gradient. The environment's reward counts, not one that is shaped by length."""
    leaves_out = algorithm.truncated is Truncated.leave_out
    rewards_G = [one.verdict.reward for one in group.attempts if not (leaves_out and is_unlearned(one, algorithm))]
    alike = is_uniform(rewards_G)
    mean = sum(rewards_G) / max(len(rewards_G), 1)
    for attempt, hint in zip(group.attempts, hints_G, strict=True):
        if not attempt.completion.token_ids or is_unlearned(attempt, algorithm):
            continue
        distillation, policy_gradient = algorithm.weights(
            is_solved=attempt.verdict.is_solved, has_hint=hint is not None, is_uniform=alike
        )
        if policy_gradient != 0.0 and not alike and abs(attempt.verdict.reward - mean) >= SMALLEST_DIFFERENCE / 2:
            return True
        if distillation != 0.0 and _is_scored(group, attempt, hint, algorithm, renderer):
            return True
    return False


def _is_scored(group: Group, attempt: Attempt, hint: Hint | None, algorithm: AlgorithmConfig, renderer: Renderer) -> bool:
    """Whether the teacher has something to say of the attempt."""
    is_weighed = isinstance(algorithm, SDPOConfig) and algorithm.question_weight is QuestionWeight.uncertainty
    if is_weighed and len({one.verdict.is_solved for one in group.attempts}) == 1:
        return False
    if algorithm.taught_by is not None and algorithm.hints is None:
        return True
    return hint is not None and renderer.hindsight_prompt(group.task, hint) is not None
