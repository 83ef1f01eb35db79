"""From hidden states to scores: the chunks, the recomputation and the number type must not show."""

from dataclasses import fields

import pytest
import torch

from sdpo.config import Divergence, SDPOConfig, SupportConfig, SupportKind
from sdpo.objectives.divergence import divergence
from sdpo.objectives.scores import TokenScores, distillation_scores, policy_scores
from sdpo.objectives.support import buckets

TOKENS, WIDTH, VOCABULARY = 11, 8, 30
TEMPERATURE = 0.7
OBJECTIVE = SDPOConfig(support=SupportConfig(num_ids=5))
chunk_sizes = pytest.mark.parametrize("chunk", [1, 4, 11, 512])


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


HIDDEN, HEAD = normal(TOKENS, WIDTH, seed=0), normal(VOCABULARY, WIDTH, seed=1)
TEACHER_HIDDEN, TEACHER_HEAD = normal(TOKENS, WIDTH, seed=2), normal(VOCABULARY, WIDTH, seed=3)
IDS = torch.randint(VOCABULARY, (TOKENS,), generator=torch.Generator().manual_seed(4))
PULL = normal(TOKENS, seed=5)
"""An arbitrary gradient on each token's score."""


def leaves(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states and head, to be differentiated by."""
    return HIDDEN.to(dtype, copy=True).requires_grad_(), HEAD.to(dtype, copy=True).requires_grad_()


def distilled(hidden: torch.Tensor, head: torch.Tensor, chunk: int, objective: SDPOConfig = OBJECTIVE) -> TokenScores:
    return distillation_scores(
        hidden,
        head,
        TEACHER_HIDDEN.to(hidden.dtype),
        TEACHER_HEAD.to(head.dtype),
        IDS,
        objective=objective,
        temperature=TEMPERATURE,
        chunk=chunk,
    )


def pulled(scores: TokenScores) -> torch.Tensor:
    """A scalar to which both the log-probabilities and the divergences contribute."""
    return (PULL * scores.student_N).sum() + scores.divergence_N.sum()


@chunk_sizes
def test_policy_scores_are_a_plain_log_softmax(chunk):
    logprobs, entropies = policy_scores(HIDDEN, HEAD, IDS, temperature=TEMPERATURE, chunk=chunk)
    plain = ((HIDDEN.double() @ HEAD.double().T) / TEMPERATURE).log_softmax(-1)
    torch.testing.assert_close(logprobs.double(), plain[range(TOKENS), IDS], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(entropies.double(), -(plain.exp() * plain).sum(-1), rtol=1e-5, atol=1e-5)


def test_entropy_of_indifference_is_the_logarithm_of_the_vocabulary():
    _, entropies = policy_scores(torch.zeros(3, WIDTH), HEAD, IDS[:3], temperature=1.0, chunk=2)
    torch.testing.assert_close(entropies, torch.full((3,), VOCABULARY).float().log())


def test_entropy_carries_no_gradient():
    hidden, head = leaves(torch.float32)
    assert not policy_scores(hidden, head, IDS, temperature=1.0, chunk=4)[1].requires_grad
    assert not distilled(hidden, head, chunk=4).entropy_N.requires_grad


def test_temperature_divides_the_logits():
    warm, _ = policy_scores(HIDDEN, HEAD, IDS, temperature=2.0, chunk=4)
    plain, _ = policy_scores(HIDDEN / 2.0, HEAD, IDS, temperature=1.0, chunk=4)
    torch.testing.assert_close(warm, plain)


@chunk_sizes
def test_checkpointed_policy_gradient_is_the_direct_one(chunk):
    hidden, head = leaves(torch.float32)
    logprobs, _ = policy_scores(hidden, head, IDS, temperature=TEMPERATURE, chunk=chunk)
    ours = torch.autograd.grad((PULL * logprobs).sum(), (hidden, head))
    plain = (hidden @ head.T / TEMPERATURE).log_softmax(-1)[range(TOKENS), IDS]
    direct = torch.autograd.grad((PULL * plain).sum(), (hidden, head))
    for ours_part, direct_part in zip(ours, direct, strict=True):
        torch.testing.assert_close(ours_part, direct_part, rtol=1e-5, atol=1e-6)


@chunk_sizes
@pytest.mark.parametrize("kind", list(Divergence), ids=lambda kind: kind.value)
@pytest.mark.parametrize("support", list(SupportKind), ids=lambda support: support.value)
def test_checkpointed_distillation_is_the_direct_one(chunk, kind, support):
    objective = SDPOConfig(divergence=kind, jsd_beta=0.3, support=SupportConfig(kind=support, num_ids=5))
    hidden, head = leaves(torch.float32)
    scores = distilled(hidden, head, chunk, objective)
    ours = torch.autograd.grad(pulled(scores), (hidden, head))

    student = (hidden @ head.T / TEMPERATURE).log_softmax(-1)
    teacher = (TEACHER_HIDDEN @ TEACHER_HEAD.T / TEMPERATURE).log_softmax(-1)
    apart = divergence(*buckets(student, teacher, objective.support), kind, 0.3)
    own = student[range(TOKENS), IDS]
    direct = torch.autograd.grad((PULL * own).sum() + apart.sum(), (hidden, head))

    torch.testing.assert_close(scores.divergence_N, apart, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(scores.teacher_N, teacher[range(TOKENS), IDS], rtol=1e-5, atol=1e-6)
    for ours_part, direct_part in zip(ours, direct, strict=True):
        torch.testing.assert_close(ours_part, direct_part, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("dtype", "value_tolerance", "gradient_tolerance"),
    [(torch.float32, 1e-6, 1e-6), (torch.bfloat16, 0.02, 0.02)],
    ids=["fp32", "bf16"],
)
def test_chunk_size_changes_neither_value_nor_gradient(dtype, value_tolerance, gradient_tolerance):
    def everything(chunk: int) -> list[torch.Tensor]:
        hidden, head = leaves(dtype)
        scores = distilled(hidden, head, chunk)
        gradients = torch.autograd.grad(pulled(scores), (hidden, head))
        return [getattr(scores, field.name).detach() for field in fields(scores)], [g.float() for g in gradients]

    whole_values, whole_gradients = everything(TOKENS)
    for chunk in (1, 3, 4):
        values, gradients = everything(chunk)
        for value, whole in zip(values, whole_values, strict=True):
            assert value.dtype == torch.float32
            torch.testing.assert_close(value, whole, rtol=value_tolerance, atol=value_tolerance)
        for gradient, whole in zip(gradients, whole_gradients, strict=True):
            assert (gradient - whole).norm() <= gradient_tolerance * whole.norm()


def test_bf16_scores_are_those_of_bf16_logits_with_an_fp32_softmax():
    """As the engine computes them; a bf16 softmax would be wrong in the second digit."""
    hidden, head = HIDDEN.bfloat16(), HEAD.bfloat16()
    logprobs, entropies = policy_scores(hidden, head, IDS, temperature=TEMPERATURE, chunk=4)
    plain = ((hidden @ head.T).double() / TEMPERATURE).log_softmax(-1)
    torch.testing.assert_close(logprobs.double(), plain[range(TOKENS), IDS], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(entropies.double(), -(plain.exp() * plain).sum(-1), rtol=1e-5, atol=1e-5)


def test_student_scores_beside_a_teacher_are_the_policys():
    scores = distilled(HIDDEN, HEAD, chunk=4)
    logprobs, entropies = policy_scores(HIDDEN, HEAD, IDS, temperature=TEMPERATURE, chunk=4)
    torch.testing.assert_close(scores.student_N, logprobs)
    torch.testing.assert_close(scores.entropy_N, entropies)


def test_teacher_with_the_students_states_is_not_apart_from_it():
    scores = distillation_scores(HIDDEN, HEAD, HIDDEN, HEAD, IDS, objective=OBJECTIVE, temperature=TEMPERATURE, chunk=4)
    assert torch.equal(scores.student_N, scores.teacher_N)
    assert scores.divergence_N.abs().max() < 1e-6


def test_teacher_gets_no_gradient():
    hidden, head = leaves(torch.float32)
    teacher_hidden, teacher_head = TEACHER_HIDDEN.clone().requires_grad_(), TEACHER_HEAD.clone().requires_grad_()
    scores = distillation_scores(
        hidden, head, teacher_hidden, teacher_head, IDS, objective=OBJECTIVE, temperature=TEMPERATURE, chunk=4
    )
    pulled(scores).backward()
    assert teacher_hidden.grad is None
    assert teacher_head.grad is None
    assert hidden.grad is not None
    assert not scores.teacher_N.requires_grad


def test_without_gradients_the_scores_are_the_same():
    hidden, head = leaves(torch.float32)
    with_gradient = distilled(hidden, head, chunk=4)
    with torch.no_grad():
        without = distilled(hidden, head, chunk=4)
    assert torch.equal(with_gradient.divergence_N, without.divergence_N)
    assert not without.student_N.requires_grad


def test_head_learns_also_when_the_hidden_states_do_not():
    """The head is not among the checkpointed inputs; its gradient must not depend on whether theirs is wanted."""
    hidden, head = leaves(torch.float32)
    (alone,) = torch.autograd.grad(pulled(distilled(hidden.detach(), head, chunk=4)), (head,))
    (beside,) = torch.autograd.grad(pulled(distilled(hidden, head, chunk=4)), (head,))
    torch.testing.assert_close(alone, beside)


def test_no_tokens_give_no_scores():
    scores = distillation_scores(
        HIDDEN[:0], HEAD, TEACHER_HIDDEN[:0], TEACHER_HEAD, IDS[:0], objective=OBJECTIVE, temperature=1.0, chunk=4
    )
    assert all(getattr(scores, field.name).shape == (0,) for field in fields(scores))


def test_no_logits_are_kept_for_the_backward():
    kept: list[int] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.numel())
        return tensor

    hidden, head = leaves(torch.float32)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        distilled(hidden, head, chunk=10)
    assert max(kept, default=0) < 10 * VOCABULARY


def test_gradient_is_finite_for_a_student_that_is_sure_and_a_teacher_that_disagrees():
    hidden = torch.tensor([[300.0, 0.0]], requires_grad=True)
    head = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]], requires_grad=True)
    for kind in Divergence:
        objective = SDPOConfig(divergence=kind, support=SupportConfig(num_ids=2))
        scores = distillation_scores(
            hidden,
            head,
            torch.tensor([[-300.0, 0.0]]),
            head.detach(),
            torch.tensor([0]),
            objective=objective,
            temperature=1.0,
            chunk=1,
        )
        assert scores.divergence_N.isfinite().all()
        gradients = torch.autograd.grad(scores.divergence_N.sum(), (hidden, head))
        assert all(gradient.isfinite().all() for gradient in gradients)
