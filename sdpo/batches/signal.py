"""Does a group teach anything? What the dynamic sampling of DAPO (arXiv 2503.14476, section 3.2) asks of it.

There the answer is whether some attempts are solved and others are not. Here it is whether one of the algorithm's losses has a
gradient on the group: rewards that differ for a policy gradient, an attempt that the teacher scores for a distillation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sdpo.batches.samples import training_samples
from sdpo.config import AlgorithmConfig
from sdpo.protocols import Renderer
from sdpo.types import Group, Hint


def has_signal(group: Group, hints_G: Sequence[Hint | None], algorithm: AlgorithmConfig, renderer: Renderer) -> bool:
    """Whether some attempt carries a gradient, as the samples made of it have it.

    The environment's reward counts, not one that is shaped by length. Terms that every attempt has (entropy, the KL to the start)
    teach nothing of the task.
    """
    unshaped = replace(algorithm, policy_gradient=replace(algorithm.policy_gradient, overlong_tokens=0))
    samples = training_samples((group,), (hints_G,), renderer, unshaped, max_response_tokens=0)
    return any(
        any(sample.loss_mask)
        and (
            (algorithm.adds_distillation and sample.is_distilled)
            or (sample.policy_gradient_weight != 0.0 and sample.advantage != 0.0)
        )
        for sample in samples
    )
