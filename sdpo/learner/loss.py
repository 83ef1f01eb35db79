"""The loss of one micro-batch, and what its metrics are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sdpo.config import AlgorithmConfig, SDPOConfig
from sdpo.learner.orders import Scale
from sdpo.learner.recording import Recorder
from sdpo.learner.statistics import SUMS, LossStatistics, joined
from sdpo.objectives.comparison import Comparison
from sdpo.objectives.distillation import distillation_loss
from sdpo.objectives.divergence import divergence_of
from sdpo.objectives.fused import fused_loss, teacher_entropy
from sdpo.objectives.hindsight_losses import hindsight_loss_of
from sdpo.objectives.logits import PLAIN, Budget, HeadRule, Logits
from sdpo.objectives.policy_gradient import mean_weights, policy_gradient_loss, reference_kl
from sdpo.objectives.ratio import bounded
from sdpo.objectives.scores import TokenScores
from sdpo.types import MicroBatch, Update


@dataclass(frozen=True, slots=True, kw_only=True)
class OldLogprobs:
    """[n] log-probabilities of the response tokens, as models that are not being trained now see them."""

    old_n: Tensor | None
    """The policy before the step's first update; None where this is the first and only one, so that it is what it says now."""
    reference_n: Tensor | None
    """The policy at the start; None where nothing asks for it."""


def micro_batch_loss(
    hidden_nH: Tensor,
    head_VH: Tensor,
    teacher: Sequence[Logits],
    batch: MicroBatch,
    mine_n: Tensor,
    old_logprobs: OldLogprobs,
    update: Update,
    algorithm: AlgorithmConfig,
    scale: Scale,
    chunk_mib: float,
    recorder: Recorder | None = None,
    rule: HeadRule = PLAIN,
    certainty_m: Tensor | None = None,
) -> tuple[Tensor, LossStatistics]:
    """The share that n response tokens have in the update's loss (a sum, over the update's global counts), and their statistics.

    ``mine_n`` says which of the micro-batch's N tokens the ``hidden_nH`` predict. ``teacher`` scores the M distilled of all N.
    ``rule`` is how the student makes logits of hidden states and head. ``recorder`` keeps what is said of single tokens.
    ``certainty_m`` are further factors of those of the n that are distilled. The statistics are on the CPU.
    """
    device = hidden_nH.device
    tokens = _tokens(batch, mine_n, old_logprobs, update, algorithm, scale, device)
    budget = Budget(temperature=scale.temperature, chunk_mib=chunk_mib)
    # Every parameter is in every rank's backward, also where there is no token to learn from: ranks reduce in step.
    loss = (hidden_nH.float().sum() + head_VH[:1].float().sum()) * 0.0
    if rule.bias_V is not None:
        loss = loss + rule.bias_V.float().nan_to_num().sum() * 0.0
    parts: list[LossStatistics] = []
    distilled_n = batch.distilled_N[mine_n].to(device)
    plain_n = tokens.mask_n & ~distilled_n
    if isinstance(algorithm, SDPOConfig) and bool(distilled_n.any()):
        comparison = _comparison(teacher, batch, mine_n, algorithm)
        distilled = tokens.only(distilled_n)
        if certainty_m is not None:
            distilled = replace(distilled, distillation_n=distilled.distillation_n * certainty_m)
        part, statistics, scores = _learn(hidden_nH, head_VH, distilled, algorithm, comparison, budget, rule)
        loss, parts = loss + part, [statistics]
        if recorder is not None:
            hidden_mH = hidden_nH.detach()[distilled_n]
            recorder.keep(batch, mine_n[distilled_n.cpu()], scores, hidden_mH, head_VH, comparison, budget, rule)
    if bool(plain_n.any()):
        part, statistics, _ = _learn(hidden_nH, head_VH, tokens.only(plain_n), algorithm, None, budget, rule)
        loss, parts = loss + part, [*parts, statistics]
    statistics = joined(parts, device)
    return loss, LossStatistics(sums=statistics.sums.cpu(), mismatch_n=statistics.mismatch_n.cpu())


def teacher_entropies(
    teacher: Sequence[Logits], batch: MicroBatch, mine_n: Tensor, vocabulary: int, algorithm: SDPOConfig, budget: Budget
) -> Tensor:
    """[m] nats of the teacher's entropy at those of the n response tokens ``mine_n`` that are distilled."""
    if not bool(batch.distilled_N[mine_n].any()):
        return torch.zeros(0)
    return teacher_entropy(_comparison(teacher, batch, mine_n, algorithm), vocabulary, budget=budget)


def _comparison(teacher: Sequence[Logits], batch: MicroBatch, mine_n: Tensor, algorithm: SDPOConfig) -> Comparison:
    """With the teacher at those of the n response tokens ``mine_n`` that are distilled; ``teacher`` scores the M of all N."""
    places_m = (batch.distilled_N.cumsum(0) - 1)[mine_n][batch.distilled_N[mine_n]]  # which of the M each one is
    return Comparison(
        teacher=tuple(
            replace(part, hidden_NH=part.hidden_NH.index_select(0, places_m.to(part.hidden_NH.device))) for part in teacher
        ),
        support=algorithm.support,
        divergence=divergence_of(algorithm),
        pointwise_clip=algorithm.pointwise_clip,
        pointwise_clip_side=algorithm.pointwise_clip_side,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tokens:
    """What is known of n response tokens besides their scores."""

    places_n: Tensor
    """Places of their hidden states among those that this rank computed."""
    ids_n: Tensor
    rows_n: Tensor
    mask_n: Tensor
    solved_n: Tensor
    old_n: Tensor | None
    reference_n: Tensor | None
    sampled_n: Tensor
    advantages_n: Tensor
    distillation_n: Tensor
    """Weight of the distillation loss, the update's count divided out."""
    policy_gradient_n: Tensor
    """Weight of the policy-gradient loss, likewise."""
    supervised_n: Tensor
    """Weight of the cross-entropy, likewise."""
    extra: float
    """Weight of the entropy bonus and the reference KL of each token."""

    def only(self, pick_n: Tensor) -> _Tokens:
        def picked(values_n: Tensor) -> Tensor:
            return values_n[pick_n]

        return _Tokens(
            places_n=picked(self.places_n),
            ids_n=picked(self.ids_n),
            rows_n=picked(self.rows_n),
            mask_n=picked(self.mask_n),
            solved_n=picked(self.solved_n),
            old_n=None if self.old_n is None else picked(self.old_n),
            reference_n=None if self.reference_n is None else picked(self.reference_n),
            sampled_n=picked(self.sampled_n),
            advantages_n=picked(self.advantages_n),
            distillation_n=picked(self.distillation_n),
            policy_gradient_n=picked(self.policy_gradient_n),
            supervised_n=picked(self.supervised_n),
            extra=self.extra,
        )


def _tokens(
    batch: MicroBatch,
    mine_n: Tensor,
    old_logprobs: OldLogprobs,
    update: Update,
    algorithm: AlgorithmConfig,
    scale: Scale,
    device: torch.device,
) -> _Tokens:
    # Computed over the whole micro-batch, before this rank's tokens are picked: a row's length counts all of them.
    factors_N = mean_weights(
        torch.where(batch.loss_mask_N, batch.rows_N, int(batch.rows_N.max()) + 1),
        algorithm.policy_gradient.mean,
        num_loss_tokens=update.num_loss_tokens,
        num_rows=update.num_loss_rows,
        max_response_tokens=scale.max_response_tokens,
    )

    def mine(values_N: Tensor) -> Tensor:
        return values_N[mine_n].to(device)

    return _Tokens(
        places_n=torch.arange(len(mine_n), device=device),
        ids_n=mine(batch.response_ids_N),
        rows_n=mine(batch.rows_N),
        mask_n=mine(batch.loss_mask_N),
        solved_n=mine(batch.solved_N),
        old_n=old_logprobs.old_n,
        reference_n=old_logprobs.reference_n,
        sampled_n=mine(batch.sampled_logprobs_N),
        advantages_n=mine(batch.advantages_N),
        distillation_n=mine(batch.distillation_weights_N) / max(update.num_distilled_tokens, 1),
        policy_gradient_n=mine(batch.policy_gradient_weights_N * factors_N),
        supervised_n=mine(batch.supervised_weights_N) / max(update.num_supervised_tokens, 1),
        extra=1.0 / max(update.num_scored_tokens, 1),
    )


def _learn(
    hidden_nH: Tensor,
    head_VH: Tensor,
    tokens: _Tokens,
    algorithm: AlgorithmConfig,
    comparison: Comparison | None,
    budget: Budget,
    rule: HeadRule,
) -> tuple[Tensor, LossStatistics, TokenScores]:
    """The loss of ``tokens``, and what else they say, in sum and one by one."""
    objective = _Objective(tokens, algorithm, is_distilled=comparison is not None)
    loss, scores = fused_loss(
        hidden_nH.index_select(0, tokens.places_n),
        head_VH,
        tokens.ids_n,
        objective,
        comparison=comparison,
        budget=budget,
        rule=rule,
    )
    was_sampled_n = tokens.supervised_n == 0.0  # of the others no engine has said how probable they were
    # A token that the engine gave no chance shall show in the metric, not make it infinite.
    log_ratio_n = bounded((scores.student_N - tokens.sampled_n)[was_sampled_n])
    mismatch_n = log_ratio_n.exp() - log_ratio_n - 1.0
    is_distilled = comparison is not None
    credit_n = scores.teacher_N - scores.student_N if is_distilled else torch.zeros_like(scores.student_N)
    sums: dict[str, Tensor | float] = {
        "loss": loss.detach(),
        "distillation": objective.distillation,
        "policy_gradient": objective.policy_gradient,
        "supervised": objective.supervised,
        "divergence": scores.divergence_N.sum(),
        "credit": credit_n.sum(),
        "entropy": scores.entropy_N.sum(),
        "mismatch": mismatch_n.sum(),
        "distilled": len(tokens.ids_n) if is_distilled else 0,
        "sampled": was_sampled_n.sum(),
        "learned": len(tokens.ids_n),
        "credit_solved": credit_n.where(tokens.solved_n, 0.0).sum(),
        "distilled_solved": tokens.solved_n.sum() if is_distilled else 0,
    }
    assert sums.keys() == set(SUMS)
    stacked = torch.stack([torch.as_tensor(sums[name], dtype=torch.float64, device=hidden_nH.device) for name in SUMS])
    return loss, LossStatistics(sums=stacked, mismatch_n=mismatch_n.float()), scores


class _Objective:
    """All terms of a token's loss; their sums are kept for the metrics."""

    def __init__(self, tokens: _Tokens, algorithm: AlgorithmConfig, *, is_distilled: bool) -> None:
        self._tokens, self._algorithm, self._is_distilled = tokens, algorithm, is_distilled
        self._is_graded = bool((tokens.policy_gradient_n != 0.0).any())
        self._is_supervised = bool((tokens.supervised_n != 0.0).any())
        self.is_pointwise = not (
            (is_distilled and isinstance(algorithm, SDPOConfig) and algorithm.distils_whole_rows)
            or (self._is_graded and algorithm.policy_gradient.needs_whole_rows)
        )
        self.distillation: Tensor | float = 0.0
        self.policy_gradient: Tensor | float = 0.0
        self.supervised: Tensor | float = 0.0

    def __call__(self, scores: TokenScores, tokens: slice) -> Tensor:
        known, algorithm = self._tokens, self._algorithm
        old_n = scores.student_N.detach() if known.old_n is None else known.old_n[tokens]
        sampled_n, rows_n = known.sampled_n[tokens], known.rows_n[tokens]
        advantages_n = known.advantages_n[tokens]
        loss_n = torch.zeros_like(scores.student_N)
        if self._is_distilled and isinstance(algorithm, SDPOConfig):
            advantages_n = hindsight_loss_of(algorithm).advantages(scores, advantages_n)
            part_n = distillation_loss(scores, old_n, sampled_n, known.distillation_n[tokens], rows_n, algorithm)
            self.distillation = self.distillation + part_n.detach().sum()
            loss_n = loss_n + part_n
        if self._is_graded:
            part_n = known.policy_gradient_n[tokens] * policy_gradient_loss(
                scores.student_N, old_n, sampled_n, advantages_n, rows_n, algorithm.policy_gradient
            )
            self.policy_gradient = self.policy_gradient + part_n.detach().sum()
            loss_n = loss_n + part_n
        if self._is_supervised:
            part_n = -known.supervised_n[tokens] * scores.student_N
            self.supervised = self.supervised + part_n.detach().sum()
            loss_n = loss_n + part_n
        if algorithm.entropy_bonus != 0.0:
            loss_n = loss_n - algorithm.entropy_bonus * known.extra * scores.entropy_N
        if algorithm.reference_kl != 0.0 and known.reference_n is not None:
            loss_n = loss_n + algorithm.reference_kl * known.extra * reference_kl(scores.student_N, known.reference_n[tokens])
        return loss_n
