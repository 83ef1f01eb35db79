"""The fused loss against the formulas written out: fp64, a plain log-softmax over the vocabulary, a sort for the top K.

Nothing here is shared with what is tested but the configuration: the brute force below knows no chunks, no buffers, no
log-sum-exp of a tail and no hand-written derivative; its gradients are autograd's.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from sdpo.config import (
    FullSupport,
    Granularity,
    PolicyGradientConfig,
    RatioLevel,
    SDPOConfig,
    SupportConfig,
    SupportKind,
    TopSupport,
)
from sdpo.objectives.comparison import Comparison
from sdpo.objectives.distillation import distillation_loss
from sdpo.objectives.divergence import divergence_of
from sdpo.objectives.fused import fused_loss, score_tokens
from sdpo.objectives.logits import HEAD_ROWS, Budget, Logits
from sdpo.objectives.policy_gradient import policy_gradient_loss
from sdpo.objectives.scores import TokenScores
from tests.objectives.kinds import KINDS

WIDTH, VOCABULARY = 16, 61
ROW_LENGTHS = (9, 1, 5, 7)
"""Of responses; one has a single token. 22 tokens: more than the 16 rows for which the teacher's tail is summed at once."""
DTYPES = [torch.float64, torch.float32, torch.bfloat16]
GRADIENT_TOLERANCE = {torch.float64: 1e-12, torch.float32: 5e-6, torch.bfloat16: 1e-2}
"""In fp32 nine of ten lie below 1e-6, of which there is a test; now and then a difference of near equals leaves more."""
VALUE_TOLERANCE = {torch.float64: 1e-12, torch.float32: 5e-6, torch.bfloat16: 5e-6}
"""bf16 states lose nothing on their way to loss and scores: their logits are fp32."""
SUPPORTS = [
    TopSupport(kind=kind, num_ids=num_ids, tail=tail)
    for kind in (SupportKind.student, SupportKind.teacher)
    for num_ids, tail in ((1, True), (7, True), (7, False), (VOCABULARY - 1, True), (VOCABULARY, True), (VOCABULARY, False))
] + [FullSupport()]

every_divergence = pytest.mark.parametrize("kind", KINDS, ids=str)
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))


def name_of(support: SupportConfig) -> str:
    return (
        f"{support.kind.value}-{support.num_ids}{'-tail' if support.tail else ''}" if isinstance(support, TopSupport) else "full"
    )


every_support = pytest.mark.parametrize("support", SUPPORTS, ids=name_of)


# What is compared: one problem, seen by the fused loss and by the brute force.


@dataclass(frozen=True, kw_only=True, eq=False)
class Objective:
    """λ·policy gradient + (1-λ)·distillation - c·entropy, of N tokens."""

    sdpo: SDPOConfig = field(default_factory=SDPOConfig)
    share: float = 0.0
    """λ"""
    entropy: float = 0.0
    """c"""
    old: Tensor
    sampled: Tensor
    weights: Tensor
    advantages: Tensor
    rows: Tensor

    @property
    def is_pointwise(self) -> bool:
        return not self.sdpo.distils_whole_rows and self.sdpo.policy_gradient.ratio is RatioLevel.token

    def __call__(self, scores: TokenScores, tokens: slice) -> Tensor:
        old, sampled, rows = self.old[tokens], self.sampled[tokens], self.rows[tokens]
        losses = -self.entropy * scores.entropy_N
        if self.share < 1.0:
            distilled = distillation_loss(scores, old, sampled, self.weights[tokens], rows, self.sdpo)
            losses = losses + (1.0 - self.share) * distilled
        if self.share > 0.0:
            reinforced = policy_gradient_loss(
                scores.student_N, old, sampled, self.advantages[tokens], rows, self.sdpo.policy_gradient
            )
            losses = losses + self.share * self.weights[tokens] * reinforced
        return losses


@dataclass(frozen=True, kw_only=True, eq=False)
class Problem:
    hidden: Tensor
    head: Tensor
    ids: Tensor
    teacher: tuple[Logits, ...]
    objective: Objective
    temperature: float = 1.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    loss: Tensor
    of_hidden: Tensor
    of_head: Tensor
    scores: TokenScores
    size: float
    """Sum of the tokens' absolute losses, against which an error of their sum is measured; nan where only the sum is known."""


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def problem(
    dtype: torch.dtype = torch.float64,
    *,
    lengths: Sequence[int] = ROW_LENGTHS,
    vocabulary: int = VOCABULARY,
    temperature: float = 1.0,
    seed: int = 0,
    sdpo: SDPOConfig | None = None,
    share: float = 0.0,
    entropy: float = 0.0,
) -> Problem:
    """Inputs as rounded to ``dtype``. The last row is masked: its weight is 0. The teacher is a mixture of two models."""
    num = sum(lengths)
    hidden, head = normal(num, WIDTH, seed=seed).to(dtype), (normal(vocabulary, WIDTH, seed=seed + 1) / 3).to(dtype)
    beside = (hidden + 1.5 * normal(num, WIDTH, seed=seed + 2)).to(dtype)
    other, other_head = normal(num, 5, seed=seed + 3).to(dtype), normal(vocabulary, 5, seed=seed + 4).to(dtype)
    teacher = (
        Logits(hidden_NH=beside, head_VH=head, weight=0.8),
        Logits(hidden_NH=other, head_VH=other_head, weight=0.2),
    )
    logits = hidden.double() @ head.double().T / temperature
    generator = torch.Generator().manual_seed(seed + 5)
    ids = torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0] if num else torch.zeros(0, dtype=torch.int64)
    exact = torch.float64 if dtype == torch.float64 else torch.float32
    old = logits.log_softmax(-1)[torch.arange(num), ids] + 0.4 * normal(num, seed=seed + 6)
    rows = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths, dtype=torch.int64))
    weights = normal(len(lengths), seed=seed + 7).exp()
    if len(lengths) > 1:
        weights[-1] = 0.0
    return Problem(
        hidden=hidden,
        head=head,
        ids=ids,
        teacher=teacher,
        temperature=temperature,
        objective=Objective(
            sdpo=sdpo or SDPOConfig(support=TopSupport(num_ids=7)),
            share=share,
            entropy=entropy,
            old=old.to(exact),
            sampled=(old + 0.4 * normal(num, seed=seed + 8)).to(exact),
            weights=weights[rows].to(exact),
            advantages=normal(len(lengths), seed=seed + 9)[rows].to(exact),
            rows=rows,
        ),
    )


def leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().clone().requires_grad_()


def budget_for(case: Problem, chunk: int) -> Budget:
    """Room for ``chunk`` tokens a chunk."""
    vocabulary, item_bytes = len(case.head), max(case.head.element_size(), 4)
    return Budget(temperature=case.temperature, chunk_mib=(chunk + 0.1) * vocabulary * item_bytes / 2**20)


def comparison_of(case: Problem) -> Comparison:
    sdpo = case.objective.sdpo
    return Comparison(
        teacher=case.teacher,
        support=sdpo.support,
        divergence=divergence_of(sdpo),
        pointwise_clip=sdpo.pointwise_clip,
        pointwise_clip_side=sdpo.pointwise_clip_side,
    )


def run(case: Problem, hidden: Tensor, head: Tensor, *, chunk: int = 5, with_teacher: bool = True) -> tuple[Tensor, TokenScores]:
    """The fused loss of the case, but of these hidden states and this head."""
    comparison = comparison_of(case) if with_teacher else None
    return fused_loss(hidden, head, case.ids, case.objective, comparison=comparison, budget=budget_for(case, chunk))


def fused(case: Problem, *, chunk: int = 5, with_teacher: bool = True) -> Outcome:
    hidden, head = leaf(case.hidden), leaf(case.head)
    loss, scores = run(case, hidden, head, chunk=chunk, with_teacher=with_teacher)
    of_hidden, of_head = torch.autograd.grad(loss, (hidden, head))
    return Outcome(loss=loss.detach(), of_hidden=of_hidden, of_head=of_head, scores=scores, size=math.nan)


# The brute force.


def brute(case: Problem, dtype: torch.dtype = torch.float64) -> Outcome:
    hidden, head = leaf(case.hidden.to(dtype)), leaf(case.head.to(dtype))
    values_N, minimised_N, scores = brute_run(case, hidden, head)
    of_hidden, of_head = torch.autograd.grad(minimised_N.sum(), (hidden, head))
    return Outcome(
        loss=values_N.sum().detach(),
        of_hidden=of_hidden,
        of_head=of_head,
        scores=TokenScores(**{part.name: getattr(scores, part.name).detach() for part in dataclasses.fields(scores)}),
        size=values_N.detach().abs().sum().item(),
    )


def brute_run(case: Problem, hidden: Tensor, head: Tensor) -> tuple[Tensor, Tensor, TokenScores]:
    """[N] the losses, [N] what has their gradients, and the scores, in the type of ``hidden``."""
    student_NV = plain_log_softmax(hidden @ head.T / case.temperature)
    parts = [
        part.weight * part.hidden_NH.to(hidden.dtype) @ part.head_VH.to(hidden.dtype)[: len(head)].T for part in case.teacher
    ]
    teacher_NV = plain_log_softmax(sum(parts[1:], start=parts[0]).detach() / case.temperature)
    sdpo, every = case.objective.sdpo, torch.arange(len(hidden))
    student_NK, teacher_NK = brute_buckets(student_NV, teacher_NV, sdpo.support)
    scores = TokenScores(
        student_N=student_NV[every, case.ids],
        teacher_N=teacher_NV[every, case.ids],
        entropy_N=-(student_NV.exp() * student_NV).sum(-1),
        teacher_entropy_N=-(teacher_NK.exp() * teacher_NK).sum(-1),
        divergence_N=brute_divergence(student_NK, teacher_NK, sdpo.divergence, sdpo.jsd_beta, sdpo.pointwise_clip),
    )
    return *brute_losses(scores, case.objective), scores


def plain_log_softmax(logits_NV: Tensor) -> Tensor:
    return logits_NV - logits_NV.logsumexp(-1, keepdim=True)


def brute_buckets(student_NV: Tensor, teacher_NV: Tensor, support: SupportConfig) -> tuple[Tensor, Tensor]:
    """Log-probabilities over the K ids, and over the tail or renormalised; the tail is what the others sum to."""
    if not isinstance(support, TopSupport):
        return student_NV, teacher_NV
    chooser_NV = student_NV if support.kind is SupportKind.student else teacher_NV
    best_first = chooser_NV.detach().argsort(dim=-1, descending=True)
    inside, outside = best_first[:, : support.num_ids], best_first[:, support.num_ids :]

    def side(logprobs_NV: Tensor) -> Tensor:
        inside_NK = logprobs_NV.gather(-1, inside)
        if not support.tail:
            return plain_log_softmax(inside_NK)
        if outside.shape[1] == 0:
            return inside_NK
        return torch.cat([inside_NK, logprobs_NV.gather(-1, outside).logsumexp(-1, keepdim=True)], dim=-1)

    return side(student_NV), side(teacher_NV)


def brute_divergence(s: Tensor, t: Tensor, kind: str, beta: float, clip: float | None = None) -> Tensor:
    match kind:
        case "reverse_kl":
            terms = s.exp() * (s - t)
        case "forward_kl":
            terms = t.exp() * (t - s)
        case "jsd":
            m = torch.logaddexp(s + math.log(1 - beta), t + math.log(beta))
            terms = (1 - beta) * s.exp() * (s - m) + beta * t.exp() * (t - m)
    if clip is not None:
        terms = torch.where(terms > clip, clip, torch.where(terms < -clip, -clip, terms))
    return terms.sum(-1)


def brute_losses(scores: TokenScores, objective: Objective) -> tuple[Tensor, Tensor]:
    """[N] the losses, and [N] what has their gradients: not the same where a gradient is estimated from samples."""
    sdpo, policy = objective.sdpo, objective.sdpo.policy_gradient
    student, rows = scores.student_N, objective.rows
    of_tokens = (objective.old, objective.sampled, objective.weights, objective.advantages)
    old, sampled, weights, advantages = (part.to(student.dtype) for part in of_tokens)
    rollout = old.exp() / sampled.exp()

    apart = student.detach() - scores.teacher_N
    log_ratio = student - old
    for row in rows.unique():
        mine = rows == row
        if sdpo.granularity is Granularity.sequence:
            apart = torch.where(mine, apart[mine].sum(), apart)
        if policy.ratio is RatioLevel.sequence:
            log_ratio = torch.where(mine, log_ratio[mine].mean(), log_ratio)
    value, minimised = (apart, apart * student) if sdpo.granularity is not Granularity.logits else (scores.divergence_N,) * 2
    importance = (student.detach().exp() / old.exp()).clamp(max=sdpo.importance_clip)
    outer = (1 - objective.share) * importance * rollout.clamp(max=sdpo.rollout_clip)
    each = weights
    later = torch.zeros_like(student)
    for now, then in itertools.combinations(range(len(rows)), 2):
        if rows[now] == rows[then]:
            distance = int((rows[now:then] == rows[then]).sum())
            later[now] += sdpo.future_credit**distance * (each * value)[then].detach()

    ratio = log_ratio.exp()
    gain = torch.minimum(ratio * advantages, ratio.clamp(1 - policy.clip_low, 1 + policy.clip_high) * advantages)
    rest = -objective.share * weights * rollout.clamp(max=policy.rollout_clip) * gain - objective.entropy * scores.entropy_N
    return outer * each * value + rest, outer * (each * minimised + later * student) + rest


# How far apart they are.


def apart(ours: Tensor, exact: Tensor, *, floor: float = 0.0) -> float:
    """Error relative to the exact, norm-wise, or to ``floor`` where that is larger; 0 where both are 0."""
    error, size = (ours.double() - exact.double()).norm().item(), exact.double().norm().item()
    return error / max(size, floor) if error else 0.0


def value_errors(ours: Outcome, exact: Outcome) -> dict[str, float]:
    """Of the loss and of each score. Logarithms of about 0 are right when they are so by a small part of a nat."""
    nat = len(exact.scores.student_N) ** 0.5
    floors = {"student_N": nat, "teacher_N": nat, "entropy_N": nat, "teacher_entropy_N": nat, "divergence_N": 0.0}
    loss = abs(ours.loss.item() - exact.loss.item()) / exact.size if exact.size else abs(ours.loss.item())
    return {"loss": loss} | {
        name: apart(getattr(ours.scores, name), getattr(exact.scores, name), floor=floor) for name, floor in floors.items()
    }


def gradient_errors(ours: Outcome, exact: Outcome) -> dict[str, float]:
    return {"hidden": apart(ours.of_hidden, exact.of_hidden), "head": apart(ours.of_head, exact.of_head)}


def assert_exact(case: Problem, *, chunks: Sequence[int] = (1, 5, 1000)) -> None:
    """Of one token a chunk, of chunks that do not divide the tokens, of a single chunk."""
    exact = brute(case)
    for chunk in chunks:
        ours = fused(case, chunk=chunk)
        values, gradients = value_errors(ours, exact), gradient_errors(ours, exact)
        assert max(values.values()) < VALUE_TOLERANCE[case.hidden.dtype], (chunk, values)
        assert max(gradients.values()) < GRADIENT_TOLERANCE[case.hidden.dtype], (chunk, gradients)


# The grid.


@every_dtype
@every_support
@every_divergence
def test_distillation_is_the_formula_and_its_gradient(kind, support, dtype):
    seed = 10 * SUPPORTS.index(support) + 1000 * KINDS.index(kind)
    sdpo = SDPOConfig(divergence=kind, jsd_beta=0.3, support=support)
    assert_exact(problem(dtype, sdpo=sdpo, seed=seed), chunks=(1, 1000))
    assert_exact(problem(dtype, sdpo=sdpo, seed=seed + 5, temperature=0.6), chunks=(5,))


def test_nine_errors_of_ten_in_fp32_are_below_a_millionth():
    found: list[dict[str, float]] = []
    for index, (support, kind) in enumerate(itertools.product(SUPPORTS, KINDS)):
        case = problem(torch.float32, sdpo=SDPOConfig(divergence=kind, support=support), seed=10 * index)
        ours, exact = fused(case), brute(case)
        found.append(value_errors(ours, exact) | gradient_errors(ours, exact))
    assert all(statistics.quantiles([errors[name] for errors in found], n=10)[-1] < 1e-6 for name in found[0])


@every_dtype
@every_divergence
@pytest.mark.parametrize("credit", [0.6, 1.0])
def test_credit_for_the_future_is_its_formula(credit, kind, dtype):
    """Over student's and teacher's support with and without a tail, and over the vocabulary."""
    for index, support in enumerate((SUPPORTS[1], SUPPORTS[2], SUPPORTS[7], SUPPORTS[8], SUPPORTS[-1])):
        sdpo = SDPOConfig(divergence=kind, jsd_beta=0.3, support=support, future_credit=credit)
        assert_exact(problem(dtype, sdpo=sdpo, seed=10 * index, temperature=0.7), chunks=(5,))


@every_divergence
@pytest.mark.parametrize("support", [SUPPORTS[1], SUPPORTS[2], SUPPORTS[4], SUPPORTS[7], SUPPORTS[8], SUPPORTS[-1]], ids=name_of)
def test_a_clamp_of_each_buckets_term_is_the_formula_and_its_gradient(support, kind):
    """Some of the terms are beyond it on either side, and some are not, or nothing would be tested."""
    for seed in range(3):
        sdpo = SDPOConfig(divergence=kind, jsd_beta=0.3, support=support, pointwise_clip=0.05)
        case = problem(sdpo=sdpo, seed=seed)
        unclipped = dataclasses.replace(case.objective, sdpo=dataclasses.replace(sdpo, pointwise_clip=None))
        assert apart(fused(case).of_hidden, fused(dataclasses.replace(case, objective=unclipped)).of_hidden) > 0.01
        assert_exact(case, chunks=(5,))


BLENDS = {
    f"{granularity.value}-{ratio.value}-{share}-{entropy}-{name_of(support)}": (
        SDPOConfig(granularity=granularity, support=support, policy_gradient=PolicyGradientConfig(ratio=ratio)),
        share,
        entropy,
    )
    for granularity in Granularity
    for ratio in RatioLevel
    for share in (0.0, 0.4, 1.0)
    for entropy in (0.0, 0.05)
    for support in (TopSupport(num_ids=7), TopSupport(num_ids=7, tail=False), FullSupport())
}


@every_dtype
def test_every_granularity_ratio_and_entropy_term_is_the_formula_and_its_gradient(dtype):
    for index, (sdpo, share, entropy) in enumerate(BLENDS.values()):
        case = problem(dtype, sdpo=sdpo, share=share, entropy=entropy, temperature=(1.0, 0.7)[index % 2], seed=20 * index)
        assert_exact(case, chunks=((3,), (1000,), (5,))[index % 3])


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    vocabulary, kind = draw(st.integers(3, 40)), draw(st.sampled_from([*SupportKind, None]))
    granularity = draw(st.sampled_from(list(Granularity)))
    divergences = KINDS if granularity is Granularity.logits else ["reverse_kl"]
    num_ids = draw(st.integers(1, vocabulary + 2))
    is_sequence = granularity is Granularity.sequence
    can_clip = granularity is Granularity.logits
    sdpo = SDPOConfig(
        divergence=draw(st.sampled_from(divergences)),
        jsd_beta=draw(st.floats(0.05, 0.95)),
        granularity=granularity,
        support=FullSupport()
        if kind is None
        else TopSupport(kind=kind, num_ids=num_ids, tail=num_ids == 1 or draw(st.booleans())),
        importance_clip=draw(st.floats(1.0, 3.0)),
        rollout_clip=draw(st.floats(1.0, 3.0)),
        pointwise_clip=draw(st.sampled_from([None, 0.02, 0.3])) if can_clip else None,
        future_credit=0.0 if is_sequence else draw(st.sampled_from([0.0, 0.7, 1.0])),
        policy_gradient=PolicyGradientConfig(ratio=draw(st.sampled_from(list(RatioLevel)))),
    )
    return problem(
        lengths=[8, *draw(st.lists(st.integers(1, 20), max_size=3))],
        vocabulary=vocabulary,
        temperature=draw(st.floats(0.5, 3.0)),
        seed=draw(st.integers(0, 10**6)),
        sdpo=sdpo,
        share=draw(st.sampled_from([0.0, 0.3, 1.0])),
        entropy=draw(st.sampled_from([0.0, 0.1])),
    )


@given(case=problems(), chunk=st.integers(1, 90))
@settings(derandomize=True, max_examples=80, deadline=None)
def test_any_problem_in_fp64_is_the_formula_and_its_gradient(case, chunk):
    assert_exact(case, chunks=(chunk,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("vocabulary", [HEAD_ROWS, HEAD_ROWS + 37, 2 * HEAD_ROWS + 1])
def test_vocabulary_of_more_than_one_block_of_the_head_is_no_different(dtype, vocabulary):
    assert_exact(problem(dtype, lengths=(4, 1, 2), vocabulary=vocabulary, entropy=0.01), chunks=(3,))


@every_divergence
def test_near_agreement_costs_no_more_digits_than_a_plain_log_softmax_in_fp32(kind):
    """Where student and teacher say nearly the same, every way of computing in fp32 loses digits to the same subtraction."""
    case = problem(torch.float32, lengths=(40,), sdpo=SDPOConfig(divergence=kind, support=TopSupport(num_ids=7)))
    nudged = case.hidden + 0.01 * normal(40, WIDTH, seed=99).float()
    case = dataclasses.replace(case, teacher=(Logits(hidden_NH=nudged, head_VH=case.head),))
    exact = brute(case)
    ours, plain = fused(case), brute(case, torch.float32)
    assert apart(ours.of_hidden, exact.of_hidden) < 2 * apart(plain.of_hidden, exact.of_hidden)
    assert apart(ours.of_head, exact.of_head) < 2 * apart(plain.of_head, exact.of_head)
    assert value_errors(ours, exact)["divergence_N"] < 2 * value_errors(plain, exact)["divergence_N"]


# Chunks.


@every_dtype
@pytest.mark.parametrize("support", [SUPPORTS[1], SUPPORTS[8], SUPPORTS[-1]], ids=name_of)
def test_gradient_does_not_depend_on_the_chunk(support, dtype):
    case = problem(dtype, sdpo=SDPOConfig(support=support), entropy=0.05)
    whole = fused(case, chunk=1000)
    for chunk in (1, 2, 7, 11, 21, 22):
        part = fused(case, chunk=chunk)
        assert max(value_errors(part, dataclasses.replace(whole, size=whole.loss.abs().item())).values()) < VALUE_TOLERANCE[dtype]
        assert max(gradient_errors(part, whole).values()) < GRADIENT_TOLERANCE[dtype]


def test_many_chunks_add_up_to_the_head_as_exactly_as_few_in_bf16():
    """Summed in bf16, three hundred small contributions would lose their last bits, one after the other."""
    case = problem(torch.bfloat16, lengths=(150, 150, 1), vocabulary=23)
    assert_exact(case, chunks=(1, 1000))


@dataclass(frozen=True, eq=False)
class Watched:
    """Notes which tokens it was asked for, and how many scores it was given."""

    is_pointwise: bool
    asked: list[tuple[slice, int]] = field(default_factory=list)

    def __call__(self, scores: TokenScores, tokens: slice) -> Tensor:
        assert {len(getattr(scores, part.name)) for part in dataclasses.fields(scores)} == {len(scores.student_N)}
        self.asked.append((tokens, len(scores.student_N)))
        return -scores.student_N


def test_loss_is_asked_once_for_every_token_in_order():
    case, hidden = problem(), leaf(problem().hidden)
    for is_pointwise, expected in ((True, [(0, 9), (9, 18), (18, 22)]), (False, [(0, 22)])):
        watched = Watched(is_pointwise)
        fused_loss(hidden, case.head, case.ids, watched, comparison=comparison_of(case), budget=budget_for(case, 9))
        assert watched.asked == [(slice(first, last), last - first) for first, last in expected]


def test_chunk_holds_at_least_one_token():
    assert Budget(chunk_mib=1e-9).chunk_tokens(150_000, 4) == 1
    assert Budget(chunk_mib=1.0).chunk_tokens(1024, 4) == 256


class Largest(TorchDispatchMode):
    """The number of elements of the largest tensor that any operation returned."""

    num = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, Tensor):
                self.num = max(self.num, tensor.numel())
        return out


@pytest.mark.parametrize("support", [SUPPORTS[1], SUPPORTS[8], SUPPORTS[-1]], ids=name_of)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_no_tensor_is_larger_than_a_chunk_of_logits(support, dtype):
    case = problem(dtype, lengths=(60, 20), vocabulary=3000, sdpo=SDPOConfig(support=support), entropy=0.01)
    with Largest() as largest:
        fused(case, chunk=25)
    assert largest.num == 25 * 3000


# Rows and masks.


def test_tokens_of_weight_nothing_get_no_gradient_whatever_they_hold():
    """The last row is masked, and its states are far outside of what is normal."""
    case = problem(torch.float32)
    masked = case.objective.rows == 3
    wild = torch.where(masked[:, None], 1e3 * case.hidden, case.hidden)
    for granularity in Granularity:
        objective = dataclasses.replace(case.objective, sdpo=SDPOConfig(granularity=granularity))
        ours = fused(dataclasses.replace(case, hidden=wild, objective=objective))
        assert torch.equal(ours.of_hidden[masked], torch.zeros(7, WIDTH))
        assert ours.of_head.isfinite().all()
        assert ours.of_hidden[~masked].count_nonzero() == 15 * WIDTH


@pytest.mark.parametrize("granularity", list(Granularity), ids=lambda granularity: granularity.value)
def test_masked_row_can_as_well_be_left_out(granularity):
    case = problem(sdpo=SDPOConfig(granularity=granularity, support=TopSupport(num_ids=7)))
    whole = fused(case)
    first = slice(0, 15)
    objective = dataclasses.replace(
        case.objective,
        **{name: getattr(case.objective, name)[first] for name in ("old", "sampled", "weights", "advantages", "rows")},
    )
    teacher = tuple(dataclasses.replace(part, hidden_NH=part.hidden_NH[first]) for part in case.teacher)
    less = fused(dataclasses.replace(case, hidden=case.hidden[first], ids=case.ids[first], teacher=teacher, objective=objective))
    assert less.loss.item() == pytest.approx(whole.loss.item(), rel=1e-12)
    assert apart(less.of_hidden, whole.of_hidden[first]) < 1e-12
    assert apart(less.of_head, whole.of_head) < 1e-12


def test_update_that_is_wholly_masked_has_no_gradient():
    case = problem()
    nothing = dataclasses.replace(case.objective, weights=torch.zeros(22, dtype=torch.float64))
    ours = fused(dataclasses.replace(case, objective=nothing))
    assert (ours.loss, ours.of_hidden.count_nonzero(), ours.of_head.count_nonzero()) == (0, 0, 0)


@every_dtype
@pytest.mark.parametrize("granularity", list(Granularity), ids=lambda granularity: granularity.value)
def test_response_of_one_token_alone_is_no_exception(granularity, dtype):
    sdpo = SDPOConfig(granularity=granularity, support=TopSupport(num_ids=7))
    assert_exact(problem(dtype, lengths=(1,), sdpo=sdpo, share=0.5), chunks=(1, 5))


@pytest.mark.parametrize("with_teacher", [True, False])
@pytest.mark.parametrize("granularity", list(Granularity), ids=lambda granularity: granularity.value)
def test_no_tokens_cost_nothing_and_leave_gradients_of_zero(granularity, with_teacher):
    case = problem(torch.bfloat16, lengths=(), sdpo=SDPOConfig(granularity=granularity))
    ours = fused(case, with_teacher=with_teacher)
    assert ours.loss.item() == 0.0
    assert ours.of_hidden.shape == (0, WIDTH)
    assert ours.of_head.dtype == torch.bfloat16
    assert torch.equal(ours.of_head, torch.zeros_like(case.head))
    assert all(getattr(ours.scores, part.name).shape == (0,) for part in dataclasses.fields(TokenScores))
    assert score_tokens(case.hidden, case.head, case.ids, budget=Budget()).student_N.shape == (0,)


# Extremes. With the identity for a head, hidden states are the logits, and their gradient is that by the logits.


def told(student: Tensor, teacher: Tensor, sdpo: SDPOConfig, *, entropy: float = 0.0) -> Problem:
    """The problem in which student and teacher have these logits, and the student's first token was sampled."""
    num, vocabulary = student.shape
    head, zeros = torch.eye(vocabulary, dtype=student.dtype), torch.zeros(num)
    ids = torch.zeros(num, dtype=torch.int64)
    old = student.double().log_softmax(-1)[:, 0].float()
    rows = torch.arange(num)
    objective = Objective(sdpo=sdpo, entropy=entropy, old=old, sampled=old, weights=zeros + 1, advantages=zeros, rows=rows)
    teacher_ = (Logits(hidden_NH=teacher, head_VH=head),)
    return Problem(hidden=student, head=head, ids=ids, teacher=teacher_, objective=objective)


def confined(num: int, seed: int) -> Tensor:
    """[num, 30] logits of which seven, the first among them, hold all: the others lie 200 lower, and exp(-200) is 0 in fp32."""
    generator = torch.Generator().manual_seed(seed + 1)
    logits = normal(num, 30, seed=seed) - 200.0
    for row in logits:
        row[0] += 200.0
        row[1 + torch.randperm(29, generator=generator)[:6]] += 200.0
    return logits


@every_divergence
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("side", ["student", "teacher", "both"])
@pytest.mark.parametrize("support", [TopSupport(num_ids=9), TopSupport(kind=SupportKind.teacher, num_ids=9)], ids=name_of)
def test_tail_that_underflows_is_still_right(support, side, dtype, kind):
    """log(1 - Σp) would be log 0, and its derivative 0/0."""
    spread = 2 * normal(6, 30, seed=7)
    student = confined(6, seed=3) if side != "teacher" else spread
    teacher = confined(6, seed=5) if side != "student" else spread
    sdpo = SDPOConfig(divergence=kind, support=support)
    assert_exact(told(student.to(dtype), teacher.to(dtype), sdpo), chunks=(4,))
    assert_exact(told(student.to(dtype), teacher.to(dtype), sdpo, entropy=0.1), chunks=(4,))


EXTREMES = {
    "opposite": ([100.0, 0.0, -100.0, 0.0, 0.0], [-100.0, 0.0, 100.0, 0.0, 0.0]),
    "student one-hot": ([1e4, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0]),
    "teacher one-hot": ([0.0, 0.0, 0.0, 0.0, 0.0], [1e4, 0.0, 0.0, 0.0, 0.0]),
    "both one-hot": ([1e4, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1e4, 0.0]),
    "sampled what it excludes": ([-1e4, 0.0, 1e4, 0.0, 3.0], [1e4, 0.0, 0.0, -1e4, 0.0]),
    "nearly equal": ([3e-5, 0.0, -3e-5, 1e-5, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0]),
    "indifferent": ([0.0, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0]),
    "far from zero": ([3e4, 3e4 + 512, 3e4 - 512, 3e4, 3e4], [-3e4, -3e4, -3e4, -3e4 + 512, -3e4]),
}


@pytest.mark.parametrize("extreme", list(EXTREMES))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_loss_scores_and_gradients_are_finite_at_extreme_logits(extreme, dtype):
    student, teacher = (torch.tensor([logits], dtype=dtype) for logits in EXTREMES[extreme])
    sizes = ((1, True), (2, True), (2, False), (4, True))
    tops = [TopSupport(kind=kind, num_ids=num_ids, tail=tail) for kind in SupportKind for num_ids, tail in sizes]
    for divergence, support in itertools.product(KINDS, [*tops, FullSupport()]):
        sdpo = SDPOConfig(divergence=divergence, support=support)
        ours = fused(told(student, teacher, sdpo, entropy=0.1))
        values = [
            ours.loss,
            ours.of_hidden,
            ours.of_head,
            *(getattr(ours.scores, part.name) for part in dataclasses.fields(TokenScores)),
        ]
        assert all(value.isfinite().all() for value in values), (sdpo.divergence, sdpo.support, ours)
        assert ours.of_hidden.sum().abs() < 1e-2  # a shift of all logits changes nothing
        assert ours.scores.student_N <= 0
        assert ours.scores.entropy_N >= -1e-6
        assert ours.scores.divergence_N >= -1e-6


# Where gradients go.


def test_gradients_and_loss_have_the_types_of_what_they_belong_to():
    for dtype in DTYPES:
        ours, exact = fused(problem(dtype)), torch.float64 if dtype == torch.float64 else torch.float32
        assert (ours.of_hidden.dtype, ours.of_head.dtype, ours.loss.dtype) == (dtype, dtype, exact)
        assert {getattr(ours.scores, part.name).dtype for part in dataclasses.fields(TokenScores)} == {exact}


def test_frozen_head_gets_no_gradient_and_the_hidden_states_the_same():
    """As with LoRA; nor is a sum of the head's size made for it."""
    case, both = problem(torch.float32), fused(problem(torch.float32))
    hidden, head = leaf(case.hidden), case.head.clone()
    with Largest() as largest:
        loss, _ = run(case, hidden, head)
    loss.backward()
    assert largest.num < HEAD_ROWS * WIDTH
    assert head.grad is None
    assert torch.equal(hidden.grad, both.of_hidden)


def test_head_learns_also_when_the_hidden_states_do_not():
    case, both = problem(torch.float32), fused(problem(torch.float32))
    hidden, head = case.hidden.clone(), leaf(case.head)
    loss, _ = run(case, hidden, head)
    loss.backward()
    assert hidden.grad is None
    assert torch.equal(head.grad, both.of_head)


@pytest.mark.parametrize("granularity", list(Granularity), ids=lambda granularity: granularity.value)
def test_without_gradients_loss_and_scores_are_the_same(granularity):
    case = problem(torch.float32, sdpo=SDPOConfig(granularity=granularity, support=TopSupport(num_ids=7)))
    with_gradients = fused(case)
    detached = run(case, case.hidden, case.head)
    with torch.no_grad():
        not_recorded = run(case, leaf(case.hidden), leaf(case.head))
    for loss, scores in (detached, not_recorded):
        assert not loss.requires_grad
        torch.testing.assert_close(loss, with_gradients.loss)
        for part in dataclasses.fields(TokenScores):
            assert torch.equal(getattr(scores, part.name), getattr(with_gradients.scores, part.name))


@every_support
def test_teacher_never_gets_gradient(support):
    case = problem(sdpo=SDPOConfig(support=support))
    teacher = tuple(
        Logits(hidden_NH=leaf(part.hidden_NH), head_VH=leaf(part.head_VH), weight=part.weight) for part in case.teacher
    )
    ours = fused(dataclasses.replace(case, teacher=teacher))
    assert all(part.hidden_NH.grad is None and part.head_VH.grad is None for part in teacher)
    assert not any(getattr(ours.scores, part.name).requires_grad for part in dataclasses.fields(TokenScores))
    assert ours.of_hidden.count_nonzero() > 0


def test_head_that_is_its_own_teacher_learns_as_a_student_alone():
    """A live self-teacher reads the student's very head: what it says is held fixed."""
    case = problem()
    hidden, head = leaf(case.hidden), leaf(case.head)
    teacher = (Logits(hidden_NH=case.teacher[0].hidden_NH, head_VH=head),)
    loss, _ = run(dataclasses.replace(case, teacher=teacher), hidden, head)
    loss.backward()
    apart_ = brute(dataclasses.replace(case, teacher=(dataclasses.replace(teacher[0], head_VH=case.head),)))
    assert apart(head.grad, apart_.of_head) < 1e-12


def test_tied_embedding_gets_the_gradients_of_both_its_uses():
    case = problem()
    inputs = torch.randint(VOCABULARY, (22,), generator=torch.Generator().manual_seed(3))

    def gradients(is_fused: bool) -> list[Tensor]:
        embedding, linear = leaf(case.head), leaf(normal(WIDTH, WIDTH, seed=8))
        hidden = (embedding[inputs] @ linear).tanh()
        loss = run(case, hidden, embedding)[0] if is_fused else brute_run(case, hidden, embedding)[1].sum()
        loss.backward()
        return [embedding.grad, linear.grad]

    for ours, exact in zip(gradients(True), gradients(False), strict=True):
        assert apart(ours, exact) < 1e-12


def test_gradient_scales_with_what_comes_in():
    case, once = problem(torch.float32), fused(problem(torch.float32))
    hidden, head = leaf(case.hidden), leaf(case.head)
    loss, _ = run(case, hidden, head)
    (loss / 4 - 3 * loss).backward()
    torch.testing.assert_close(hidden.grad, -2.75 * once.of_hidden)
    torch.testing.assert_close(head.grad, -2.75 * once.of_head)


def test_gradients_of_two_micro_batches_add_up():
    case, once = problem(), fused(problem())
    hidden, head = leaf(case.hidden), leaf(case.head)
    for _ in range(2):
        run(case, hidden, head)[0].backward()
    torch.testing.assert_close(hidden.grad, 2 * once.of_hidden)
    torch.testing.assert_close(head.grad, 2 * once.of_head)


def test_second_backward_raises():
    case, hidden = problem(), leaf(problem().hidden)
    loss, _ = run(case, hidden, case.head)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="given once"):
        loss.backward()


def test_inputs_are_left_as_they_were():
    case = problem(torch.bfloat16)
    before, hidden, head = problem(torch.bfloat16), leaf(case.hidden), leaf(case.head)
    run(case, hidden, head)[0].backward()
    assert torch.equal(hidden, before.hidden)
    assert torch.equal(head, before.head)
    for part, part_before in zip(case.teacher, before.teacher, strict=True):
        assert torch.equal(part.hidden_NH, part_before.hidden_NH)
        assert torch.equal(part.head_VH, part_before.head_VH)


def test_number_format_of_other_matrix_products_is_left_as_it_was():
    products = torch.backends.mkldnn.matmul
    before, products.fp32_precision = products.fp32_precision, "ieee"
    try:
        fused(problem(torch.bfloat16))
        assert products.fp32_precision == "ieee"
    finally:
        products.fp32_precision = before


@every_dtype
def test_layout_of_the_inputs_does_not_matter(dtype):
    case = problem(dtype)
    straight = fused(case)
    hidden, head = (
        case.hidden.T.contiguous().T.requires_grad_(),
        torch.cat([case.head, case.head], -1)[:, :WIDTH].requires_grad_(),
    )
    of_hidden, of_head = torch.autograd.grad(run(case, hidden, head)[0], (hidden, head))
    assert apart(of_hidden, straight.of_hidden) < GRADIENT_TOLERANCE[dtype]
    assert apart(of_head, straight.of_head) < GRADIENT_TOLERANCE[dtype]


# Inside other machinery.


@pytest.mark.parametrize("granularity", [Granularity.logits, Granularity.sequence], ids=lambda granularity: granularity.value)
def test_gradient_is_the_same_inside_a_checkpoint(granularity):
    case = problem(sdpo=SDPOConfig(granularity=granularity, support=TopSupport(num_ids=7)))

    def gradients(is_checkpointed: bool) -> list[Tensor]:
        states, linear, head = leaf(case.hidden), leaf(normal(WIDTH, WIDTH, seed=8)), leaf(case.head)

        def loss(states: Tensor, linear: Tensor, head: Tensor) -> Tensor:
            return 2 * run(case, (states @ linear).tanh(), head)[0]

        (
            checkpoint(loss, states, linear, head, use_reentrant=False) if is_checkpointed else loss(states, linear, head)
        ).backward()
        return [states.grad, linear.grad, head.grad]

    for inside, outside in zip(gradients(True), gradients(False), strict=True):
        assert torch.equal(inside, outside)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_gradient_is_the_same_inside_a_compiled_function(backend):
    case = problem()
    comparison, budget = comparison_of(case), budget_for(case, 5)

    def loss(states: Tensor, head: Tensor) -> Tensor:
        total, _ = fused_loss(states.tanh(), head, case.ids, case.objective, comparison=comparison, budget=budget)
        return 2 * total

    def gradients(loss) -> list[Tensor]:
        states, head = leaf(case.hidden), leaf(case.head)
        loss(states, head).backward()
        return [states.grad, head.grad]

    torch._dynamo.reset()
    for compiled, eager in zip(gradients(torch.compile(loss, backend=backend)), gradients(loss), strict=True):
        torch.testing.assert_close(compiled, eager)


# Teachers.


@every_dtype
@every_support
def test_external_teacher_may_be_wider_of_another_type_and_have_more_rows(support, dtype):
    """The rows beyond the student's vocabulary, a padding, are its favourites here: read, they would change everything."""
    case = problem(dtype, sdpo=SDPOConfig(support=support))
    other = torch.float64 if dtype == torch.float64 else {torch.float32: torch.bfloat16, torch.bfloat16: torch.float32}[dtype]
    hidden, head = normal(22, 2 * WIDTH, seed=30).abs(), normal(VOCABULARY + 9, 2 * WIDTH, seed=31) / 4
    head[VOCABULARY:] = 5.0
    teacher = (Logits(hidden_NH=hidden.to(other), head_VH=head.to(other)),)
    assert_exact(dataclasses.replace(case, teacher=teacher), chunks=(5,))


def test_weights_of_teachers_mix_their_logits():
    """Two halves of one teacher are that teacher; with weight 0 a second one has no say."""
    case = problem()
    one, other = case.teacher[0], case.teacher[1]
    whole = fused(dataclasses.replace(case, teacher=(dataclasses.replace(one, weight=1.0),)))
    for teacher in (
        (dataclasses.replace(one, weight=0.3), dataclasses.replace(one, weight=0.7)),
        (dataclasses.replace(other, weight=0.0), dataclasses.replace(one, weight=1.0)),
    ):
        mixed = fused(dataclasses.replace(case, teacher=teacher))
        torch.testing.assert_close(mixed.scores.teacher_N, whole.scores.teacher_N)
        torch.testing.assert_close(mixed.of_hidden, whole.of_hidden)


@every_support
@every_divergence
def test_teacher_that_is_the_student_is_not_apart_from_it_and_does_not_pull(kind, support):
    case = problem(torch.float32, sdpo=SDPOConfig(divergence=kind, support=support))
    ours = fused(dataclasses.replace(case, teacher=(Logits(hidden_NH=case.hidden, head_VH=case.head),)))
    torch.testing.assert_close(ours.scores.student_N, ours.scores.teacher_N)
    assert ours.scores.divergence_N.abs().max() < 1e-6
    assert ours.of_hidden.abs().max() < 1e-5


# Without a teacher.


@every_dtype
def test_policy_gradient_needs_no_teacher(dtype):
    for ratio, entropy in itertools.product(RatioLevel, (0.0, 0.05)):
        case = problem(dtype, sdpo=SDPOConfig(policy_gradient=PolicyGradientConfig(ratio=ratio)), share=1.0, entropy=entropy)
        exact = brute(case)
        for chunk in (1, 5, 1000):
            alone = fused(case, chunk=chunk, with_teacher=False)
            assert max(gradient_errors(alone, exact).values()) < GRADIENT_TOLERANCE[dtype]
            assert value_errors(alone, exact)["loss"] < VALUE_TOLERANCE[dtype]
            assert alone.scores.teacher_N.count_nonzero() == alone.scores.divergence_N.count_nonzero() == 0


@every_dtype
@pytest.mark.parametrize("chunk", [1, 5, 1000])
def test_scores_of_tokens_are_a_plain_log_softmax(chunk, dtype):
    case = problem(dtype, temperature=0.7)
    scores, exact = score_tokens(case.hidden, case.head, case.ids, budget=budget_for(case, chunk)), brute(case).scores
    assert apart(scores.student_N, exact.student_N) < VALUE_TOLERANCE[dtype]
    assert apart(scores.entropy_N, exact.entropy_N) < VALUE_TOLERANCE[dtype]
    assert scores.teacher_N.count_nonzero() == scores.divergence_N.count_nonzero() == 0


def test_scores_of_tokens_are_those_seen_beside_a_teacher():
    case = problem(torch.float32)
    scores, beside = score_tokens(case.hidden, case.head, case.ids, budget=budget_for(case, 5)), fused(case).scores
    torch.testing.assert_close(scores.student_N, beside.student_N)
    torch.testing.assert_close(scores.entropy_N, beside.entropy_N)


def test_scores_of_tokens_carry_no_gradient():
    case = problem()
    scores = score_tokens(leaf(case.hidden), leaf(case.head), case.ids, budget=budget_for(case, 5))
    assert not scores.student_N.requires_grad
    assert not scores.entropy_N.requires_grad


def test_entropy_of_indifference_is_the_logarithm_of_the_vocabulary():
    case = problem(torch.float32)
    scores = score_tokens(torch.zeros_like(case.hidden), case.head, case.ids, budget=budget_for(case, 5))
    torch.testing.assert_close(scores.entropy_N, torch.full((22,), VOCABULARY).float().log())


def test_temperature_divides_the_logits():
    case = problem(torch.float32)
    warm = score_tokens(case.hidden, case.head, case.ids, budget=Budget(temperature=2.0))
    plain = score_tokens(case.hidden / 2.0, case.head, case.ids, budget=Budget())
    torch.testing.assert_close(warm.student_N, plain.student_N)
