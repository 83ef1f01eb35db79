"""Rows of every kind: with and without a hint, an advantage, masked tokens and weights; siblings that share much or little."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from sdpo.batches.updates import micro_batch, pack
from sdpo.config import AlgorithmConfig, BatchConfig
from sdpo.types import Packing, Ranks, Sample, Update
from tests.learner import reference
from tests.tiny import write_tiny_model

VOCABULARY = 320
"""Ids 0 and 1 are special; 1 is also the padding, whose embedding transformers keeps from learning as an input."""
MAX_RESPONSE_TOKENS = 20
TEMPERATURE = 0.9
NUM_TASKS, GROUP_SIZE = 4, 4


@cache
def rows(path: Path, *, seed: int = 0, share: float = 0.4, num_tasks: int = NUM_TASKS) -> tuple[Sample, ...]:
    """``num_tasks`` times four siblings, whose log-probabilities are what the model in ``path`` says, give or take half a nat
    of the engine's. ``share`` is the policy gradient's."""
    draw = random.Random(seed)
    model, weights = reference.read(path)

    def ids(num: int) -> tuple[int, ...]:
        return tuple(draw.randrange(2, VOCABULARY) for _ in range(num))

    samples: list[Sample] = []
    for task in range(num_tasks):
        prompt, demonstration = ids(18 + 5 * task), ids(14)
        lengths = [1, 20, *(draw.randint(2, 19) for _ in range(GROUP_SIZE - 2))]
        start = ids(10)  # two answers begin alike
        for sibling, num in enumerate(lengths):
            response = (start + ids(20))[:num] if sibling in (1, 2) else ids(num)
            with torch.no_grad():
                own = model.logprobs(weights, prompt, response, TEMPERATURE)[range(num), list(response)]
            samples.append(
                Sample(
                    prompt_ids=prompt,
                    teacher_prompt_ids=None if sibling == 3 else (*prompt, *demonstration, *ids(sibling)),
                    response_ids=response,
                    loss_mask=tuple(place == 0 or draw.random() < 0.8 for place in range(num)),
                    sampled_logprobs=tuple(value + draw.gauss(0.0, 0.5) for value in own.tolist()),
                    advantage=(0.5, -0.75, 1.0, -1.0)[sibling] if task != 1 else 0.0,
                    distillation_weight=1.0 - share,
                    policy_gradient_weight=share,
                    task_index=task,
                    attempt_index=sibling,
                    is_solved=sibling in (0, 2),
                )
            )
    samples[-1] = replace(samples[-1], loss_mask=(False,) * len(samples[-1].loss_mask))  # nothing of its own
    return tuple(samples)


@cache
def taught(path: Path) -> tuple[Sample, ...]:
    """``rows`` and, beside those of each task, two supervised ones: under a hindsight prompt, and under the task's own."""
    samples: list[Sample] = []
    for task in range(NUM_TASKS):
        siblings = [sample for sample in rows(path) if sample.task_index == task]
        prompts = siblings[0].teacher_prompt_ids, siblings[0].prompt_ids
        samples += siblings
        for prompt, sibling, weight in zip(prompts, (siblings[1], siblings[2]), (1.0, 0.3), strict=True):
            assert prompt is not None
            samples.append(
                Sample(
                    prompt_ids=prompt,
                    teacher_prompt_ids=None,
                    response_ids=sibling.response_ids,
                    loss_mask=sibling.loss_mask,
                    sampled_logprobs=(0.0,) * len(sibling.response_ids),
                    advantage=0.0,
                    supervised_weight=weight,
                    task_index=task,
                )
            )
    return tuple(samples)


def batch(*, micro_batch_tokens: int = 100_000, tasks_per_update: int | None = None, num_tasks: int = NUM_TASKS) -> BatchConfig:
    return BatchConfig(
        num_tasks=num_tasks, group_size=GROUP_SIZE, micro_batch_tokens=micro_batch_tokens, tasks_per_update=tasks_per_update
    )


def update_of(
    samples: Sequence[Sample], algorithm: AlgorithmConfig, *, num_ranks: int = 1, micro_batch_tokens: int = 100_000
) -> Update:
    (update,) = updates_of(samples, algorithm, num_ranks=num_ranks, micro_batch_tokens=micro_batch_tokens)
    return update


def updates_of(
    samples: Sequence[Sample],
    algorithm: AlgorithmConfig,
    *,
    num_ranks: int = 1,
    micro_batch_tokens: int = 100_000,
    tasks_per_update: int | None = None,
) -> tuple[Update, ...]:
    config = batch(micro_batch_tokens=micro_batch_tokens, tasks_per_update=tasks_per_update)
    return pack(samples, config, Ranks(num=num_ranks, pairs_per_token=400.0), algorithm)


def unshared(samples: Sequence[Sample], update: Update, num_parts: int) -> Update:
    """The counts of ``update`` over micro-batches that share nothing, its rows dealt to ``num_parts`` on one rank."""
    used = [s for s in samples if any(s.loss_mask) and (s.is_distilled or s.advantage != 0.0 or s.supervised_weight != 0.0)]
    parts = [used[part::num_parts] for part in range(num_parts)]
    return replace(update, micro_batches=(tuple(micro_batch(part, packing=Packing.joined) for part in parts),))


def write_calm_model(folder: Path, *, tie_embeddings: bool = True, seed: int = 0) -> Path:
    """The tiny model with smaller weights. The tiny one's gradient moves by 2e-6 of itself where its weights are rounded to fp32
    (measured in fp64), so that no two ways of computing it in fp32 agree to 1e-6; this one's moves by 3e-7."""
    write_tiny_model(folder, tie_embeddings=tie_embeddings, seed=seed)
    weights = load_file(folder / "model.safetensors")
    for name, weight in weights.items():
        is_norm, is_embedding = weight.dim() == 1, "embed" in name or "head" in name
        weight.mul_(1.0 + 0.1 * torch.randn_like(weight) if is_norm else 0.5 if is_embedding else 0.25)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
