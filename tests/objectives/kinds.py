"""The divergences that are shipped, by their names."""

from __future__ import annotations

from torch import Tensor

from sdpo.config import SDPOConfig
from sdpo.objectives.divergence import divergence as of
from sdpo.objectives.divergence import divergence_of
from sdpo.plugins.seams import DIVERGENCES

KINDS = tuple(DIVERGENCES.built_in)


def divergence(student_NK: Tensor, teacher_NK: Tensor, kind: str, beta: float = 0.5) -> Tensor:
    """[N]"""
    return of(divergence_of(SDPOConfig(divergence=kind, jsd_beta=beta)), student_NK, teacher_NK)


def jensen_shannon(student_NK: Tensor, teacher_NK: Tensor, beta: float) -> Tensor:
    """[N]"""
    return divergence(student_NK, teacher_NK, "jsd", beta)
