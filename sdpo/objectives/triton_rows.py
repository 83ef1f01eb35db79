"""How few times can a GPU pass over a chunk's logits? Twice, apart from the products and the top K: to read them, and to turn
them into the gradient.

What goes between a GPU's memory and its cores in bf16, in buffers of [n, V] fp32, caches left aside:

                             ``TorchRows``   with a temperature   with the entropy in the loss   here
    student and gradient         12.5              + 4                     + 17                  1 (_read) + 1.5 (_write)
    teacher                       7                + 2                                           1 (_read)

The softmax is never written. The support is masked and, at the end, filled in by torch, which touches K entries of a row. The
teacher's logits have a buffer of their own, and once they are read the gradient takes it over: there is no third.

That counts bytes: the kernels are tested in Triton's interpreter and compile for sm_80 to sm_120, but no GPU has run them yet.
What they win, and the best blocks and warps, are to be measured by benchmarks/distillation_loss.py.

Left out: the top K and the mixture of two teachers, which are torch's here too, and fp64.

Shapes as in ``torch_rows``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Protocol

import torch
from torch import Tensor

from sdpo.objectives.logits import wide
from sdpo.objectives.support import MASKED, Buckets
from sdpo.objectives.torch_rows import Reading, RowGradient

try:
    import triton  # type: ignore[import-not-found, import-untyped, unused-ignore]
    import triton.language as tl  # type: ignore[import-not-found, import-untyped, unused-ignore]
except ImportError:  # it comes with torch for CUDA, not with torch for the CPU
    HAS_TRITON = False
else:
    HAS_TRITON = True

READ_BLOCK, READ_WARPS = 4096, 16
"""A program reads a row, and a chunk may have few more rows than the GPU has multiprocessors: hence many warps. A power of 2."""
WRITE_BLOCK, WRITE_WARPS = 4096, 8


def can_run(hidden_NH: Tensor) -> bool:
    """Whether ``TritonRows`` serve for these hidden states."""
    return HAS_TRITON and hidden_NH.is_cuda and wide(hidden_NH) == torch.float32


class TritonRows:
    """Two buffers: the student's logits, and the teacher's or the gradient."""

    def __init__(self, shape_CV: tuple[int, int], hidden_NH: Tensor, temperature: float) -> None:
        self.student_CV = torch.empty(shape_CV, dtype=torch.float32, device=hidden_NH.device)
        self.teacher_CV = torch.empty_like(self.student_CV)
        # Contiguous rows in the teacher's memory.
        self._narrow_CV = self.teacher_CV.view(-1).view(hidden_NH.dtype)[: self.teacher_CV.numel()].view(shape_CV)
        self._temperature = temperature
        self._kept_n2: Tensor | None = None

    def settle(self, logits_nV: Tensor) -> Tensor:
        return logits_nV  # neither a division by the temperature nor a subtraction changes their order

    def read(self, logits_nV: Tensor, ids_n1: Tensor, support_nK: Tensor, *, keep: bool) -> Reading:
        sampled_n1 = logits_nV.gather(-1, ids_n1).div_(self._temperature).clamp_(min=MASKED)
        inside_nK = logits_nV.gather(-1, support_nK).div_(self._temperature).clamp_(min=MASKED)
        logits_nV.scatter_(-1, support_nK, MASKED)
        num, vocabulary = logits_nV.shape
        found_n3 = torch.empty(num, 3, dtype=logits_nV.dtype, device=logits_nV.device)
        with torch.cuda.device_of(logits_nV):
            _compiled(_read)[(num,)](logits_nV, found_n3, vocabulary, self._temperature, READ_BLOCK, num_warps=READ_WARPS)
        largest_n, lse_n, mean_n = found_n3.unbind(-1)
        if keep:
            self._kept_n2 = found_n3[:, :2]
        # The row's largest logit is inside or outside.
        top_n1 = torch.cat([inside_nK, largest_n[:, None]], dim=-1).amax(-1, keepdim=True)
        inside_nK.sub_(top_n1)
        shift_n = largest_n - top_n1[:, 0]
        tail_n = lse_n + shift_n
        return Reading(
            sampled_n=(sampled_n1 - top_n1)[:, 0],
            buckets=Buckets(inside_NK=inside_nK, lse_N=torch.logaddexp(inside_nK.logsumexp(-1), tail_n), tail_lse_N=tail_n),
            outside_mean_n=mean_n + shift_n,
        )

    def gradient(self, rows: RowGradient) -> Tensor:
        assert self._kept_n2 is not None
        tail_n1 = rows.log_tail_n1.exp()
        scale_n1 = rows.by_tail_n1 - tail_n1 * rows.everything_n1
        slope_n1 = torch.zeros_like(scale_n1) if rows.by_entropy_n1 is None else tail_n1 * rows.by_entropy_n1
        offset_n1 = rows.log_tail_n1 + rows.entropy_n1
        numbers_n6 = torch.cat([self._kept_n2, scale_n1, slope_n1, offset_n1, rows.by_sampled_n1], dim=-1)
        num, vocabulary = len(numbers_n6), self.student_CV.shape[1]
        narrow_nV = self._narrow_CV[:num]
        with torch.cuda.device_of(narrow_nV):
            _compiled(_write)[(num, -(-vocabulary // WRITE_BLOCK))](
                self.student_CV, narrow_nV, rows.ids_n1, numbers_n6, vocabulary,
                self._temperature, rows.by_entropy_n1 is not None, WRITE_BLOCK, num_warps=WRITE_WARPS,
            )  # fmt: skip
        by_support_nK = (rows.by_support_nK / self._temperature).to(narrow_nV.dtype)
        return narrow_nV.scatter_(-1, rows.support_nK, by_support_nK)


class _Kernel(Protocol):
    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]: ...


@cache
def _compiled(kernel: Callable[..., None]) -> _Kernel:
    """At its first launch, and again for other types and constants. Triton wants a C compiler on the machine."""
    launchable: _Kernel = triton.jit(kernel)
    return launchable


def _read(
    logits: tl.tensor,
    found: tl.tensor,
    vocabulary: int,
    TEMPERATURE: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """A program a row: the largest z, and relative to it log-sum-exp and mean, into ``found``, [n, 3].

    Online softmax: each of BLOCK lanes has the largest z it saw, and relative to it the sums of e^z and of e^z z. A larger z
    rescales the sums. Lanes are combined once, after the loop."""
    row = tl.program_id(0).to(tl.int64)
    lanes = tl.arange(0, BLOCK)
    top = tl.full([BLOCK], -3.0e38, tl.float32)  # finite, and below what is masked: no difference of infinities
    total = tl.zeros([BLOCK], tl.float32)
    dot = tl.zeros([BLOCK], tl.float32)
    for first in range(0, vocabulary, BLOCK):
        columns = first + lanes
        z = tl.load(logits + row * vocabulary + columns, mask=columns < vocabulary, other=float("-inf"))
        if TEMPERATURE != 1.0:
            z = tl.div_rn(z, TEMPERATURE)
        rise = z - top
        shrunk = tl.exp(-tl.abs(rise))  # of the lane's sums where it rises, else of the newcomer
        # What it multiplies may be infinite where it underflows.
        of_old = tl.where(shrunk > 0, shrunk * (dot - total * rise), 0.0)
        of_new = tl.where(shrunk > 0, shrunk * rise, 0.0)
        dot = tl.where(rise > 0, of_old, dot + of_new)
        total = tl.where(rise > 0, total * shrunk + 1.0, total + shrunk)
        top = tl.maximum(top, z)
    row_top = tl.max(top, 0)
    shrunk = tl.exp(top - row_top)
    row_total = tl.sum(shrunk * total, 0)
    row_dot = tl.sum(tl.where(shrunk > 0, shrunk * (dot + total * (top - row_top)), 0.0), 0)
    tl.store(found + row * 3, row_top)
    tl.store(found + row * 3 + 1, tl.log(row_total))
    tl.store(found + row * 3 + 2, row_dot / row_total)


def _write(
    logits: tl.tensor,
    into: tl.tensor,
    ids: tl.tensor,
    numbers: tl.tensor,
    vocabulary: int,
    TEMPERATURE: tl.constexpr,
    HAS_ENTROPY: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """A program a row and block: q (scale - slope (log q + offset)), plus ``by_sampled`` at the sampled token, over the
    temperature. ``numbers``, [n, 6]: largest, lse, scale, slope, offset, by_sampled. Masked logits have q = 0."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = columns < vocabulary
    z = tl.load(logits + row * vocabulary + columns, mask=inside, other=float("-inf"))
    if TEMPERATURE != 1.0:
        z = tl.div_rn(z, TEMPERATURE)
    numbers += row * 6
    log_q = tl.maximum(z - tl.load(numbers) - tl.load(numbers + 1), -1.0e30)  # an excluded id's is -inf
    factor = tl.load(numbers + 2)
    if HAS_ENTROPY:
        factor -= tl.load(numbers + 3) * (log_q + tl.load(numbers + 4))
    by_z = tl.exp(log_q) * factor
    by_z += tl.where(columns == tl.load(ids + row), tl.load(numbers + 5), 0.0)
    if TEMPERATURE != 1.0:
        by_z = tl.div_rn(by_z, TEMPERATURE)
    tl.store(into + row * vocabulary + columns, by_z.to(into.dtype.element_ty), mask=inside)
