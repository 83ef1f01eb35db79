"""Samples to packed micro-batches: nothing is lost, and however the rows are split, the gradient is the same."""

import random
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch

from sdpo.batching import pack
from sdpo.config import (
    AlgorithmConfig,
    BatchConfig,
    Divergence,
    GRPOConfig,
    LossMean,
    PolicyGradientConfig,
    RatioLevel,
    SDPOConfig,
    SupportConfig,
)
from sdpo.objectives.divergence import divergence
from sdpo.objectives.policy_gradient import mean_weights, policy_gradient_loss
from sdpo.objectives.support import buckets
from sdpo.types import MicroBatch, Sample, Update

VOCABULARY = 11
NUM_TASKS, GROUP_SIZE = 4, 3
SDPO, GRPO, BLEND = SDPOConfig(), GRPOConfig(), SDPOConfig(policy_gradient_share=0.25)
algorithms = pytest.mark.parametrize("algorithm", [SDPO, GRPO, BLEND], ids=["sdpo", "grpo", "blend"])
Row = tuple[object, ...]
"""What the loss reads of a row."""


def sample(
    *,
    prompt: int = 2,
    hindsight: int | None = None,
    response: int = 3,
    advantage: float = 0.0,
    mask: tuple[bool, ...] | None = None,
    task_index: int = 0,
) -> Sample:
    """A row of given lengths."""
    return Sample(
        prompt_ids=(1,) * prompt,
        teacher_prompt_ids=None if hindsight is None else (2,) * hindsight,
        response_ids=(3,) * response,
        loss_mask=mask or (True,) * response,
        sampled_logprobs=(-0.5,) * response,
        advantage=advantage,
        task_index=task_index,
    )


def assorted(seed: int) -> list[Sample]:
    """Rows of all kinds: with and without hindsight, with and without an advantage, partly masked, short and long. All floats
    are representable in fp32."""
    draw = random.Random(seed)

    def ids(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw.randrange(VOCABULARY) for _ in range(draw.randint(low, high)))

    samples = []
    for index in range(NUM_TASKS * GROUP_SIZE):
        response = ids(1, 9)
        samples.append(
            Sample(
                prompt_ids=ids(1, 8),
                teacher_prompt_ids=ids(1, 16) if draw.random() < 0.6 else None,
                response_ids=response,
                loss_mask=(True, *(draw.random() < 0.8 for _ in response[1:])),
                sampled_logprobs=tuple(-draw.randint(1, 32) / 8 for _ in response),
                advantage=draw.choice([-0.75, 0.0, 0.0, 0.25, 0.5]),
                weight=draw.choice([1.0, 0.5]),
                task_index=index // GROUP_SIZE,
            )
        )
    return samples


def batch_config(budget: int = 64, tasks_per_update: int | None = None, num_tasks: int = NUM_TASKS) -> BatchConfig:
    return BatchConfig(num_tasks=num_tasks, group_size=GROUP_SIZE, tasks_per_update=tasks_per_update, micro_batch_tokens=budget)


def micro_batches(update: Update) -> list[MicroBatch]:
    return [micro_batch for rank in update.micro_batches for micro_batch in rank]


def rows_of(micro_batch: MicroBatch) -> Iterator[Row]:
    """Row by row: student ids, teacher ids, the response's length, and per token: mask, distilled, logprob, advantage, weight."""
    first = 0
    for row, num in enumerate(micro_batch.num_response_tokens_B):
        student = slice(*micro_batch.student_offsets[row : row + 2])
        teacher = slice(*micro_batch.teacher_offsets[row : row + 2])
        own = slice(first, first + num)
        first += num
        yield (
            tuple(micro_batch.student_ids_T[student].tolist()),
            tuple(micro_batch.teacher_ids_T[teacher].tolist()),
            num,
            *(
                tuple(per_token[own].tolist())
                for per_token in (
                    micro_batch.loss_mask_N,
                    micro_batch.distilled_N,
                    micro_batch.sampled_logprobs_N,
                    micro_batch.advantages_N,
                    micro_batch.weights_N,
                )
            ),
        )


def computed_rows(update: Update) -> list[Row]:
    """Without the fillers, which are the only rows whose mask is empty."""
    return [row for micro_batch in micro_batches(update) for row in rows_of(micro_batch) if any(row[3])]


def expected_row(sample: Sample, is_distilled: bool) -> Row:
    num = len(sample.response_ids)
    return (
        sample.prompt_ids + sample.response_ids,
        sample.teacher_prompt_ids + sample.response_ids if is_distilled else (),
        num,
        sample.loss_mask,
        tuple(is_distilled and learned for learned in sample.loss_mask),
        sample.sampled_logprobs,
        (sample.advantage,) * num,
        (sample.weight,) * num,
    )


def carries(sample: Sample, algorithm: AlgorithmConfig) -> tuple[bool, bool]:
    """Whether a row carries a distillation and a policy-gradient loss."""
    has_hint, differs = sample.teacher_prompt_ids is not None, sample.advantage != 0.0
    return has_hint and algorithm is not GRPO, differs and algorithm is not SDPO


@algorithms
@pytest.mark.parametrize("budget", [1, 50, 10_000])
@pytest.mark.parametrize("num_ranks", [1, 3])
def test_each_row_with_a_gradient_is_computed_once_and_unchanged(algorithm, budget, num_ranks):
    samples = assorted(0)
    (update,) = pack(samples, batch_config(budget), num_ranks, algorithm)
    expected = [expected_row(sample, carries(sample, algorithm)[0]) for sample in samples if any(carries(sample, algorithm))]
    assert 0 < len(expected) < len(samples)
    assert Counter(computed_rows(update)) == Counter(expected)


@algorithms
def test_student_and_teacher_rows_end_in_the_same_response(algorithm):
    (update,) = pack(assorted(1), batch_config(50), 2, algorithm)
    for student_ids, teacher_ids, num, *_ in computed_rows(update):
        assert len(student_ids) > num
        assert teacher_ids == () or (teacher_ids[-num:] == student_ids[-num:] and len(teacher_ids) > num)


@algorithms
def test_counts_are_the_whole_updates_also_of_rows_that_are_not_computed(algorithm):
    samples = assorted(2)
    (update,) = pack(samples, batch_config(), 1, algorithm)
    assert update.num_rows == len(samples)
    assert update.num_loss_tokens == sum(sum(sample.loss_mask) for sample in samples)
    assert update.num_distilled_tokens == sum(sum(s.loss_mask) for s in samples if carries(s, algorithm)[0])


@algorithms
def test_counts_depend_neither_on_the_token_budget_nor_on_the_ranks(algorithm):
    counts = {
        (update.num_rows, update.num_loss_tokens, update.num_distilled_tokens)
        for budget in (1, 50, 10_000)
        for num_ranks in (1, 2, 5)
        for update in pack(assorted(3), batch_config(budget), num_ranks, algorithm)
    }
    assert len(counts) == 1


@algorithms
def test_the_counts_of_distilled_tokens_are_those_of_the_masks(algorithm):
    (update,) = pack(assorted(4), batch_config(50), 2, algorithm)
    assert update.num_distilled_tokens == sum(int(m.distilled_N.sum()) for m in micro_batches(update))


@pytest.mark.parametrize("num_ranks", [1, 2, 5, 20])
@pytest.mark.parametrize("budget", [1, 50, 10_000])
def test_every_rank_has_the_same_number_of_micro_batches(num_ranks, budget):
    """Also one without a row of its own: a rank that is missing from a backward hangs the others."""
    (update,) = pack(assorted(5), batch_config(budget), num_ranks, BLEND)
    assert len(update.micro_batches) == num_ranks
    assert len({len(rank) for rank in update.micro_batches}) == 1
    assert all(micro_batch.num_rows > 0 for micro_batch in micro_batches(update))


def test_fillers_carry_no_loss():
    (update,) = pack([sample(hindsight=4)], batch_config(), 3, BLEND)
    fillers = [m for m in micro_batches(update) if not m.loss_mask_N.any()]
    assert len(fillers) == 2
    for filler in fillers:
        assert not filler.distilled_N.any()
        assert len(filler.student_ids_T) > filler.num_response_tokens_B[0]
    assert (update.num_rows, update.num_loss_tokens, update.num_distilled_tokens) == (1, 3, 3)


@pytest.mark.parametrize("num_ranks", [1, 3])
@pytest.mark.parametrize(
    ("algorithm", "samples"),
    [(SDPO, [sample(advantage=1.0)]), (GRPO, [sample(hindsight=4)]), (BLEND, [sample()]), (SDPO, [])],
    ids=["sdpo without a hint", "grpo without an advantage", "blend without either", "no samples"],
)
def test_an_update_without_a_lesson_computes_nothing(num_ranks, algorithm, samples):
    (update,) = pack(samples, batch_config(), num_ranks, algorithm)
    assert update.micro_batches == ((),) * num_ranks
    assert (update.num_rows, update.num_loss_tokens) == (len(samples), 3 * len(samples))
    assert update.num_distilled_tokens == 0


@pytest.mark.parametrize(
    ("algorithm", "masked"),
    [(SDPO, sample(hindsight=4, mask=(False,) * 3)), (GRPO, sample(advantage=1.0, mask=(False,) * 3))],
    ids=["sdpo", "grpo"],
)
def test_a_row_without_a_token_of_the_policys_own_is_not_computed(algorithm, masked):
    (update,) = pack([masked], batch_config(), 1, algorithm)
    assert update.num_rows == 1
    assert micro_batches(update) == []


def test_policy_gradient_alone_has_no_teacher():
    (update,) = pack([sample(hindsight=4, advantage=1.0)], batch_config(), 1, SDPOConfig(policy_gradient_share=1.0))
    (micro_batch,) = micro_batches(update)
    assert len(micro_batch.teacher_ids_T) == update.num_distilled_tokens == 0


@pytest.mark.parametrize("tasks_per_update", [1, 2, 3, 6, None])
def test_rows_of_a_task_stay_in_one_update(tasks_per_update):
    samples = [sample(prompt=1 + task, hindsight=4, task_index=task) for task in range(6) for _ in range(GROUP_SIZE)]
    random.Random(0).shuffle(samples)
    updates = pack(samples, batch_config(tasks_per_update=tasks_per_update, num_tasks=6), 2, SDPO)
    size = tasks_per_update or 6
    assert [update.index for update in updates] == list(range(6 // size))
    for update in updates:
        first = update.index * size
        prompts = Counter(len(student_ids) - num for student_ids, _, num, *_ in computed_rows(update))
        assert prompts == {1 + task: GROUP_SIZE for task in range(first, first + size)}


def test_an_update_whose_tasks_lost_all_their_attempts_keeps_its_place():
    updates = pack([sample(hindsight=4, task_index=3)], batch_config(tasks_per_update=1), 1, SDPO)
    assert [update.num_rows for update in updates] == [0, 0, 0, 1]


@pytest.mark.parametrize("budget", [1, 20, 40, 100])
def test_tokens_stay_within_the_budget_except_for_lone_long_rows(budget):
    (update,) = pack(assorted(6), batch_config(budget), 1, BLEND)
    for micro_batch in micro_batches(update):
        num_tokens = len(micro_batch.student_ids_T) + len(micro_batch.teacher_ids_T)
        assert num_tokens <= budget or micro_batch.num_rows == 1


def padded_tokens(micro_batch: MicroBatch) -> int:
    """What the forward passes compute: each side padded to its own longest row, empty teacher rows passed over."""

    def rectangle(offsets: tuple[int, ...]) -> int:
        lengths = [last - first for first, last in pairwise(offsets) if last > first]
        return len(lengths) * max(lengths, default=0)

    return rectangle(micro_batch.student_offsets) + rectangle(micro_batch.teacher_offsets)


def test_padding_stays_within_the_budget_too():
    """A row that is long for the student beside one that is long for the teacher: 50 + 10 and 15 + 45 tokens, budget 120.
    Their sums are alike, but together they are padded to 2 · 50 + 2 · 45."""
    samples = [sample(prompt=45, hindsight=5, response=5), sample(prompt=10, hindsight=40, response=5)]
    (update,) = pack(samples, batch_config(budget=120), 1, SDPO)
    assert [padded_tokens(m) for m in micro_batches(update) if padded_tokens(m) > 120 and m.num_rows > 1] == []


def test_a_large_budget_takes_everything_at_once():
    (update,) = pack(assorted(7), batch_config(10_000), 1, BLEND)
    assert len(micro_batches(update)) == 1


@pytest.mark.parametrize("num_ranks", [2, 3, 4])
def test_ranks_differ_by_no_more_work_than_the_longest_row(num_ranks):
    samples = [s for seed in range(3) for s in assorted(seed)]
    (update,) = pack(samples, batch_config(50), num_ranks, BLEND)
    work = [
        sum(len(m.student_ids_T) + len(m.teacher_ids_T) for m in rank if m.loss_mask_N.any()) for rank in update.micro_batches
    ]
    longest = max(len(row[0]) + len(row[1]) for row in computed_rows(update))
    assert max(work) - min(work) <= longest


def test_tensors_have_the_types_they_declare():
    (update,) = pack(assorted(8), batch_config(), 1, BLEND)
    for m in micro_batches(update):
        assert {m.student_ids_T.dtype, m.teacher_ids_T.dtype} == {torch.int64}
        assert {m.loss_mask_N.dtype, m.distilled_N.dtype} == {torch.bool}
        assert {m.sampled_logprobs_N.dtype, m.advantages_N.dtype, m.weights_N.dtype} == {torch.float32}


# The whole: a language model of an embedding, a causal mean and a linear head, in fp64.


def parameters(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    embedding = torch.randn(VOCABULARY, 6, generator=generator, dtype=torch.float64)
    head = torch.randn(VOCABULARY, 6, generator=generator, dtype=torch.float64)
    return embedding, head


def response_logprobs(model: tuple[torch.Tensor, torch.Tensor], ids: list[int], num: int) -> torch.Tensor:
    """[R, V] at the positions that predict the last ``num`` ids."""
    embedding, head = model
    mean = embedding[ids].cumsum(0) / torch.arange(1, len(ids) + 1, dtype=torch.float64)[:, None]
    return (mean.tanh() @ head.T).log_softmax(-1)[-num - 1 : -1]


TEACHER = parameters(99)


def packed_loss(model: tuple[torch.Tensor, torch.Tensor], m: MicroBatch, update: Update, algorithm: SDPOConfig):
    """A micro-batch's share of the blended loss, from what the micro-batch holds and the update's counts alone."""
    losses_N, logprobs_N, rows_N = [], [], []
    for row, (student_ids, teacher_ids, num, *_) in enumerate(rows_of(m)):
        student_NV = response_logprobs(model, list(student_ids), num)
        response = torch.tensor(student_ids[-num:])
        logprobs_N.append(student_NV.gather(-1, response[:, None])[:, 0])
        rows_N.append(torch.full((num,), row))
        if teacher_ids:
            teacher_NV = response_logprobs(TEACHER, list(teacher_ids), num)
            sides = buckets(student_NV, teacher_NV, algorithm.support)
            losses_N.append(divergence(*sides, algorithm.divergence, algorithm.jsd_beta))
        else:
            losses_N.append(torch.zeros(num, dtype=torch.float64))
    student_N, rows_N = torch.cat(logprobs_N), torch.cat(rows_N)
    distillation = (torch.cat(losses_N) * m.weights_N)[m.distilled_N].sum() / max(update.num_distilled_tokens, 1)
    pick, policy_gradient = m.loss_mask_N, algorithm.policy_gradient
    tokens = policy_gradient_loss(
        student_N[pick],
        student_N.detach()[pick] - 0.125,
        m.sampled_logprobs_N[pick],
        m.advantages_N[pick],
        rows_N[pick],
        policy_gradient,
    )
    factors = mean_weights(
        rows_N[pick],
        policy_gradient.mean,
        num_loss_tokens=update.num_loss_tokens,
        num_rows=update.num_rows,
        max_response_tokens=16,
    )
    share = algorithm.policy_gradient_share
    return (1 - share) * distillation + share * (tokens * factors).sum()


def plain_loss(model: tuple[torch.Tensor, torch.Tensor], samples: list[Sample], algorithm: SDPOConfig) -> torch.Tensor:
    """The same blended loss straight from the samples, one after the other: no packs, no ranks, no rows left out."""
    policy_gradient, share = algorithm.policy_gradient, algorithm.policy_gradient_share
    distillation, surrogate = [], []
    for s in samples:
        num, mask = len(s.response_ids), torch.tensor(s.loss_mask)
        student_NV = response_logprobs(model, [*s.prompt_ids, *s.response_ids], num)
        if s.teacher_prompt_ids is not None:
            teacher_NV = response_logprobs(TEACHER, [*s.teacher_prompt_ids, *s.response_ids], num)
            sides = buckets(student_NV, teacher_NV, algorithm.support)
            apart = divergence(*sides, algorithm.divergence, algorithm.jsd_beta)
            distillation.append(s.weight * apart[mask])
        own = student_NV[range(num), list(s.response_ids)][mask]
        losses = policy_gradient_loss(
            own,
            own.detach() - 0.125,
            torch.tensor(s.sampled_logprobs, dtype=torch.float64)[mask],
            torch.full_like(own, s.advantage).detach(),
            torch.zeros(len(own), dtype=torch.int64),
            policy_gradient,
        )
        match policy_gradient.mean:
            case LossMean.token:
                surrogate.append(losses.sum() / sum(sum(other.loss_mask) for other in samples))
            case LossMean.sequence:
                surrogate.append(losses.mean() / len(samples))
            case LossMean.constant:
                surrogate.append(losses.sum() / (len(samples) * 16))
    return (1 - share) * torch.cat(distillation).mean() + share * torch.stack(surrogate).sum()


@pytest.mark.parametrize("mean", list(LossMean), ids=lambda mean: mean.value)
@pytest.mark.parametrize("ratio", list(RatioLevel), ids=lambda ratio: ratio.value)
def test_gradient_depends_neither_on_the_micro_batch_size_nor_on_the_number_of_ranks(mean, ratio):
    algorithm = SDPOConfig(
        divergence=Divergence.jsd,
        support=SupportConfig(num_ids=4),
        policy_gradient_share=0.25,
        policy_gradient=PolicyGradientConfig(mean=mean, ratio=ratio),
    )
    model = tuple(part.requires_grad_() for part in parameters(0))
    samples = assorted(9)
    plain = plain_loss(model, samples, algorithm)
    expected = torch.autograd.grad(plain, model)
    for budget in (1, 60, 10_000):
        for num_ranks in (1, 2, 5):
            (update,) = pack(samples, batch_config(budget), num_ranks, algorithm)
            loss = sum(packed_loss(model, m, update, algorithm) for m in micro_batches(update))
            for ours, reference in zip(torch.autograd.grad(loss, model), expected, strict=True):
                torch.testing.assert_close(ours, reference, rtol=1e-6, atol=1e-9)
            assert loss.item() == pytest.approx(plain.item(), rel=1e-6)
