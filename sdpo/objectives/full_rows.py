"""A chunk's log-probabilities compared over the whole vocabulary, and the gradient by their logits, by hand.

With s, t the log-probabilities of student and teacher, p = exp s, and D the divergence, the derivative by the logit z_v is

    reverse KL   p_v (s_v - t_v - D)
    forward KL   p_v - exp t_v
    JSD          (1-β) p_v (s_v - m_v - KL(S‖M)),  m = log((1-β) p + β exp t)
    clamped      g_v - p_v Σ_u g_u,  g_v the derivative of v's term by s_v, 0 where it is clamped

The sampled token's log-probability adds l (1[v = y] - p_v), the entropy -e p_v (s_v + H). Autograd would keep some eight copies
of the chunk for the same.

Shapes: C tokens of a full chunk, n of this one, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sdpo.objectives.divergence import WholeRows
from sdpo.objectives.logits import wide
from sdpo.objectives.scores import TokenScores
from sdpo.objectives.slopes import Slopes
from sdpo.objectives.torch_rows import SCRATCH_ROWS, means, narrowed, soften


@dataclass(frozen=True, slots=True, kw_only=True)
class FullReading:
    """What is read of a chunk, and what its gradient needs of that."""

    scores: TokenScores
    mean_n: Tensor
    """[n] what its ``read`` calls the mean: the reverse KL, KL(S‖M), or 1 of the forward KL."""


class FullRows:
    """The buffers of a chunk, and every pass over them."""

    def __init__(self, shape_CV: tuple[int, int], hidden_NH: Tensor, temperature: float, divergence: WholeRows) -> None:
        dtype, device = wide(hidden_NH), hidden_NH.device
        self.student_CV = torch.empty(shape_CV, dtype=dtype, device=device)
        self.teacher_CV = torch.empty(shape_CV, dtype=dtype, device=device)
        self._weights = torch.empty(shape_CV, dtype=dtype, device=device)
        self._narrow = hidden_NH.dtype
        self._temperature, self._divergence = temperature, divergence

    def settle(self, logits_nV: Tensor) -> Tensor:
        """Logits to log-probabilities, in place; their exponentials are left in ``_weights``."""
        if self._temperature != 1.0:
            logits_nV.div_(self._temperature)
        logits_nV.sub_(logits_nV.amax(-1, keepdim=True))
        return logits_nV.sub_(soften(logits_nV, self._weights[: len(logits_nV)])[:, None])

    def entropy(self, logprobs_nV: Tensor) -> Tensor:
        """[n] nats, of what was settled last. Log-probabilities of -inf are made finite."""
        return -means(self._weights[: len(logprobs_nV)], logprobs_nV)

    def read(self, ids_n1: Tensor, teacher_entropy_n: Tensor) -> FullReading:
        """The reading of teacher and student, both settled, the student last.

        The teacher's buffer then holds the inner term of the gradient: s - t, s - m, exp t, or -g.
        """
        num = len(ids_n1)
        student_nV, teacher_nV, p_nV = self.student_CV[:num], self.teacher_CV[:num], self._weights[:num]
        entropy_n = self.entropy(student_nV)
        student_n, teacher_n = student_nV.gather(-1, ids_n1)[:, 0], teacher_nV.gather(-1, ids_n1)[:, 0]
        divergence_n, mean_n = torch.empty_like(student_n), torch.empty_like(student_n)
        for first in range(0, num, SCRATCH_ROWS):
            rows = slice(first, min(first + SCRATCH_ROWS, num))
            divergence_n[rows], mean_n[rows] = self._divergence.read(student_nV[rows], teacher_nV[rows], p_nV[rows])
        scores = TokenScores(
            student_N=student_n,
            entropy_N=entropy_n,
            teacher_N=teacher_n,
            teacher_entropy_N=teacher_entropy_n,
            divergence_N=divergence_n,
        )
        return FullReading(scores=scores, mean_n=mean_n)

    def gradient(self, reading: FullReading, slopes: Slopes, ids_n1: Tensor) -> Tensor:
        """[n, V] by the logits, in the type of the hidden states. Uses up the buffers."""
        num = len(ids_n1)
        student_nV, inner_nV, p_nV = self.student_CV[:num], self.teacher_CV[:num], self._weights[:num]
        by_divergence_n1, by_sampled_n1 = slopes.divergence_n[:, None], slopes.student_n[:, None]
        by_logits_nV = inner_nV
        share = self._divergence.share
        if share is None:
            inner_nV.mul_(-by_divergence_n1)
            times_p_nV = student_nV.add_(reading.scores.entropy_N[:, None]).mul_(-slopes.entropy_n[:, None])
            by_logits_nV.add_(times_p_nV.add_(by_divergence_n1 * reading.mean_n[:, None] - by_sampled_n1).mul_(p_nV))
        else:
            inner_nV.sub_(reading.mean_n[:, None]).mul_(share * by_divergence_n1).sub_(by_sampled_n1)
            if slopes.has_entropy:
                inner_nV.sub_(student_nV.add_(reading.scores.entropy_N[:, None]).mul_(slopes.entropy_n[:, None]))
            by_logits_nV.mul_(p_nV)
        by_logits_nV.scatter_add_(-1, ids_n1, by_sampled_n1)
        if self._temperature != 1.0:
            by_logits_nV.div_(self._temperature)
        return narrowed(by_logits_nV, self._narrow, self.student_CV)
