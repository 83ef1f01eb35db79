"""How far apart are two distributions given by their log-probabilities over the same buckets?

Each takes ``[N, K]`` log-probabilities in nats that sum to one in the last dimension, and returns ``[N]``. Gradients flow
to the student alone: the caller detaches the teacher.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sdpo.config import Divergence


def divergence(student_NK: Tensor, teacher_NK: Tensor, kind: Divergence, jsd_beta: float) -> Tensor:
    """[N] divergence in nats, at least 0."""
    match kind:
        case Divergence.reverse_kl:
            return _kl(student_NK, teacher_NK)
        case Divergence.forward_kl:
            return _kl(teacher_NK, student_NK)
        case Divergence.jsd:
            return jensen_shannon(student_NK, teacher_NK, jsd_beta)


def jensen_shannon(student_NK: Tensor, teacher_NK: Tensor, beta: float) -> Tensor:
    """(1-β)·KL(S‖m) + β·KL(T‖m) with m = (1-β)·S + β·T, for 0 < β < 1. [N], in nats, at most the entropy of β.

    It tends to 0 at both ends of β and not to a KL: only divided by β does it tend to KL(T‖S) as β → 0, and divided by 1-β to
    KL(S‖T) as β → 1. That is why the KLs have names of their own.
    """
    mixture_NK = torch.logaddexp(student_NK + math.log1p(-beta), teacher_NK + math.log(beta))
    return (1.0 - beta) * _kl(student_NK, mixture_NK) + beta * _kl(teacher_NK, mixture_NK)


def _kl(p_NK: Tensor, q_NK: Tensor) -> Tensor:
    """KL(p‖q). A bucket with p = 0 counts nothing, also where its log-probability is -inf."""
    p = p_NK.exp()
    return torch.where(p > 0, p * (p_NK - q_NK), torch.zeros((), dtype=p.dtype, device=p.device)).sum(-1)
