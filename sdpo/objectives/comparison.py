"""Who is compared with whom, over what, and by which divergence?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

from torch import Tensor

from sdpo.config import ClipSide, SupportConfig
from sdpo.objectives.divergence import Bounds, Clamped, Divergence, WholeRows
from sdpo.objectives.logits import PLAIN, HeadRule, Logits


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """How student and teacher are compared."""

    teacher: tuple[Logits, ...]
    """The teacher's logits are the sum of these: one model's, or a trust region's mixture of two."""
    support: SupportConfig
    divergence: Divergence
    pointwise_clip: float | None = None
    pointwise_clip_side: ClipSide = ClipSide.both

    @property
    def bounds(self) -> Bounds | None:
        """Least and largest of a bucket's term; None where it is not clamped."""
        if self.pointwise_clip is None:
            return None
        return (-self.pointwise_clip if self.pointwise_clip_side is ClipSide.both else -math.inf), self.pointwise_clip

    @property
    def whole(self) -> WholeRows:
        """The divergence over the whole vocabulary. Raises ValueError where it is not written out for that."""
        if self.bounds is not None:
            return Clamped(self.divergence, self.bounds)
        if not hasattr(self.divergence, "read"):
            raise ValueError(
                f"a divergence over the whole vocabulary needs its gradient by hand (sdpo.objectives.divergence.WholeRows); "
                f"{self.divergence!r} has none. Set algorithm.support.kind=student or teacher, with fewer ids."
            )
        return cast(WholeRows, self.divergence)

    def is_whole(self, vocabulary: int) -> bool:
        """Whether the support leaves nothing out."""
        return self.support.num_ids_of(vocabulary) == vocabulary


def check(hidden_NH: Tensor, head_VH: Tensor, ids_N: Tensor, comparison: Comparison | None, rule: HeadRule = PLAIN) -> None:
    """Raise ValueError for inputs that would otherwise give wrong numbers."""
    if len(hidden_NH) != len(ids_N):
        raise ValueError(f"each hidden state predicts one token; got {len(hidden_NH)} and {len(ids_N)}")
    if hidden_NH.dtype != head_VH.dtype:
        raise ValueError(f"hidden states and head must be of one type; got {hidden_NH.dtype} and {head_VH.dtype}")
    for values_V in (rule.bias_V, rule.closed_V):
        if values_V is not None and len(values_V) != len(head_VH):
            raise ValueError(f"a head's rule has a value for each of its {len(head_VH)} ids; got {len(values_V)}")
    if comparison is None:
        return
    if not comparison.teacher:
        raise ValueError("a comparison needs a teacher; got none")
    for part in comparison.teacher:
        if len(part.head_VH) < len(head_VH) or len(part.hidden_NH) != len(hidden_NH):
            raise ValueError(
                "the teacher scores every token of the student's vocabulary at every position; got "
                f"{len(part.hidden_NH)} x {len(part.head_VH)} of {len(hidden_NH)} x {len(head_VH)}"
            )
