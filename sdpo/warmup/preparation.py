"""Can this warm-up work at all? Everything that can be known before an engine starts."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from sdpo.config import WarmupConfig
from sdpo.envs.base import Environment
from sdpo.hindsight.rendering import ChatRenderer
from sdpo.preflight.checks import (
    first,
    make_environment,
    model_and_renderer,
    refuse_long_prompts,
    refuse_long_verdicts,
    splits_of,
)
from sdpo.preflight.model_traits import refuse_odd_targets
from sdpo.types import Task
from sdpo.warmup.writing import Writer, writer


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """What a warm-up needs, found and checked."""

    model_path: str
    environment: Environment
    tasks_P: tuple[Task, ...]
    """Tasks of the training split, which pairs are made from."""
    heldout: tuple[Task, ...]
    """Those that are measured, and nothing else."""
    renderer: ChatRenderer
    writer: Writer


def prepare(config: WarmupConfig, say: Callable[[str], None]) -> Ready:
    """Raises UserError with the field, the value and the mend."""
    environment = make_environment(config.env)
    refuse_long_verdicts(environment, config.env, config.rollout)
    train, heldout = splits_of(environment, config.env, config.seed)
    model_path, renderer = model_and_renderer(config.model, config.sampling, config.algorithm.hindsight.max_prompt_tokens, say)
    refuse_odd_targets(config.learner.lora, model_path)
    drawn = random.Random(f"{config.seed}/warmup").sample(range(len(train)), min(config.pairs.num_tasks, len(train)))
    ready = Ready(
        model_path=model_path,
        environment=environment,
        tasks_P=tuple(train[index] for index in drawn),
        heldout=first(heldout, config.evaluation.num_tasks),
        renderer=renderer,
        writer=writer(model_path, renderer.tokenizer, renderer),
    )
    refuse_long_prompts(renderer, (*ready.tasks_P, *ready.heldout), config.algorithm.hindsight)
    return ready
