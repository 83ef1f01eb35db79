"""The loss of one micro-batch, and the sums behind its metrics."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from sdpo.batching import policy_gradient_share
from sdpo.config import AlgorithmConfig, SDPOConfig
from sdpo.learner.forward import head, response_hidden, response_ids, row_of_token
from sdpo.objectives.distillation import distillation_loss
from sdpo.objectives.policy_gradient import mean_weights, policy_gradient_loss
from sdpo.objectives.scores import TokenScores, distillation_scores, policy_scores
from sdpo.types import MicroBatch, Update

SUMS = (
    "loss",
    "distillation",
    "policy_gradient",
    "divergence",
    "credit",
    "entropy",
    "mismatch",
    "distilled",
    "learned",
)
"""What is summed over the tokens that were learned from, in the order of the vector that micro_batch_loss returns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """What the learner knows and a micro-batch does not."""

    temperature: float
    max_response_tokens: int
    logits_chunk_tokens: int


def micro_batch_loss(
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    batch: MicroBatch,
    old_N: Tensor | None,
    update: Update,
    algorithm: AlgorithmConfig,
    scale: Scale,
) -> tuple[Tensor, Tensor]:
    """The micro-batch's share of the update's loss (a sum over its tokens, over the update's global counts), and ``SUMS``, a
    float64 vector on the CPU, to be added over micro-batches and ranks.

    ``old_N``: what the policy said before the step's first update; None where this is the first and only one, so that it is
    what the policy says now.
    """
    device = student.device
    hidden_NH = response_hidden(student, batch.student_ids_T, batch.student_offsets, batch.num_response_tokens_B)
    share = policy_gradient_share(algorithm)
    distilled_N = batch.distilled_N.to(device)
    learned_N = batch.loss_mask_N.to(device) & (distilled_N | (share > 0.0))
    scores = _scores(student, teacher, batch, hidden_NH, distilled_N, learned_N & ~distilled_N, algorithm, scale)

    rows_N = row_of_token(batch.num_response_tokens_B, device)
    sampled_N = batch.sampled_logprobs_N.to(device)
    old_N = scores.student_N.detach() if old_N is None else old_N.to(device)
    # Every parameter is in every rank's backward, also where there is no token to learn from: ranks reduce in step.
    loss = (hidden_NH.float().sum() + head(student)[:1].float().sum()) * 0.0
    distillation = torch.zeros((), device=device)
    policy_gradient = torch.zeros((), device=device)
    if isinstance(algorithm, SDPOConfig) and share < 1.0:
        pick = distilled_N
        tokens = distillation_loss(
            _picked(scores, pick),
            old_N[pick],
            sampled_N[pick],
            batch.weights_N.to(device)[pick],
            rows_N[pick],
            algorithm,
        )
        distillation = tokens.sum() / max(update.num_distilled_tokens, 1)
        loss = loss + (1.0 - share) * distillation
    if share > 0.0:
        pick = batch.loss_mask_N.to(device)
        tokens = policy_gradient_loss(
            scores.student_N[pick],
            old_N[pick],
            sampled_N[pick],
            batch.advantages_N.to(device)[pick],
            rows_N[pick],
            algorithm.policy_gradient,
        )
        factors = mean_weights(
            rows_N[pick],
            algorithm.policy_gradient.mean,
            num_loss_tokens=update.num_loss_tokens,
            num_rows=update.num_rows,
            max_response_tokens=scale.max_response_tokens,
        )
        policy_gradient = (tokens * factors).sum()
        loss = loss + share * policy_gradient
    log_ratio_N = scores.student_N.detach() - sampled_N
    mismatch_N = log_ratio_N.exp() - log_ratio_N - 1.0
    sums = torch.stack(
        [
            loss.detach(),
            distillation.detach(),
            policy_gradient.detach(),
            scores.divergence_N.detach()[distilled_N].sum(),
            (scores.teacher_N - scores.student_N.detach())[distilled_N].sum(),
            scores.entropy_N[learned_N].sum(),
            mismatch_N[learned_N].sum(),
            distilled_N.sum(),
            learned_N.sum(),
        ]
    )
    return loss, sums.double().cpu()


def _scores(
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    batch: MicroBatch,
    hidden_NH: Tensor,
    distilled_N: Tensor,
    plain_N: Tensor,
    algorithm: AlgorithmConfig,
    scale: Scale,
) -> TokenScores:
    """Over all N response tokens; 0 where a token is neither distilled nor has a plain policy-gradient loss."""
    device = student.device
    ids_N = response_ids(batch).to(device)
    student_N = torch.zeros(ids_N.shape, device=device)
    entropy_N, teacher_N, divergence_N = student_N.clone(), student_N.clone(), student_N.clone()
    if bool(plain_N.any()):
        logprobs, entropies = policy_scores(
            hidden_NH[plain_N],
            head(student),
            ids_N[plain_N],
            temperature=scale.temperature,
            chunk=scale.logits_chunk_tokens,
        )
        student_N = student_N.masked_scatter(plain_N, logprobs)
        entropy_N = entropy_N.masked_scatter(plain_N, entropies)
    if isinstance(algorithm, SDPOConfig) and bool(distilled_N.any()):
        part = distillation_scores(
            hidden_NH[distilled_N],
            head(student),
            _teacher_hidden(teacher, batch, distilled_N),
            head(teacher),
            ids_N[distilled_N],
            objective=algorithm,
            temperature=scale.temperature,
            chunk=scale.logits_chunk_tokens,
        )
        student_N = student_N.masked_scatter(distilled_N, part.student_N)
        entropy_N = entropy_N.masked_scatter(distilled_N, part.entropy_N)
        teacher_N = teacher_N.masked_scatter(distilled_N, part.teacher_N)
        divergence_N = divergence_N.masked_scatter(distilled_N, part.divergence_N)
    return TokenScores(student_N=student_N, entropy_N=entropy_N, teacher_N=teacher_N, divergence_N=divergence_N)


@torch.no_grad()
def _teacher_hidden(teacher: PreTrainedModel, batch: MicroBatch, distilled_N: Tensor) -> Tensor:
    """[N', H] for the distilled tokens alone."""
    has_teacher = [last > first for first, last in zip(batch.teacher_offsets[:-1], batch.teacher_offsets[1:], strict=True)]
    hidden_MH = response_hidden(teacher, batch.teacher_ids_T, batch.teacher_offsets, batch.num_response_tokens_B)
    rows_N = row_of_token(batch.num_response_tokens_B, distilled_N.device)
    scored_N = torch.tensor(has_teacher, device=distilled_N.device)[rows_N]
    return hidden_MH[distilled_N[scored_N]]


def _picked(scores: TokenScores, pick: Tensor) -> TokenScores:
    return TokenScores(
        student_N=scores.student_N[pick],
        entropy_N=scores.entropy_N[pick],
        teacher_N=scores.teacher_N[pick],
        divergence_N=scores.divergence_N[pick],
    )
