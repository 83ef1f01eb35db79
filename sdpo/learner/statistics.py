"""What do the tokens that were learned from say besides their loss?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sdpo.types import Update

SUMS = (
    "loss",
    "distillation",
    "policy_gradient",
    "supervised",
    "divergence",
    "credit",
    "entropy",
    "mismatch",
    "distilled",
    "sampled",
    "learned",
    "credit_solved",
    "distilled_solved",
)
"""What is summed over the tokens that were learned from, in the order of ``LossStatistics.sums``. ``distilled``, ``sampled`` and
``learned`` count them: those that were distilled, those that an engine sampled, and all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LossStatistics:
    """What tokens say besides their loss."""

    sums: Tensor
    """``SUMS``, float64."""
    mismatch_n: Tensor
    """[n] of each token that an engine sampled: the ratio - log ratio - 1 whose sum is ``mismatch``."""

    @property
    def mismatch_p99(self) -> float:
        """The 99th percentile, which is one of them; 0 where there are none."""
        num = len(self.mismatch_n)
        return float(self.mismatch_n.kthvalue(math.ceil(0.99 * num)).values) if num else 0.0


def joined(parts: Sequence[LossStatistics], device: torch.device) -> LossStatistics:
    """The statistics of all their tokens together."""
    sums = torch.zeros(len(SUMS), dtype=torch.float64, device=device)
    for part in parts:
        sums = sums + part.sums.to(device)
    none = torch.zeros(0, device=device)
    return LossStatistics(sums=sums, mismatch_n=torch.cat([none, *(part.mismatch_n.to(device) for part in parts)]))


def metrics(
    update: Update, statistics: LossStatistics, *, rate: float, norm: float, seconds: Mapping[str, float], memory_bytes: int
) -> dict[str, float]:
    """Metrics of an update that was taken. ``statistics`` are of all ranks, ``seconds`` of this one's parts of the work, and
    ``memory_bytes`` what it holds."""
    named = dict(zip(SUMS, statistics.sums.tolist(), strict=True))
    learned = max(named["learned"], 1.0)
    return {
        "loss": named["loss"],
        "loss/distillation": named["distillation"],
        "loss/policy_gradient": named["policy_gradient"],
        "loss/supervised": named["supervised"],
        **_of_teacher(named),
        "entropy": named["entropy"] / learned,
        "mismatch": named["mismatch"] / max(named["sampled"], 1.0),
        "mismatch/p99": statistics.mismatch_p99,
        "grad_norm": norm,
        "lr": rate,
        "updates": 1.0,
        "updates_without_samples": 0.0,
        "updates_skipped": 0.0,
        "learned_rows": float(update.num_learned_rows) if update.epoch == 0 else 0.0,  # an attempt counts once
        "learned_tokens": float(update.num_learned_tokens),
        **_times(seconds),
        "memory/learner_gib": memory_bytes / 2**30,
    }


def _of_teacher(sums: Mapping[str, float]) -> dict[str, float]:
    """What the teacher thinks of what was sampled, of the solved and of the failed attempts, where there are such."""
    if sums["distilled"] == 0:
        return {}
    solved, failed = sums["distilled_solved"], sums["distilled"] - sums["distilled_solved"]
    return {
        "divergence": sums["divergence"] / sums["distilled"],
        "credit": sums["credit"] / sums["distilled"],
        **({"credit/solved": sums["credit_solved"] / solved} if solved else {}),
        **({"credit/failed": (sums["credit"] - sums["credit_solved"]) / failed} if failed else {}),
    }


def _times(seconds: Mapping[str, float]) -> dict[str, float]:
    """Recording goes on while the student's loss is computed, and is not the student's time."""
    recording = seconds.get("record", 0.0)
    return {f"time/{name}_s": value - (recording if name == "student" else 0.0) for name, value in seconds.items()}
