"""How far apart are two distributions given by their log-probabilities over the same buckets?

Each takes ``[N, K]`` log-probabilities in nats that sum to one in the last dimension, and returns ``[N]``. Gradients flow
to the student alone: the caller detaches the teacher.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sdpo.config import Divergence


def divergence(student_NK: Tensor, teacher_NK: Tensor, kind: Divergence, jsd_beta: float, *, clip: float | None = None) -> Tensor:
    """[N] divergence in nats, at least 0 up to rounding; with ``clip`` the sum of its terms, each clamped to [-clip, clip], which
    may be less than 0 (OPSD, arXiv 2601.18734)."""
    if clip is not None:
        return _terms(student_NK, teacher_NK, kind, jsd_beta).clamp(-clip, clip).sum(-1)
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
    mixture_NK = _mixture(student_NK, teacher_NK, beta)
    return (1.0 - beta) * _kl(student_NK, mixture_NK) + beta * _kl(teacher_NK, mixture_NK)


def entropy(logprobs_NK: Tensor) -> Tensor:
    """[N] in nats. A bucket with probability 0 counts nothing."""
    return -(logprobs_NK.exp() * logprobs_NK.masked_fill(logprobs_NK == -torch.inf, 0.0)).sum(-1)


def _terms(student_NK: Tensor, teacher_NK: Tensor, kind: Divergence, beta: float) -> Tensor:
    """[N, K] what each bucket adds to the divergence."""
    match kind:
        case Divergence.reverse_kl:
            return _kl_terms(student_NK, teacher_NK)
        case Divergence.forward_kl:
            return _kl_terms(teacher_NK, student_NK)
        case Divergence.jsd:
            mixture_NK = _mixture(student_NK, teacher_NK, beta)
            return (1.0 - beta) * _kl_terms(student_NK, mixture_NK) + beta * _kl_terms(teacher_NK, mixture_NK)


def _mixture(student_NK: Tensor, teacher_NK: Tensor, beta: float) -> Tensor:
    weighted_student_NK, weighted_teacher_NK = student_NK + math.log1p(-beta), teacher_NK + math.log(beta)
    is_empty = (student_NK == -torch.inf) & (teacher_NK == -torch.inf)
    return torch.logaddexp(weighted_student_NK.masked_fill(is_empty, 0.0), weighted_teacher_NK.masked_fill(is_empty, 0.0))


def _kl(p_NK: Tensor, q_NK: Tensor) -> Tensor:
    """KL(p‖q)"""
    return _kl_terms(p_NK, q_NK).sum(-1)


def _kl_terms(p_NK: Tensor, q_NK: Tensor) -> Tensor:
    """[N, K] p log(p/q). A bucket with p = 0 counts nothing, nor does it reach the gradient, also where its log-probability is
    -inf."""
    is_empty = p_NK == -torch.inf
    log_p, log_q = p_NK.masked_fill(is_empty, 0.0), q_NK.masked_fill(is_empty, 0.0)
    return (log_p.exp() * (log_p - log_q)).masked_fill(is_empty, 0.0)
