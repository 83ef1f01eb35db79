"""Over which token ids is a position compared, and what probability does each bucket hold?

The top K ids of the student (or of the teacher) keep their true log-probabilities under the full softmax; one tail bucket holds
the rest, so that both sides are distributions over the same K + 1 buckets (paper, section 2).
"""

from __future__ import annotations

import torch
from torch import Tensor

from sdpo.config import SupportConfig, SupportKind


def buckets(student_NV: Tensor, teacher_NV: Tensor, support: SupportConfig) -> tuple[Tensor, Tensor]:
    """Student's and teacher's log-probabilities over the support: two ``[N, V]``, ``[N, K]`` or, with a tail, ``[N, K+1]``.

    Takes the full log-probabilities of both, ``[N, V]`` in nats.
    """
    if support.kind is SupportKind.full:
        return student_NV, teacher_NV
    chooser = student_NV if support.kind is SupportKind.student else teacher_NV
    ids_NK = chooser.detach().topk(support.num_ids, dim=-1, sorted=False).indices
    return _over(student_NV, ids_NK, support.tail), _over(teacher_NV, ids_NK, support.tail)


def _over(logprobs_NV: Tensor, ids_NK: Tensor, tail: bool) -> Tensor:
    inside_NK = logprobs_NV.gather(-1, ids_NK)
    if not tail:
        return inside_NK - inside_NK.logsumexp(-1, keepdim=True)
    if ids_NK.shape[-1] == logprobs_NV.shape[-1]:
        return inside_NK
    # Not log(1 - Σp): where the support holds nearly everything, the difference is rounding noise, and its gradient too.
    tail_N1 = logprobs_NV.scatter(-1, ids_NK, -torch.inf).logsumexp(-1, keepdim=True)
    return torch.cat([inside_NK, tail_N1], dim=-1)
