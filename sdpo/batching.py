"""Samples to packed micro-batches: split into updates, count what the losses are divided by, balance over ranks, pack.

The counts are taken over the whole update, before anything is split, so that neither the size of a micro-batch nor the number
of ranks changes the gradient. Rows that carry no gradient are counted, and not computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from sdpo.config import AlgorithmConfig, BatchConfig, SDPOConfig
from sdpo.types import MicroBatch, Sample, Update


def pack(samples: Sequence[Sample], batch: BatchConfig, num_ranks: int, algorithm: AlgorithmConfig) -> tuple[Update, ...]:
    """The step's updates, each with the samples of ``batch.tasks_per_update`` tasks."""
    assert all(0 <= sample.task_index < batch.num_tasks for sample in samples), "a sample is of no task of the step"
    per_update = batch.tasks_per_update or batch.num_tasks
    num_updates = -(-batch.num_tasks // per_update)
    return tuple(
        _update(index, [s for s in samples if s.task_index // per_update == index], batch, num_ranks, algorithm)
        for index in range(num_updates)
    )


def policy_gradient_share(algorithm: AlgorithmConfig) -> float:
    """λ of the blend: 1 for GRPO."""
    return algorithm.policy_gradient_share if isinstance(algorithm, SDPOConfig) else 1.0


def _update(index: int, samples: Sequence[Sample], batch: BatchConfig, num_ranks: int, algorithm: AlgorithmConfig) -> Update:
    share = policy_gradient_share(algorithm)
    distilled = [share < 1.0 and sample.teacher_prompt_ids is not None for sample in samples]
    rows = [
        (sample, is_distilled)
        for sample, is_distilled in zip(samples, distilled, strict=True)
        if any(sample.loss_mask) and (is_distilled or (share > 0.0 and sample.advantage != 0.0))
    ]
    packs = [_packs(rank_rows, batch.micro_batch_tokens) for rank_rows in _balanced(rows, num_ranks)]
    longest = max(len(rank_packs) for rank_packs in packs)
    return Update(
        index=index,
        micro_batches=tuple(
            (*(_micro_batch(pack) for pack in rank_packs), *(_filler() for _ in range(longest - len(rank_packs))))
            for rank_packs in packs
        ),
        num_loss_tokens=sum(sum(sample.loss_mask) for sample in samples),
        num_distilled_tokens=sum(sum(s.loss_mask) for s, is_distilled in zip(samples, distilled, strict=True) if is_distilled),
        num_rows=len(samples),
    )


_Row = tuple[Sample, bool]
"""A sample, and whether the teacher scores it."""


def _student_tokens(row: _Row) -> int:
    return len(row[0].prompt_ids) + len(row[0].response_ids)


def _teacher_tokens(row: _Row) -> int:
    sample, is_distilled = row
    return len(sample.teacher_prompt_ids or ()) + len(sample.response_ids) if is_distilled else 0


def _balanced(rows: Sequence[_Row], num_ranks: int) -> list[list[_Row]]:
    """[ranks] longest row first, each to the rank with the least work."""
    ranks: list[list[_Row]] = [[] for _ in range(num_ranks)]
    work = [0] * num_ranks
    for row in sorted(rows, key=lambda row: -(_student_tokens(row) + _teacher_tokens(row))):
        rank = work.index(min(work))
        ranks[rank].append(row)
        work[rank] += _student_tokens(row) + _teacher_tokens(row)
    return ranks


def _packs(rows: Sequence[_Row], token_budget: int) -> list[list[_Row]]:
    """Rows, longest first, in packs whose padded size, of student and teacher each, stays within the budget together."""
    packs: list[list[_Row]] = []
    student_width = teacher_width = 0
    for row in rows:
        wider = max(student_width, _student_tokens(row)), max(teacher_width, _teacher_tokens(row))
        if packs and (len(packs[-1]) + 1) * sum(wider) <= token_budget:
            packs[-1].append(row)
            student_width, teacher_width = wider
        else:
            packs.append([row])
            student_width, teacher_width = _student_tokens(row), _teacher_tokens(row)
    return packs


def _micro_batch(rows: Sequence[_Row]) -> MicroBatch:
    samples = [sample for sample, _ in rows]
    students = [(*sample.prompt_ids, *sample.response_ids) for sample in samples]
    teachers = [
        (*sample.teacher_prompt_ids, *sample.response_ids) if is_distilled and sample.teacher_prompt_ids is not None else ()
        for sample, is_distilled in rows
    ]
    return MicroBatch(
        student_ids_T=_joined(students, torch.int64),
        student_offsets=_offsets(students),
        teacher_ids_T=_joined(teachers, torch.int64),
        teacher_offsets=_offsets(teachers),
        num_response_tokens_B=tuple(len(sample.response_ids) for sample in samples),
        loss_mask_N=_joined([sample.loss_mask for sample in samples], torch.bool),
        distilled_N=_joined([[is_distilled and m for m in sample.loss_mask] for sample, is_distilled in rows], torch.bool),
        sampled_logprobs_N=_joined([sample.sampled_logprobs for sample in samples], torch.float32),
        advantages_N=_joined([[sample.advantage] * len(sample.response_ids) for sample in samples], torch.float32),
        weights_N=_joined([[sample.weight] * len(sample.response_ids) for sample in samples], torch.float32),
    )


def _filler() -> MicroBatch:
    """One row without a loss, for a rank that has run out of rows while another has not: both must take part in the backward."""
    row = Sample(
        prompt_ids=(0,),
        teacher_prompt_ids=None,
        response_ids=(0,),
        loss_mask=(False,),
        sampled_logprobs=(0.0,),
        advantage=0.0,
    )
    return _micro_batch([(row, False)])


def _joined(rows: Sequence[Sequence[float]], dtype: torch.dtype) -> Tensor:
    return torch.tensor([value for row in rows for value in row], dtype=dtype)


def _offsets(rows: Sequence[Sequence[int]]) -> tuple[int, ...]:
    return tuple(accumulate((len(row) for row in rows), initial=0))
