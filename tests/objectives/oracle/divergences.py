"""Divergences over given log-probabilities, and OPSD's clamp of what each token of the vocabulary adds (arXiv 2601.18734)."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def terms(student: Tensor, teacher: Tensor, kind: str, beta: float = 0.5) -> Tensor:
    """What each bucket adds, in nats: reverse KL(S‖T), forward KL(T‖S), or the generalised Jensen-Shannon divergence."""
    p, q = student.exp(), teacher.exp()
    mixture = (1.0 - beta) * p + beta * q
    return {
        "reverse_kl": p * (p / q).log(),
        "forward_kl": q * (q / p).log(),
        "jsd": (1.0 - beta) * p * (p / mixture).log() + beta * q * (q / mixture).log(),
    }[kind]


def clamped(student: Tensor, teacher: Tensor, kind: str, most: float, *, least: float = -math.inf) -> Tensor:
    """The sum of the terms, each at most ``most``, as OPSD's authors have it; ours are also at least ``least``."""
    each = terms(student, teacher, kind)
    above = torch.where(each > most, torch.full_like(each, most), each)
    return torch.where(above < least, torch.full_like(each, least), above).sum(-1)
