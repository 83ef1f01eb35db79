"""How far apart are two distributions given by their log-probabilities over the same buckets?

Each takes ``[N, K]`` log-probabilities in nats that sum to one in the last dimension, and returns ``[N]``. Gradients flow to the
student alone: the caller detaches the teacher. Another divergence is a class with ``terms``, made of the algorithm's config. It
is named in ``sdpo/plugins/seams.py``, by an entry point, or by its file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor

from sdpo.config import SDPOConfig
from sdpo.objectives.torch_rows import row_dots
from sdpo.plugins.seam import made
from sdpo.plugins.seams import DIVERGENCES


class Divergence(Protocol):
    """How student and teacher are compared."""

    def terms(self, student_NK: Tensor, teacher_NK: Tensor) -> Tensor:
        """[N, K] what each bucket adds to the divergence. A bucket that both exclude, with -inf, adds 0 and has no gradient."""
        ...


class WholeRows(Protocol):
    """A divergence that is also written out over the whole vocabulary, r rows at a time, with its gradient by the logits.

    With p the student's probabilities, the gradient by the logit v is ``share · p_v (inner_v - mean)``. It is
    ``mean · p_v - inner_v`` where ``share`` is None: ``inner_v`` is then less the derivative by the log-probability of v, and
    ``mean`` the sum of these.
    """

    @property
    def share(self) -> float | None: ...

    def read(self, student_rV: Tensor, teacher_rV: Tensor, p_rV: Tensor) -> tuple[Tensor, Tensor]:
        """[r] the divergence, and [r] the mean, the inner term's under p; the inner term is left in ``teacher_rV``. The inputs
        are log-probabilities, ``p_rV`` is the exponential of the student's."""
        ...


def divergence_of(algorithm: SDPOConfig) -> Divergence:
    """The one that ``algorithm.divergence`` names. Raises ValueError where it names none."""
    make = DIVERGENCES.load(algorithm.divergence)
    found = made(make, f"algorithm.divergence {algorithm.divergence!r}", algorithm)
    if found is None or not callable(getattr(found, "terms", None)):
        raise ValueError(
            f"algorithm.divergence must name a class or function that makes a sdpo.objectives.divergence.Divergence of the "
            f"algorithm's config; {algorithm.divergence!r} is {make!r}"
        )
    return cast(Divergence, found)


Bounds = tuple[float, float]
"""Least and largest value of a bucket's term."""


def divergence(kind: Divergence, student_NK: Tensor, teacher_NK: Tensor, *, bounds: Bounds | None = None) -> Tensor:
    """[N] divergence in nats, at least 0 up to rounding.

    With ``bounds`` it is the sum of its terms, each clamped to them. That may be less than 0 (OPSD, arXiv 2601.18734).
    """
    terms_NK = kind.terms(student_NK, teacher_NK)
    return (terms_NK if bounds is None else terms_NK.clamp(*bounds)).sum(-1)


@dataclass(frozen=True, slots=True)
class Clamped:
    """Any divergence over the whole vocabulary with its terms clamped. Its derivatives are autograd's, r rows at a time."""

    divergence: Divergence
    bounds: Bounds
    share: float | None = None

    def read(self, student_rV: Tensor, teacher_rV: Tensor, p_rV: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            leaf_rV = student_rV.detach().requires_grad_()
            divergence_r = divergence(self.divergence, leaf_rV, teacher_rV.detach(), bounds=self.bounds)
            (slope_rV,) = torch.autograd.grad(divergence_r.sum(), leaf_rV)
        inner_rV = torch.neg(slope_rV, out=teacher_rV)
        return divergence_r.detach(), inner_rV.sum(-1)


@dataclass(frozen=True, slots=True)
class ReverseKL:
    """KL(S‖T)

    Its gradient is -Σ A ∇p, with the advantage A = log q/p of each bucket a constant (arXiv 2601.20802, appendix B.1): that of
    A's own share sums to 0. With ``advantage_clip`` c the value is -Σ p A, and the gradient -Σ A ∇p, of A clamped to [-c, c].
    """

    share: float | None = 1.0
    advantage_clip: float | None = None

    @classmethod
    def of(cls, algorithm: SDPOConfig) -> ReverseKL:
        return cls(advantage_clip=algorithm.advantage_clip)

    def terms(self, student_NK: Tensor, teacher_NK: Tensor) -> Tensor:
        if self.advantage_clip is None:
            return _kl_terms(student_NK, teacher_NK)
        is_empty = student_NK == -torch.inf
        log_p, log_q = student_NK.masked_fill(is_empty, 0.0), teacher_NK.masked_fill(is_empty, 0.0)
        advantage_NK = (log_q - log_p).detach().clamp(-self.advantage_clip, self.advantage_clip)
        return (-log_p.exp() * advantage_NK).masked_fill(is_empty, 0.0)

    def read(self, student_rV: Tensor, teacher_rV: Tensor, p_rV: Tensor) -> tuple[Tensor, Tensor]:
        lag_rV = teacher_rV.neg_().add_(student_rV)
        if self.advantage_clip is not None:
            lag_rV.clamp_(-self.advantage_clip, self.advantage_clip)
        divergence_r = row_dots(p_rV, lag_rV)
        return divergence_r, divergence_r


@dataclass(frozen=True, slots=True)
class ForwardKL:
    """KL(T‖S)"""

    share: float | None = None

    @classmethod
    def of(cls, algorithm: SDPOConfig) -> ForwardKL:
        return cls()

    def terms(self, student_NK: Tensor, teacher_NK: Tensor) -> Tensor:
        return _kl_terms(teacher_NK, student_NK)

    def read(self, student_rV: Tensor, teacher_rV: Tensor, p_rV: Tensor) -> tuple[Tensor, Tensor]:
        q_rV = teacher_rV.exp()
        divergence_r = row_dots(q_rV, teacher_rV.sub_(student_rV))
        teacher_rV.copy_(q_rV)
        return divergence_r, torch.ones_like(divergence_r)


@dataclass(frozen=True, slots=True)
class JensenShannon:
    """(1-β)·KL(S‖m) + β·KL(T‖m) with m = (1-β)·S + β·T, for 0 < β < 1. In nats, at most the entropy of β.

    It tends to 0 at both ends of β and not to a KL. Divided by β it tends to KL(T‖S) as β → 0. Divided by 1-β it tends to
    KL(S‖T) as β → 1. That is why the KLs have names of their own.
    """

    beta: float

    @classmethod
    def of(cls, algorithm: SDPOConfig) -> JensenShannon:
        return cls(algorithm.jsd_beta)

    @property
    def share(self) -> float | None:
        return 1.0 - self.beta

    def terms(self, student_NK: Tensor, teacher_NK: Tensor) -> Tensor:
        mixture_NK = _mixture(student_NK, teacher_NK, self.beta)
        return (1.0 - self.beta) * _kl_terms(student_NK, mixture_NK) + self.beta * _kl_terms(teacher_NK, mixture_NK)

    def read(self, student_rV: Tensor, teacher_rV: Tensor, p_rV: Tensor) -> tuple[Tensor, Tensor]:
        """The difference is multiplied by zeros where both have underflowed, and has to be finite for that."""
        q_rV = teacher_rV.exp()
        mixture_rV = torch.lerp(p_rV, q_rV, self.beta).clamp_(min=torch.finfo(p_rV.dtype).tiny).log_()
        of_teacher_r = row_dots(q_rV, teacher_rV.sub_(mixture_rV))
        of_student_r = row_dots(p_rV, torch.sub(student_rV, mixture_rV, out=teacher_rV))
        return (1.0 - self.beta) * of_student_r + self.beta * of_teacher_r, of_student_r


def entropy(logprobs_NK: Tensor) -> Tensor:
    """[N] in nats. A bucket with probability 0 counts nothing."""
    return -(logprobs_NK.exp() * logprobs_NK.masked_fill(logprobs_NK == -torch.inf, 0.0)).sum(-1)


def _mixture(student_NK: Tensor, teacher_NK: Tensor, beta: float) -> Tensor:
    weighted_student_NK, weighted_teacher_NK = student_NK + math.log1p(-beta), teacher_NK + math.log(beta)
    is_empty = (student_NK == -torch.inf) & (teacher_NK == -torch.inf)
    return torch.logaddexp(weighted_student_NK.masked_fill(is_empty, 0.0), weighted_teacher_NK.masked_fill(is_empty, 0.0))


def _kl_terms(p_NK: Tensor, q_NK: Tensor) -> Tensor:
    """[N, K] p log(p/q). A bucket with p = 0 counts nothing, nor does it reach the gradient, also where its log-probability is
    -inf."""
    is_empty = p_NK == -torch.inf
    log_p, log_q = p_NK.masked_fill(is_empty, 0.0), q_NK.masked_fill(is_empty, 0.0)
    return (log_p.exp() * (log_p - log_q)).masked_fill(is_empty, 0.0)
