"""Whole updates, from groups to gradients, against SRPO's equations and SDPO's normalisations, however they are split."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Sequence
from typing import cast

import pytest
import torch
from torch import Tensor

from sdpo.batches.samples import training_samples
from sdpo.batches.updates import pack
from sdpo.config import (
    BySuccessAndHint,
    Normalisation,
    PolicyGradientConfig,
    SDPOConfig,
    TopSupport,
)
from sdpo.hindsight.hints import hint_of
from sdpo.learner.loss import OldLogprobs, micro_batch_loss, teacher_entropies
from sdpo.objectives.distillation import certainty
from sdpo.objectives.logits import Budget, Logits
from sdpo.protocols import Renderer
from sdpo.types import Attempt, Completion, Finish, Group, Hint, Message, MicroBatch, Role, Sample, Task, Update, Verdict
from tests.batches.test_updates import (
    CHUNK_MIB,
    SCALE,
    TEACHER,
    VOCABULARY,
    Model,
    batch_config,
    hidden_of_pack,
    logprobs,
    micro_batches,
    parameters,
    ranks,
)
from tests.objectives.oracle import divergences, policy_gradients, updates

SRPO = SDPOConfig(
    divergence="jsd",
    support=TopSupport(num_ids=4),
    entropy_weight=1.0,
    normalisation=Normalisation.joint,
    routing=BySuccessAndHint(),
    policy_gradient=PolicyGradientConfig(divide_by_std=True, clip_ratio_c=3.0),
)
"""conf/algorithm/srpo.yaml with a support for this vocabulary, and the dual clip."""
BEHIND = 0.5
"""Nats that the old log-probabilities lie below today's: enough to be clipped."""


class Renders:
    """A hindsight prompt is as long as its demonstration."""

    def prompt(self, task: Task) -> tuple[int, ...]:
        return (1,)

    def hindsight_prompt(self, task: Task, hint: Hint) -> tuple[int, ...]:
        return tuple(ord(letter) % VOCABULARY for letter in hint.of("demonstration") or "")


RENDERER = cast(Renderer, Renders())


def groups(seed: int) -> tuple[list[Group], list[list[Hint | None]]]:
    """Four groups of four: solved and failed, with and without a hint, one where nobody has either."""
    draw = random.Random(seed)
    made, hints = [], []
    for index in range(4):
        attempts = []
        for place in range(4):
            ids = tuple(draw.randrange(VOCABULARY) for _ in range(draw.randint(1, 9)))
            reward = 0.0 if index == 3 else float((place + index) % 3 == 0)
            completion = Completion(
                token_ids=ids,
                logprobs=tuple(-draw.randint(1, 32) / 8 for _ in ids),
                text="",
                finish=Finish.stop,
                weights_version=0,
                own_mask=(True, *(draw.random() < 0.8 for _ in ids[1:])),
            )
            attempts.append(Attempt(completion=completion, verdict=Verdict(reward=reward)))
        task = Task(id=f"{index}", env="letters", messages=(Message(role=Role.user, content="?"),))
        made.append(Group(task=task, prompt_ids=(index, 5), attempts=tuple(attempts)))
        hint = hint_of(demonstration="abcdef"[: 3 + index], feedback=None)
        hints.append([hint if index != 3 and place != 1 else None for place in range(4)])
    return made, hints


def attempt_of(model: Model, sample: Sample, *, algorithm: SDPOConfig) -> updates.Attempt:
    """What the formulas ask of a sample, from whole rows of log-probabilities."""
    student_RV = logprobs(model, sample.prompt_ids, sample.response_ids)
    ids = torch.tensor(sample.response_ids)[:, None]
    student_R = student_RV.gather(-1, ids)[:, 0]
    old_R = student_R.detach() - BEHIND
    rollout_R = (old_R - torch.tensor(sample.sampled_logprobs, dtype=torch.float64)).exp().clamp(max=2.0)
    teacher_RV = logprobs(TEACHER, sample.teacher_prompt_ids or (0,), sample.response_ids)
    top = student_RV.detach().topk(4, dim=-1).indices
    sides = []
    for side in (student_RV, teacher_RV):
        inside = side.gather(-1, top)
        sides.append(torch.cat([inside, (1.0 - inside.exp().sum(-1, keepdim=True)).log()], -1))
    apart_R = divergences.terms(sides[0], sides[1], algorithm.divergence).sum(-1)
    advantage = torch.tensor(sample.advantage, dtype=torch.float64)
    dual = algorithm.policy_gradient.clip_ratio_c
    return updates.Attempt(
        mask=torch.tensor(sample.loss_mask),
        is_solved=sample.is_solved,
        has_hint=sample.teacher_prompt_ids is not None,
        distilled=min(torch.tensor(BEHIND).exp().item(), 2.0) * rollout_R * apart_R,
        entropy=-(teacher_RV.exp() * teacher_RV).sum(-1),
        reinforced=rollout_R * policy_gradients.clipped(student_R - old_R, advantage, low=0.2, high=0.28, dual=dual),
    )


def learned(model: Model, samples: Sequence[Sample], algorithm: SDPOConfig, *, budget: int, num_ranks: int) -> Tensor:
    """The update's loss, summed over the micro-batches of all ranks, as the learner's ranks compute it."""
    (update,) = pack(samples, batch_config(budget), ranks(num_ranks), algorithm)
    batches = micro_batches(update)
    entropies: list[Tensor | None] = [None] * len(batches)
    if algorithm.entropy_weight:
        said = [entropy_of(batch, algorithm) for batch in batches]
        entropies = [certainty(part, torch.cat(said), algorithm.entropy_weight) for part in said]
    return sum(
        (loss_of(model, batch, update, algorithm, part) for batch, part in zip(batches, entropies, strict=True)),
        start=torch.zeros((), dtype=torch.float64),
    )


def teacher_of(batch: MicroBatch) -> list[Logits]:
    return [Logits(hidden_NH=hidden_of_pack(TEACHER, batch.teacher), head_VH=TEACHER[1])]


def entropy_of(batch: MicroBatch, algorithm: SDPOConfig) -> Tensor:
    mine_n, budget = torch.arange(len(batch.rows_N)), Budget(temperature=SCALE.temperature, chunk_mib=CHUNK_MIB)
    return teacher_entropies(teacher_of(batch), batch, mine_n, VOCABULARY, algorithm, budget)


def loss_of(model: Model, batch: MicroBatch, update: Update, algorithm: SDPOConfig, certainty_m: Tensor | None) -> Tensor:
    hidden_nH, ids_n1 = hidden_of_pack(model, batch.student), batch.response_ids_N[:, None]
    now_n = (hidden_nH @ model[1].T / SCALE.temperature).log_softmax(-1).gather(-1, ids_n1)[:, 0].detach()
    loss, _ = micro_batch_loss(
        hidden_nH,
        model[1],
        teacher_of(batch),
        batch,
        torch.arange(len(batch.rows_N)),
        OldLogprobs(old_n=now_n - BEHIND, reference_n=None),
        update,
        algorithm,
        SCALE,
        CHUNK_MIB,
        certainty_m=certainty_m,
    )
    return loss


def check(algorithm: SDPOConfig, formula: Callable[[Sequence[updates.Attempt]], Tensor], *, rel: float = 1e-6) -> None:
    """Loss and gradient of an update are the formula's, in every way to split it. Row weights are fp32."""
    made, hints = groups(seed=3)
    samples = training_samples(made, hints, RENDERER, algorithm, 16)
    embedding, head = parameters(0)
    model = embedding.requires_grad_(), head.requires_grad_()
    exact = formula([attempt_of(model, sample, algorithm=algorithm) for sample in samples])
    gradients = torch.autograd.grad(exact, model)
    assert max(float(gradient.abs().max()) for gradient in gradients) > 1e-3
    for budget, num_ranks in ((1, 1), (60, 4), (10_000, 2)):
        loss = learned(model, samples, algorithm, budget=budget, num_ranks=num_ranks)
        assert loss.item() == pytest.approx(exact.item(), rel=rel)
        for ours, right in zip(torch.autograd.grad(loss, model), gradients, strict=True):
            torch.testing.assert_close(ours, right, rtol=rel, atol=1e-8)


@pytest.mark.parametrize("beta", [0.0, 1.0, 3.0])
def test_srpo_is_its_equations(beta: float) -> None:
    """Its distillation was a tenth of the paper's and its policy gradient three times that, and failures without a hint were
    left out."""
    check(dataclasses.replace(SRPO, entropy_weight=beta), lambda attempts: updates.srpo(attempts, beta))


def test_the_papers_normalisation_is_its_equation() -> None:
    algorithm = SDPOConfig(divergence="jsd", support=TopSupport(num_ids=4), normalisation=Normalisation.paper)
    check(algorithm, updates.paper)


@pytest.mark.parametrize("num_ranks", [1, 2, 4])
def test_the_authors_normalisation_is_what_their_loop_accumulates_on_any_number_of_their_ranks(num_ranks: int) -> None:
    """Ours on 1, 2 and 4 ranks of our own, in micro-batches of one row and of all: D/(B·n) does not depend on them."""
    algorithm = SDPOConfig(divergence="jsd", support=TopSupport(num_ids=4), normalisation=Normalisation.authors)
    check(algorithm, lambda attempts: updates.authors(attempts, num_ranks=num_ranks))


def test_the_normalisations_differ_where_lengths_and_hints_do() -> None:
    """Or the three tests above would say the same."""
    made, hints = groups(seed=3)
    model = parameters(0)
    samples = training_samples(made, hints, RENDERER, SDPOConfig(), 16)
    attempts = [attempt_of(model, sample, algorithm=SDPOConfig(divergence="jsd")) for sample in samples]
    found = [updates.paper(attempts), updates.authors(attempts, num_ranks=2), updates.srpo(attempts, 1.0)]
    assert len({round(float(value), 3) for value in found}) == 3
