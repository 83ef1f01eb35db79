"""What a model does to ``hidden @ head.T`` before it calls it logits: the fused losses and gradients against autograd's."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from sdpo.config import FullSupport, Granularity, SDPOConfig, SupportConfig, SupportKind, TopSupport
from sdpo.objectives import plain
from sdpo.objectives.comparison import Comparison
from sdpo.objectives.divergence import divergence_of
from sdpo.objectives.fused import fused_loss, score_tokens
from sdpo.objectives.logits import CLOSED, PLAIN, Budget, HeadRule, Logits, follow
from sdpo.objectives.scores import TokenScores
from sdpo.objectives.top_tokens import top_tokens
from tests.objectives.kinds import KINDS
from tests.objectives.test_fused import (
    VOCABULARY,
    WIDTH,
    Problem,
    apart,
    brute_buckets,
    brute_divergence,
    brute_losses,
    budget_for,
    leaf,
    normal,
    plain_log_softmax,
    problem,
)

BIAS = normal(VOCABULARY, seed=50)
FEW = torch.arange(VOCABULARY) % 5 == 3
RULES = {
    "bias (Phi)": HeadRule(bias_V=BIAS),
    "scale (Cohere, Granite)": HeadRule(scale=0.3),
    "soft cap (Gemma 2, NanoChat)": HeadRule(soft_cap=1.5),
    "closed ids": HeadRule(closed_V=FEW),
    "all at once": HeadRule(bias_V=BIAS, scale=1.7, soft_cap=2.0, closed_V=FEW),
}
SUPPORTS: dict[str, SupportConfig] = {
    "student's": TopSupport(num_ids=7),
    "teacher's": TopSupport(kind=SupportKind.teacher, num_ids=7),
    "renormalised": TopSupport(num_ids=7, tail=False),
    "more than are open": TopSupport(num_ids=VOCABULARY - 3),
    "all": FullSupport(),
}
every_rule = pytest.mark.parametrize("rule", RULES.values(), ids=list(RULES))
every_support = pytest.mark.parametrize("support", SUPPORTS.values(), ids=list(SUPPORTS))


def ruled(product_NV: Tensor, rule: HeadRule, bias: Tensor | None) -> Tensor:
    """As the models write it."""
    logits_NV = product_NV if bias is None else product_NV + bias[: product_NV.shape[1]]
    logits_NV = logits_NV * rule.scale
    if rule.soft_cap is not None:
        logits_NV = rule.soft_cap * torch.tanh(logits_NV / rule.soft_cap)
    return logits_NV if rule.closed_V is None else logits_NV.masked_fill(rule.closed_V[: product_NV.shape[1]], -math.inf)


def taught_by(case: Problem, rule: HeadRule) -> Problem:
    """The case with a teacher that follows the rule too, and sampled tokens that are open."""
    teacher = tuple(dataclasses.replace(part, rule=rule) for part in case.teacher)
    ids = torch.where(FEW[case.ids], case.ids - 1, case.ids)
    return dataclasses.replace(case, teacher=teacher, ids=ids)


def brute(case: Problem, rule: HeadRule) -> tuple[Tensor, list[Tensor], TokenScores]:
    """The loss, its gradients by hidden states, head and bias, and the scores: autograd's, from whole logits."""
    hidden, head = leaf(case.hidden), leaf(case.head)
    bias = None if rule.bias_V is None else leaf(rule.bias_V)
    student_NV = plain_log_softmax(ruled(hidden @ head.T, rule, bias) / case.temperature)
    parts = [part.weight * ruled(part.hidden_NH @ part.head_VH.T, rule, rule.bias_V) for part in case.teacher]
    teacher_NV = plain_log_softmax(sum(parts[1:], start=parts[0]) / case.temperature)
    sdpo, every = case.objective.sdpo, torch.arange(len(hidden))
    # The formulas know no -inf: 0 · (-inf) is no number. exp(-1e4) is 0 in fp64.
    student_NV, teacher_NV = (part.clamp(min=-1e4) for part in (student_NV, teacher_NV))
    student_NK, teacher_NK = brute_buckets(student_NV, teacher_NV, sdpo.support)
    scores = TokenScores(
        student_N=student_NV[every, case.ids],
        teacher_N=teacher_NV[every, case.ids],
        entropy_N=-(student_NV.exp() * student_NV).sum(-1),
        teacher_entropy_N=-(teacher_NK.exp() * teacher_NK).sum(-1),
        divergence_N=brute_divergence(student_NK, teacher_NK, sdpo.divergence, sdpo.jsd_beta),
    )
    values_N, minimised_N = brute_losses(scores, case.objective)
    leaves = [hidden, head] + ([] if bias is None else [bias])
    return values_N.sum().detach(), list(torch.autograd.grad(minimised_N.sum(), leaves)), scores


def fused(case: Problem, rule: HeadRule) -> tuple[Tensor, list[Tensor], TokenScores]:
    hidden, head = leaf(case.hidden), leaf(case.head)
    bias = None if rule.bias_V is None else leaf(rule.bias_V.to(case.hidden.dtype))
    sdpo = case.objective.sdpo
    comparison = Comparison(
        teacher=case.teacher, support=sdpo.support, divergence=divergence_of(sdpo), pointwise_clip=sdpo.pointwise_clip
    )
    loss, scores = fused_loss(
        hidden,
        head,
        case.ids,
        case.objective,
        comparison=comparison,
        budget=budget_for(case, 5),
        rule=dataclasses.replace(rule, bias_V=bias),
    )
    leaves = [hidden, head] + ([] if bias is None else [bias])
    return loss.detach(), list(torch.autograd.grad(loss, leaves)), scores


def assert_as_autograd(case: Problem, rule: HeadRule, tolerance: float = 1e-10) -> None:
    total, gradients, scores = fused(case, rule)
    exact, exact_gradients, exact_scores = brute(case, rule)
    assert total.item() == pytest.approx(exact.item(), rel=tolerance, abs=tolerance)
    for name in ("student_N", "entropy_N", "teacher_N", "divergence_N"):
        torch.testing.assert_close(getattr(scores, name), getattr(exact_scores, name), rtol=tolerance, atol=tolerance)
    assert len(gradients) == len(exact_gradients)
    for found, expected in zip(gradients, exact_gradients, strict=True):
        assert apart(found, expected) < tolerance


@every_rule
@every_support
def test_losses_and_gradients_through_a_rule_are_those_of_whole_logits(rule: HeadRule, support: SupportConfig) -> None:
    """The learner took ``hidden @ head.T`` for the logits of every model. It was off by 3.5 nats for Phi and 6 for Cohere."""
    case = problem(sdpo=SDPOConfig(support=support, divergence="jsd", jsd_beta=0.3), share=0.3, entropy=0.05, temperature=0.7)
    assert_as_autograd(taught_by(case, rule), rule)


@pytest.mark.parametrize(
    "sdpo",
    [
        *(SDPOConfig(divergence=kind, jsd_beta=0.3, support=TopSupport(num_ids=7)) for kind in KINDS),
        *(SDPOConfig(granularity=granularity) for granularity in (Granularity.token, Granularity.sequence)),
    ],
    ids=lambda sdpo: f"{sdpo.divergence} {sdpo.granularity.value}",
)
def test_every_divergence_and_granularity_goes_through_the_rule(sdpo: SDPOConfig) -> None:
    """Whole rows are walked over twice; the second walk needs the soft cap's derivatives again."""
    rule = RULES["all at once"]
    case = problem(sdpo=sdpo, entropy=0.1)
    assert_as_autograd(taught_by(case, rule), rule)


@every_rule
def test_in_bf16_a_rule_costs_no_more_precision_than_the_product(rule: HeadRule) -> None:
    case = problem(torch.bfloat16, sdpo=SDPOConfig(support=TopSupport(num_ids=7)), entropy=0.05)
    narrow = dataclasses.replace(rule, bias_V=None if rule.bias_V is None else rule.bias_V.bfloat16())
    case = taught_by(case, narrow)
    total, gradients, _ = fused(case, narrow)
    exact_rule = dataclasses.replace(narrow, bias_V=None if narrow.bias_V is None else narrow.bias_V.double())
    teacher = tuple(
        Logits(hidden_NH=part.hidden_NH.double(), head_VH=part.head_VH.double(), weight=part.weight) for part in case.teacher
    )
    wide = dataclasses.replace(case, hidden=case.hidden.double(), head=case.head.double(), teacher=teacher)
    exact, exact_gradients, _ = brute(wide, exact_rule)
    assert total.item() == pytest.approx(exact.item(), rel=1e-5, abs=1e-5)
    for found, expected in zip(gradients, exact_gradients, strict=True):
        assert found.dtype == torch.bfloat16
        assert apart(found.double(), expected) < 1e-2


@every_rule
def test_scores_and_top_tokens_follow_the_rule(rule: HeadRule) -> None:
    case = taught_by(problem(), rule)
    logits_NV = ruled(case.hidden @ case.head.T, rule, rule.bias_V)
    expected_N = logits_NV.log_softmax(-1).gather(-1, case.ids[:, None])[:, 0]
    found = score_tokens(case.hidden, case.head, case.ids, budget=budget_for(case, 5), rule=rule)
    torch.testing.assert_close(found.student_N, expected_N)
    part = Logits(hidden_NH=case.hidden, head_VH=case.head, rule=rule)
    top = top_tokens([part], VOCABULARY, 4, budget=budget_for(case, 5))
    values, ids = logits_NV.log_softmax(-1).topk(4)
    assert torch.equal(top.ids_nk, ids)
    torch.testing.assert_close(top.logprobs_nk, values.float())


def test_a_teacher_with_more_ids_follows_its_rule_for_those_of_the_student() -> None:
    rows = VOCABULARY + 4
    rule = HeadRule(bias_V=normal(rows, seed=60), closed_V=torch.arange(rows) % 5 == 3)
    case, of_all = problem(), normal(rows, WIDTH, seed=61)
    wider = Logits(hidden_NH=case.hidden, head_VH=of_all, rule=rule)
    assert rule.bias_V is not None
    assert rule.closed_V is not None
    cut = HeadRule(bias_V=rule.bias_V[:VOCABULARY], closed_V=rule.closed_V[:VOCABULARY])
    narrow = Logits(hidden_NH=case.hidden, head_VH=of_all[:VOCABULARY], rule=cut)
    found, expected = (fused(dataclasses.replace(case, teacher=(teacher,)), PLAIN)[2].divergence_N for teacher in (wider, narrow))
    assert torch.equal(found, expected)


def test_a_rule_of_another_vocabulary_is_refused() -> None:
    case = problem()
    with pytest.raises(ValueError, match="a value for each of its 61 ids; got 60"):
        score_tokens(case.hidden, case.head, case.ids, budget=Budget(), rule=HeadRule(bias_V=BIAS[1:]))


def test_the_plain_rule_touches_nothing() -> None:
    logits_NV = normal(3, VOCABULARY, seed=1)
    before = logits_NV.clone()
    assert PLAIN.is_plain
    follow(PLAIN, logits_NV)
    assert torch.equal(logits_NV, before)


def test_a_closed_id_has_no_chance() -> None:
    assert math.exp(CLOSED) == 0.0


# Logits of -inf that come out of the product itself.


def masking(case: Problem, value: float) -> Problem:
    """The case with one more feature, which is 1 in every hidden state: the head adds ``value`` to every fifth logit by it."""

    def with_one(hidden: Tensor) -> Tensor:
        return torch.cat([hidden, torch.ones_like(hidden[:, :1])], dim=-1)

    added = torch.zeros(VOCABULARY, 1, dtype=case.head.dtype).masked_fill(FEW[:, None], value)
    teacher = tuple(
        Logits(hidden_NH=with_one(part.hidden_NH), head_VH=torch.cat([part.head_VH, added], -1), weight=part.weight)
        for part in case.teacher
    )
    ids = torch.where(FEW[case.ids], case.ids - 1, case.ids)
    return dataclasses.replace(
        case, hidden=with_one(case.hidden), head=torch.cat([case.head, added], -1), teacher=teacher, ids=ids
    )


@pytest.mark.parametrize("value", [-math.inf, -1e30, -1e9], ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@every_support
@pytest.mark.parametrize("kind", KINDS)
def test_masked_logits_are_those_of_ids_that_are_not_there(
    kind: str, support: SupportConfig, dtype: torch.dtype, value: float
) -> None:
    """Logits of -inf made losses, entropies and gradients NaN."""
    case = problem(dtype, sdpo=SDPOConfig(support=support, divergence=kind, jsd_beta=0.3), share=0.3, entropy=0.05)
    masked = masking(case, value)
    closed = taught_by(case, HeadRule(closed_V=FEW))
    total, gradients, scores = fused(masked, PLAIN)
    expected, expected_gradients, expected_scores = fused(closed, HeadRule(closed_V=FEW))
    near = 1e-10 if dtype == torch.float64 else 2e-5
    assert total.item() == pytest.approx(expected.item(), rel=near, abs=near)
    for name in ("student_N", "entropy_N", "teacher_N", "divergence_N"):
        torch.testing.assert_close(getattr(scores, name), getattr(expected_scores, name), rtol=near, atol=near)
    by_head, expected_by_head = gradients[1][:, :WIDTH], expected_gradients[1]
    assert by_head.isfinite().all()
    assert by_head[FEW].abs().max() == 0.0
    assert apart(by_head, expected_by_head) < near


@pytest.mark.parametrize("support", [TopSupport(num_ids=7), TopSupport(num_ids=VOCABULARY - 3), FullSupport()], ids=str)
@pytest.mark.parametrize("kind", ["reverse_kl", "forward_kl", "jsd"])
def test_the_plain_losses_know_excluded_ids_as_well(kind: str, support: SupportConfig) -> None:
    """They were NaN, and so was their gradient."""
    sdpo = SDPOConfig(support=support, divergence=kind, jsd_beta=0.3, entropy_weight=0.5)
    logits = [normal(4, VOCABULARY, seed=seed).masked_fill(FEW, -math.inf) for seed in (0, 1)]
    ids, zeros = torch.tensor([0, 1, 2, 4]), torch.zeros(4, dtype=torch.float64)
    for_all, for_open = [], []
    for found, pick in ((for_all, slice(None)), (for_open, ~FEW)):
        student = leaf(logits[0][:, pick])
        open_ids = ids if isinstance(pick, slice) else (~FEW).cumsum(0)[ids] - 1
        losses = plain.distillation(
            student.log_softmax(-1), logits[1][:, pick].log_softmax(-1), open_ids, zeros - 3.0, zeros - 3.0, sdpo
        )
        entropy = plain.entropy(student.log_softmax(-1))
        gradient = torch.autograd.grad((losses + entropy).sum(), student)[0]
        found += [losses.detach(), entropy.detach(), gradient]
    for_all[2] = for_all[2][:, ~FEW]
    for found_of_all, found_of_open in zip(for_all, for_open, strict=True):
        torch.testing.assert_close(found_of_all, found_of_open)
