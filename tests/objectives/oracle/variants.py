"""Losses of follow-up papers, written down from their formulas in fp64, one response at a time; nothing of ``sdpo`` is used.

Shapes: R tokens of a response, V vocabulary. Log-probabilities in nats, without gradient where the papers stop it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def ppo(student_R: Tensor, old_R: Tensor, advantages_R: Sequence[float], low: float, high: float) -> Tensor:
    """-Σ min(r·A, clip(r)·A)."""
    total = torch.zeros((), dtype=torch.float64)
    for student, old, advantage in zip(student_R, old_R, advantages_R, strict=True):
        ratio = (student - old).exp()
        total = total - torch.minimum(ratio * advantage, ratio.clamp(1.0 - low, 1.0 + high) * advantage)
    return total


def cispo(student_R: Tensor, old_R: Tensor, advantage: float, low: float, high: float) -> Tensor:
    """-Σ sg(clip(r))·A·log π (MiniMax-M1, arXiv 2506.13585, equations 4 and 5)."""
    total = torch.zeros((), dtype=torch.float64)
    for student, old in zip(student_R, old_R, strict=True):
        ratio = math.exp(float(student.detach()) - float(old))
        total = total - min(max(ratio, 1.0 - low), 1.0 + high) * advantage * student
    return total


def rlsd_advantages(student_R: Tensor, teacher_R: Tensor, advantage: float, *, share: float, clip: float) -> list[float]:
    """A·(1-λ + λ·clip((P_T/P_S)^sign(A), 1±ε)) (arXiv 2604.03128, equations 13 to 15, with the mixing of section 4.1)."""
    found = []
    for student, teacher in zip(student_R.detach().tolist(), teacher_R.tolist(), strict=True):
        ratio = math.exp(teacher) / math.exp(student)
        evidence = ratio if advantage > 0.0 else 1.0 / ratio
        found.append(advantage * ((1.0 - share) + share * min(max(evidence, 1.0 - clip), 1.0 + clip)))
    return found


def sdar(student_R: Tensor, teacher_R: Tensor, sharpness: float) -> Tensor:
    """Σ sg(σ(β·Δ))·(log q - log π), Δ = log q - log π (arXiv 2605.15155, section 2)."""
    total = torch.zeros((), dtype=torch.float64)
    for student, teacher in zip(student_R, teacher_R, strict=True):
        gap = float(teacher) - float(student.detach())
        total = total + (teacher - student) / (1.0 + math.exp(-sharpness * gap))
    return total


def anchored(reference_RV: Tensor, hinted_RV: Tensor, beta: float) -> Tensor:
    """[R, V] log of π_ref^(1-1/β)·p_T^(1/β), normalised at each token (β-OPSD, arXiv 2607.28582)."""
    weights_RV = reference_RV.exp() ** (1.0 - 1.0 / beta) * hinted_RV.exp() ** (1.0 / beta)
    return (weights_RV / weights_RV.sum(-1, keepdim=True)).log()


def return_to_go(student_R: Tensor, target_R: Tensor, discount: float) -> Tensor:
    """Σ_t G_t·log π(y_t) with G_t = sg(Σ_{s≥t} γ^(s-t)·(log π(y_s) - log π*(y_s))), whose gradient β-OPSD descends."""
    total = torch.zeros((), dtype=torch.float64)
    differences = (student_R.detach() - target_R).tolist()
    for place, student in enumerate(student_R):
        later = sum(discount ** (other - place) * differences[other] for other in range(place, len(differences)))
        total = total + later * student
    return total


def rollout_weights(old_R: Tensor, sampled_R: Tensor, correction: str, clip: float) -> list[float]:
    """π_learner/π_engine of each token, or of the whole response, truncated at C or left out beyond [1/C, C]."""
    weights = [math.exp(float(old) - float(sampled)) for old, sampled in zip(old_R, sampled_R, strict=True)]
    if correction.startswith("sequence"):
        weights = [math.prod(weights)] * len(weights)
    if correction.endswith("mask"):
        return [weight if 1.0 / clip <= weight <= clip else 0.0 for weight in weights]
    return [min(weight, clip) for weight in weights]


def leave_one_out(rewards: Sequence[float]) -> list[float]:
    """R_i - 1/(k-1)·Σ_{j≠i} R_j (RLOO, arXiv 2402.14740)."""
    return [
        reward - sum(other for place, other in enumerate(rewards) if place != mine) / (len(rewards) - 1)
        for mine, reward in enumerate(rewards)
    ]


def reinforce_plus_plus(rewards_P_G: Sequence[Sequence[float]], *, has_baseline: bool) -> list[list[float]]:
    """(A - mean A)/std A over all of the batch, A the reward, less its group's mean with a baseline (arXiv 2501.03262)."""
    raw = [[reward - (sum(of) / len(of) if has_baseline else 0.0) for reward in of] for of in rewards_P_G]
    everything = torch.tensor([value for of in raw for value in of], dtype=torch.float64)
    mean, deviation = float(everything.mean()), float(everything.std(correction=0))
    return [[(value - mean) / deviation for value in of] for of in raw]
