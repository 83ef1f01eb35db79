"""Samples to packed micro-batches: split into updates, count what the losses are divided by, balance over ranks, pack.

The counts are taken over the whole update, before anything is split, so that neither the size of a micro-batch nor the number
of ranks changes the gradient. Rows that carry no gradient are counted, and not computed. Siblings stay together, since they share
their prompts: what a rank is dealt, and what a micro-batch holds, are families of rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from sdpo.config import AlgorithmConfig, BatchConfig, Normalisation, SDPOConfig
from sdpo.packing import num_attended_pairs, pack_rows
from sdpo.types import MicroBatch, Ranks, Sample, Update


def pack(samples: Sequence[Sample], batch: BatchConfig, ranks: Ranks, algorithm: AlgorithmConfig) -> tuple[Update, ...]:
    """The step's updates, each with the samples of ``batch.tasks_per_update`` tasks."""
    assert all(0 <= sample.task_index < batch.num_tasks for sample in samples), "a sample is of no task of the step"
    per_update = batch.tasks_per_update or batch.num_tasks
    num_updates = -(-batch.num_tasks // per_update)
    return tuple(
        _update(index, [s for s in samples if s.task_index // per_update == index], batch, ranks, algorithm)
        for index in range(num_updates)
    )


def micro_batch(samples: Sequence[Sample], *, share: bool = True) -> MicroBatch:
    """Rows of one forward pass. ``share=False`` computes also what they have in common row by row."""
    teachers = [sample for sample in samples if sample.is_distilled]
    return MicroBatch(
        student=pack_rows(
            [(*sample.prompt_ids, *sample.response_ids[:-1]) for sample in samples],
            [range(len(s.prompt_ids) - 1, len(s.prompt_ids) + len(s.response_ids) - 1) for s in samples],
            share=share,
        ),
        teacher=pack_rows(
            [(*_teacher_prompt(sample), *sample.response_ids[:-1]) for sample in teachers],
            [[len(_teacher_prompt(s)) - 1 + place for place, kept in enumerate(s.loss_mask) if kept] for s in teachers],
            share=share,
        ),
        response_ids_N=_joined([sample.response_ids for sample in samples], torch.int64),
        rows_N=_joined([[row] * len(sample.response_ids) for row, sample in enumerate(samples)], torch.int64),
        loss_mask_N=_joined([sample.loss_mask for sample in samples], torch.bool),
        distilled_N=_joined([[sample.is_distilled and kept for kept in sample.loss_mask] for sample in samples], torch.bool),
        sampled_logprobs_N=_joined([sample.sampled_logprobs for sample in samples], torch.float32),
        advantages_N=_joined([[sample.advantage] * len(sample.response_ids) for sample in samples], torch.float32),
        distillation_weights_N=_joined(
            [_weights(sample, sample.distillation_weight if sample.is_distilled else 0.0) for sample in samples], torch.float32
        ),
        policy_gradient_weights_N=_joined([_weights(sample, sample.policy_gradient_weight) for sample in samples], torch.float32),
    )


def _update(index: int, samples: Sequence[Sample], batch: BatchConfig, ranks: Ranks, algorithm: AlgorithmConfig) -> Update:
    rows = [sample for sample in samples if any(sample.loss_mask) and _carries_gradient(sample, algorithm)]
    dealt = _dealt(_families(rows, batch.micro_batch_tokens, ranks), ranks)
    batches = [[micro_batch(pack) for pack in _packs(families, batch.micro_batch_tokens)] for families in dealt]
    longest = max(len(of_rank) for of_rank in batches)
    graded = [sample for sample in samples if sample.policy_gradient_weight != 0.0]
    if isinstance(algorithm, SDPOConfig) and algorithm.normalisation is Normalisation.reference:
        divided_by = [sample for sample in samples if sample.distillation_weight != 0.0]
    else:
        divided_by = [sample for sample in samples if sample.is_distilled]
    return Update(
        index=index,
        micro_batches=tuple((*of_rank, *(_filler() for _ in range(longest - len(of_rank)))) for of_rank in batches),
        num_loss_tokens=sum(sum(sample.loss_mask) for sample in graded),
        num_loss_rows=len(graded),
        num_distilled_tokens=sum(sum(sample.loss_mask) for sample in divided_by),
        num_scored_tokens=sum(sum(sample.loss_mask) for sample in rows),
        num_learned_rows=len(rows),
        num_learned_tokens=sum(one.num_tokens for of_rank in batches for one in of_rank),
    )


def _carries_gradient(sample: Sample, algorithm: AlgorithmConfig) -> bool:
    is_graded = sample.policy_gradient_weight != 0.0 and (sample.advantage != 0.0 or algorithm.has_terms_without_advantage)
    return sample.is_distilled or is_graded


@dataclass(frozen=True, slots=True, kw_only=True)
class _Family:
    """Siblings that are computed together."""

    samples: tuple[Sample, ...]
    num_tokens: int
    """Through the model, student and teacher together, what they share counted once."""
    cost: float
    """In tokens of a forward pass; the backward costs two."""


def _families(rows: Sequence[Sample], token_budget: int, ranks: Ranks) -> list[_Family]:
    """All siblings of a task in one, unless they exceed the budget or are more than a rank's fair share."""
    whole = [_family(tuple(of_task), ranks) for _, of_task in groupby(rows, key=lambda sample: sample.task_index)]
    fair = sum(family.cost for family in whole) / ranks.num
    return [part for family in whole for part in _split(family, token_budget, fair, ranks)]


def _split(family: _Family, token_budget: int, fair: float, ranks: Ranks) -> list[_Family]:
    samples = family.samples
    if len(samples) == 1 or (family.num_tokens <= token_budget and family.cost <= fair):
        return [family]
    half = len(samples) // 2
    return [part for rows in (samples[:half], samples[half:]) for part in _split(_family(rows, ranks), token_budget, fair, ranks)]


def _family(samples: tuple[Sample, ...], ranks: Ranks) -> _Family:
    batch = micro_batch(samples)
    student, teacher = (
        len(pack.ids_T) + num_attended_pairs(pack) / ranks.pairs_per_token for pack in (batch.student, batch.teacher)
    )
    return _Family(samples=samples, num_tokens=batch.num_tokens, cost=3.0 * student + teacher)


def _dealt(families: Sequence[_Family], ranks: Ranks) -> list[list[_Family]]:
    """[ranks] dearest family first, each to the rank with the least work."""
    dealt: list[list[_Family]] = [[] for _ in range(ranks.num)]
    work = [0.0] * ranks.num
    for family in sorted(families, key=lambda family: -family.cost):
        rank = work.index(min(work))
        dealt[rank].append(family)
        work[rank] += family.cost
    return dealt


def _packs(families: Sequence[_Family], token_budget: int) -> list[list[Sample]]:
    """Each family in the first pack that has room for it."""
    packs: list[list[Sample]] = []
    sizes: list[int] = []
    for family in families:
        fitting = [index for index, size in enumerate(sizes) if size + family.num_tokens <= token_budget]
        if fitting:
            packs[fitting[0]].extend(family.samples)
            sizes[fitting[0]] += family.num_tokens
        else:
            packs.append(list(family.samples))
            sizes.append(family.num_tokens)
    return packs


def _filler() -> MicroBatch:
    """One row without a loss, for a rank that has run out of rows while another has not: both must take part in the backward."""
    row = Sample(
        prompt_ids=(0,),
        teacher_prompt_ids=None,
        response_ids=(0,),
        loss_mask=(False,),
        sampled_logprobs=(0.0,),
        advantage=0.0,
        distillation_weight=0.0,
    )
    return micro_batch([row])


def _teacher_prompt(sample: Sample) -> tuple[int, ...]:
    assert sample.teacher_prompt_ids is not None
    return sample.teacher_prompt_ids


def _weights(sample: Sample, of_row: float) -> list[float]:
    tokens = sample.token_weights or (1.0,) * len(sample.response_ids)
    return [of_row * weight for weight in tokens]


def _joined(rows: Sequence[Sequence[float]], dtype: torch.dtype) -> Tensor:
    return torch.tensor([value for row in rows for value in row], dtype=dtype)
