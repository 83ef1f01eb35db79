"""Samples to packed micro-batches: split into updates, count what the losses are divided by, balance over ranks, pack.

The counts are taken over the whole update, before anything is split. So neither the size of a micro-batch nor the number of
ranks changes the gradient. Rows that carry no gradient are counted, and not computed. Siblings stay together, since they share
their prompts: what a rank is dealt, and what a micro-batch holds, are families of rows. Where nothing is shared, a family is a
row, and a micro-batch holds rows of like length.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING

from sdpo.batches.packs import measure, pack_rows
from sdpo.config import AlgorithmConfig, BatchConfig, Normalisation, SDPOConfig
from sdpo.types import MicroBatch, Packing, Ranks, Sample, Update

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def pack(samples: Sequence[Sample], batch: BatchConfig, ranks: Ranks, algorithm: AlgorithmConfig) -> tuple[Update, ...]:
    """The step's updates, each with the samples of ``batch.tasks_per_update`` tasks."""
    assert all(0 <= sample.task_index < batch.num_tasks for sample in samples), "a sample is of no task of the step"
    per_update = batch.tasks_per_update or batch.num_tasks
    num_updates = -(-batch.num_tasks // per_update)
    return tuple(
        _update(index, [s for s in samples if s.task_index // per_update == index], batch, ranks, algorithm)
        for index in range(num_updates)
    )


def in_epochs(updates: Sequence[Update], num_epochs: int, seed: str) -> Iterator[Update]:
    """The step's updates ``num_epochs`` times: first in their order, then each time in a new one, drawn from ``seed``.

    What an update holds stays the same, so what was computed of it before the first one holds in every epoch.
    """
    yield from updates
    for epoch in range(1, num_epochs):
        order = list(updates)
        random.Random(f"{seed}/epoch {epoch}").shuffle(order)
        yield from (replace(update, epoch=epoch) for update in order)


def micro_batch(samples: Sequence[Sample], *, packing: Packing = Packing.packed) -> MicroBatch:
    """Rows of one forward pass."""
    import torch  # here, so that a run's first prompts do not wait for it

    teachers = [sample for sample in samples if sample.is_distilled]
    return MicroBatch(
        student=pack_rows(
            _student_rows(samples),
            [range(len(s.prompt_ids) - 1, len(s.prompt_ids) + len(s.response_ids) - 1) for s in samples],
            packing=packing,
        ),
        teacher=pack_rows(
            _teacher_rows(samples),
            [[len(_teacher_prompt(s)) - 1 + place for place, kept in enumerate(s.loss_mask) if kept] for s in teachers],
            packing=packing,
        ),
        response_ids_N=_joined([sample.response_ids for sample in samples], torch.int64),
        rows_N=_joined([[row] * len(sample.response_ids) for row, sample in enumerate(samples)], torch.int64),
        row_keys=tuple((sample.task_index, sample.attempt_index) for sample in samples),
        loss_mask_N=_joined([sample.loss_mask for sample in samples], torch.bool),
        distilled_N=_joined([[sample.is_distilled and kept for kept in sample.loss_mask] for sample in samples], torch.bool),
        solved_N=_joined([[sample.is_solved] * len(sample.response_ids) for sample in samples], torch.bool),
        sampled_logprobs_N=_joined([sample.sampled_logprobs for sample in samples], torch.float32),
        advantages_N=_joined([[sample.advantage] * len(sample.response_ids) for sample in samples], torch.float32),
        distillation_weights_N=_joined(
            [_weights(sample, sample.distillation_weight if sample.is_distilled else 0.0) for sample in samples], torch.float32
        ),
        policy_gradient_weights_N=_joined([_weights(sample, sample.policy_gradient_weight) for sample in samples], torch.float32),
        supervised_weights_N=_joined([_weights(sample, sample.supervised_weight) for sample in samples], torch.float32),
    )


def _update(index: int, samples: Sequence[Sample], batch: BatchConfig, ranks: Ranks, algorithm: AlgorithmConfig) -> Update:
    if isinstance(algorithm, SDPOConfig) and algorithm.normalisation is Normalisation.authors:
        samples = _as_means_of_rows(samples)
    rows = [sample for sample in samples if any(sample.loss_mask) and _carries_gradient(sample, algorithm)]
    dealt = _shared_out(_families(rows, batch.micro_batch_tokens, ranks), ranks)
    batches = [
        [micro_batch(pack, packing=ranks.packing) for pack in _packs(families, batch.micro_batch_tokens, ranks.packing)]
        for families in dealt
    ]
    longest = max(len(of_rank) for of_rank in batches)
    graded = [sample for sample in samples if sample.policy_gradient_weight != 0.0]
    num_loss_tokens, num_distilled_tokens = _denominators(samples, graded, algorithm)
    return Update(
        index=index,
        micro_batches=tuple((*of_rank, *(_filler() for _ in range(longest - len(of_rank)))) for of_rank in batches),
        num_loss_tokens=num_loss_tokens,
        num_loss_rows=len(graded),
        num_distilled_tokens=num_distilled_tokens,
        num_supervised_tokens=_num_tokens([sample for sample in samples if sample.supervised_weight != 0.0]),
        num_scored_tokens=_num_tokens(rows),
        num_learned_rows=len(rows),
        num_learned_tokens=sum(one.num_tokens for of_rank in batches for one in of_rank),
    )


def _denominators(samples: Sequence[Sample], graded: Sequence[Sample], algorithm: AlgorithmConfig) -> tuple[int, int]:
    """What the sums of the policy-gradient and of the distillation losses are divided by, in tokens."""
    distilled = [sample for sample in samples if sample.is_distilled]
    if not isinstance(algorithm, SDPOConfig):
        return _num_tokens(graded), _num_tokens(distilled)
    match algorithm.normalisation:
        case Normalisation.distilled | Normalisation.authors:
            return _num_tokens(graded), _num_tokens(distilled)
        case Normalisation.paper:
            return _num_tokens(graded), _num_tokens([sample for sample in samples if sample.distillation_weight != 0.0])
        case Normalisation.joint:
            both = _num_tokens([sample for sample in samples if sample.is_distilled or sample.policy_gradient_weight != 0.0])
            return both, both


def _as_means_of_rows(samples: Sequence[Sample]) -> list[Sample]:
    """The samples with D/(B·n) in their distillation weights, so that their sum over D becomes the mean of B rows' means.

    D counts the distilled tokens, B the rows that a hint would have distilled, n the row's own tokens. The authors' code takes a
    mean in each micro-batch, of one row, and the mean over micro-batches and ranks.
    """
    num_tokens = _num_tokens([sample for sample in samples if sample.is_distilled])
    num_rows = sum(sample.distillation_weight != 0.0 for sample in samples)
    return [
        replace(sample, distillation_weight=sample.distillation_weight * num_tokens / (num_rows * sum(sample.loss_mask)))
        if sample.is_distilled and any(sample.loss_mask)
        else sample
        for sample in samples
    ]


def _num_tokens(samples: Sequence[Sample]) -> int:
    """The policy's own tokens that carry a loss."""
    return sum(sum(sample.loss_mask) for sample in samples)


def _carries_gradient(sample: Sample, algorithm: AlgorithmConfig) -> bool:
    is_graded = sample.policy_gradient_weight != 0.0 and (sample.advantage != 0.0 or algorithm.has_terms_without_advantage)
    is_taught = sample.is_distilled and algorithm.adds_distillation
    return is_taught or is_graded or sample.supervised_weight != 0.0


FAIR_ENOUGH = 1.1
"""A rank may have so many times its fair share before families are halved."""
WORTH_HALVING = 0.8
"""Largest share of a family's cost that a half of it may cost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Family:
    """Siblings that are computed together."""

    samples: tuple[Sample, ...]
    num_tokens: int
    """Through the model, student and teacher together, what they share counted once."""
    cost: float
    """In tokens of a forward pass; the backward costs two."""


def _families(rows: Sequence[Sample], token_budget: int, ranks: Ranks) -> list[_Family]:
    """All siblings of a task in one, unless they exceed the budget. Each row alone where nothing is computed in common."""
    if ranks.packing is not Packing.packed:
        return [_family((row,), ranks) for row in rows]
    whole = [_family(tuple(of_task), ranks) for _, of_task in groupby(rows, key=lambda sample: sample.task_index)]
    return [part for family in whole for part in _within(family, token_budget, ranks)]


def _within(family: _Family, token_budget: int, ranks: Ranks) -> list[_Family]:
    if family.num_tokens <= token_budget or len(family.samples) == 1:
        return [family]
    return [part for half in _halves(family, ranks) for part in _within(half, token_budget, ranks)]


def _halves(family: _Family, ranks: Ranks) -> list[_Family]:
    half = len(family.samples) // 2
    return [_family(rows, ranks) for rows in (family.samples[:half], family.samples[half:])]


def _family(samples: tuple[Sample, ...], ranks: Ranks) -> _Family:
    student, teacher = (measure(rows, ranks.packing) for rows in (_student_rows(samples), _teacher_rows(samples)))
    costs = [size.num_tokens + size.num_pairs / ranks.pairs_per_token for size in (student, teacher)]
    return _Family(samples=samples, num_tokens=student.num_tokens + teacher.num_tokens, cost=3.0 * costs[0] + costs[1])


def _shared_out(families: Sequence[_Family], ranks: Ranks) -> list[list[_Family]]:
    """[ranks] families, dealt as they are.

    If that leaves a rank with too much, its most expensive family is halved and all are dealt anew. This goes on as long as
    halving saves something: both halves compute the common prompt.
    """
    best = dealt = _dealt(families, ranks)
    while True:
        busiest = max(dealt, key=_work)
        fair = sum(map(_work, dealt)) / ranks.num
        if _work(busiest) <= FAIR_ENOUGH * fair:
            break
        dearest_first = sorted(busiest, key=_cost, reverse=True)
        halved = next((found for family in dearest_first if (found := _worth_halving(family, ranks))), None)
        if halved is None:
            break
        family, halves = halved
        families = [*(other for other in families if other is not family), *halves]
        dealt = _dealt(families, ranks)
        best = min(best, dealt, key=lambda way: max(map(_work, way)))
    return best


def _worth_halving(family: _Family, ranks: Ranks) -> tuple[_Family, list[_Family]] | None:
    """The family and its halves, if neither costs more than ``WORTH_HALVING`` of the whole."""
    if len(family.samples) == 1:
        return None
    halves = _halves(family, ranks)
    return (family, halves) if max(map(_cost, halves)) <= WORTH_HALVING * family.cost else None


def _dealt(families: Sequence[_Family], ranks: Ranks) -> list[list[_Family]]:
    """[ranks] most expensive family first, each to the rank with the least work."""
    dealt: list[list[_Family]] = [[] for _ in range(ranks.num)]
    for family in sorted(families, key=_cost, reverse=True):
        min(dealt, key=_work).append(family)
    return dealt


def _cost(family: _Family) -> float:
    return family.cost


def _work(families: Sequence[_Family]) -> float:
    return sum(map(_cost, families))


def _packs(families: Sequence[_Family], token_budget: int, packing: Packing) -> list[list[Sample]]:
    """Each family in the first pack that has room for it."""
    if packing is Packing.whole:
        return _packs_of_like_rows([sample for family in families for sample in family.samples], token_budget)
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


MOST_PADDING = 0.25
"""Largest share of a pack's tokens that may be padding."""


def _packs_of_like_rows(rows: Sequence[Sample], token_budget: int) -> list[list[Sample]]:
    """Longest rows first, each beside its predecessor where the budget, padding included, and ``MOST_PADDING`` allow it."""
    packs: list[list[Sample]] = []
    for row in sorted(rows, key=lambda row: sum(_lengths(row)), reverse=True):
        if packs and _go_together([*packs[-1], row], token_budget):
            packs[-1].append(row)
        else:
            packs.append([row])
    return packs


def _go_together(rows: Sequence[Sample], token_budget: int) -> bool:
    of_student, of_teacher = zip(*map(_lengths, rows), strict=True)
    held = sum(max(lengths) * sum(length > 0 for length in lengths) for lengths in (of_student, of_teacher))
    return bool(held <= token_budget and held - sum(of_student) - sum(of_teacher) <= MOST_PADDING * held)


def _lengths(row: Sample) -> tuple[int, int]:
    """Tokens of the student's row and of the teacher's, 0 where there is none."""
    num = len(row.response_ids) - 1
    return len(row.prompt_ids) + num, len(_teacher_prompt(row)) + num if row.is_distilled else 0


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


def _student_rows(samples: Sequence[Sample]) -> list[tuple[int, ...]]:
    """Prompt and response, less its last token, which predicts nothing."""
    return [sample.prompt_ids + sample.response_ids[:-1] for sample in samples]


def _teacher_rows(samples: Sequence[Sample]) -> list[tuple[int, ...]]:
    """The same under the hindsight prompts."""
    return [_teacher_prompt(sample) + sample.response_ids[:-1] for sample in samples if sample.is_distilled]


def _teacher_prompt(sample: Sample) -> tuple[int, ...]:
    assert sample.teacher_prompt_ids is not None
    return sample.teacher_prompt_ids


def _weights(sample: Sample, of_row: float) -> list[float]:
    return [of_row] * len(sample.response_ids)


def _joined(rows: Sequence[Sequence[float]], dtype: torch.dtype) -> Tensor:
    import torch

    return torch.tensor([value for row in rows for value in row], dtype=dtype)
