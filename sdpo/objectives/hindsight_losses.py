"""What does a token learn from its hindsight credit, the log-ratio log q(y) - log π(y) of teacher and student?

SDPO moves the student's distribution towards the teacher's. SDAR raises the sampled token as far as the teacher endorses it. RLSD
leaves the direction to the environment's reward and lets the teacher say how much each token counts. Another one is a class with
``compared`` and ``advantages``, made of the algorithm's config. It is named in ``sdpo/plugins/seams.py``, by an entry point, or
by its file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor

from sdpo.config import Granularity, SDPOConfig
from sdpo.objectives.ratio import bounded
from sdpo.objectives.rows import sum_by_row
from sdpo.objectives.scores import TokenScores
from sdpo.plugins.seam import made
from sdpo.plugins.seams import HINDSIGHT_LOSSES


class HindsightLoss(Protocol):
    """What is made of teacher and student at distilled tokens."""

    def compared(self, scores: TokenScores, rows_N: Tensor) -> Tensor:
        """[N] losses, before any weight. Differentiated by ``student_N`` and ``divergence_N``."""
        ...

    def advantages(self, scores: TokenScores, advantages_N: Tensor) -> Tensor:
        """[N] the advantages that the policy gradient of these tokens has in place of ``advantages_N``; no gradient."""
        ...


def hindsight_loss_of(algorithm: SDPOConfig) -> HindsightLoss:
    """The one that ``algorithm.loss`` names. Raises ValueError where it names none."""
    make = HINDSIGHT_LOSSES.load(algorithm.loss)
    found = made(make, f"algorithm.loss {algorithm.loss!r}", algorithm)
    if found is None or not all(callable(getattr(found, name, None)) for name in ("compared", "advantages")):
        raise ValueError(
            "algorithm.loss must name a class or function that makes a sdpo.objectives.hindsight_losses.HindsightLoss of the "
            f"algorithm's config; {algorithm.loss!r} is {make!r}"
        )
    return cast(HindsightLoss, found)


@dataclass(frozen=True, slots=True)
class DivergenceLoss:
    """SDPO (arXiv 2601.20802): the divergence itself, over the support, or its estimate from the sampled tokens."""

    granularity: Granularity
    advantage_clip: float | None = None

    @classmethod
    def of(cls, algorithm: SDPOConfig) -> DivergenceLoss:
        return cls(algorithm.granularity, algorithm.advantage_clip)

    def compared(self, scores: TokenScores, rows_N: Tensor) -> Tensor:
        """From samples, ∇ KL(π‖q) = E_y[(log π(y) - log q(y)) ∇ log π(y)], the log-ratio a constant. So ``ratio.detach() *
        log π`` is differentiated, and the value shown is the ratio."""
        if self.granularity is Granularity.logits:
            return scores.divergence_N
        ratio_N = log_ratio(scores, self.advantage_clip)
        if self.granularity is Granularity.sequence:
            ratio_N = sum_by_row(ratio_N, rows_N)
        surrogate_N = ratio_N * scores.student_N
        return surrogate_N - surrogate_N.detach() + ratio_N

    def advantages(self, scores: TokenScores, advantages_N: Tensor) -> Tensor:
        return advantages_N


@dataclass(frozen=True, slots=True)
class GatedLoss:
    """SDAR (arXiv 2605.15155): g · (log q(y) - log π(y)) with the detached gate g = σ(β·(log q(y) - log π(y))).

    A token is made more probable, by at most its whole log-probability and hardly at all where the teacher rejects it.
    """

    sharpness: float

    @classmethod
    def of(cls, algorithm: SDPOConfig) -> GatedLoss:
        return cls(algorithm.gate_sharpness)

    def compared(self, scores: TokenScores, rows_N: Tensor) -> Tensor:
        credit_N = _credit(scores)
        return (self.sharpness * credit_N).sigmoid() * (credit_N + scores.student_N.detach() - scores.student_N)

    def advantages(self, scores: TokenScores, advantages_N: Tensor) -> Tensor:
        return advantages_N


@dataclass(frozen=True, slots=True)
class EvidenceWeights:
    """RLSD (arXiv 2604.03128): A · (1-λ + λ·clip((q(y)/π(y))^sign(A), 1-ε, 1+ε)), and no loss besides.

    The factor is above 0, so the sign of an advantage, which is the environment's, stays.
    """

    share: float
    clip: float

    @classmethod
    def of(cls, algorithm: SDPOConfig) -> EvidenceWeights:
        return cls(algorithm.evidence_share, algorithm.evidence_clip)

    def compared(self, scores: TokenScores, rows_N: Tensor) -> Tensor:
        return torch.zeros_like(scores.student_N)

    def advantages(self, scores: TokenScores, advantages_N: Tensor) -> Tensor:
        evidence_N = (advantages_N.sign() * _credit(scores)).exp().clamp(1.0 - self.clip, 1.0 + self.clip)
        return advantages_N * (1.0 - self.share + self.share * evidence_N)


def log_ratio(scores: TokenScores, clip: float | None) -> Tensor:
    """[N] log π/q of the sampled tokens, a constant: the advantage's opposite, clamped to [-clip, clip] as that is."""
    ratio_N = (scores.student_N - scores.teacher_N).detach()
    return ratio_N if clip is None else ratio_N.clamp(-clip, clip)


def _credit(scores: TokenScores) -> Tensor:
    """[N] log q(y) - log π(y), without gradient. It is bounded: -inf, where the teacher gives a token no chance, times an
    advantage of 0 is no number."""
    return bounded((scores.teacher_N - scores.student_N).detach())
