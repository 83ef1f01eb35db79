"""What does a learner rank hold between its passes? Weights, gradients, master weights and moments, the teacher's.

P parameters, of which A are trained (all of them, or the adapters'), N ranks, b bytes a number in the compute type. What ZeRO
splits is in arXiv 1910.02054, section 5; what DeepSpeed 0.19 allocates beyond that was read in its sources, which are named.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sdpo.config import AlgorithmConfig, Dtype, LearnerConfig, LoraConfig, Offload
from sdpo.planning.shapes import ModelShape
from sdpo.planning.terms import Term, counted, product

REDUCE_BUCKET = 500_000_000
"""Numbers in a gradient bucket (DeepSpeed's ``reduce_bucket_size``, which the learner leaves as it is)."""
MAX_LIVE = 1_000_000_000
"""Parameters that ZeRO 3 keeps whole at once, for the next pass (DeepSpeed's ``stage3_max_live_parameters``, likewise)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Learning:
    """What the formulas below are about."""

    shape: ModelShape
    learner: LearnerConfig
    algorithm: AlgorithmConfig
    external: ModelShape | None = None
    """An external teacher."""
    is_gpu: bool = True

    @property
    def num_bytes(self) -> int:
        """b"""
        return item_bytes(self.learner.dtype)

    @property
    def num_trained(self) -> int:
        """A"""
        return adapter_parameters(self.shape, self.learner.lora) if self.learner.lora.rank else self.shape.num_parameters

    @property
    def shards(self) -> int:
        """Ranks over which the optimizer's part is split."""
        return self.learner.num_ranks if self.learner.zero_stage >= 1 else 1

    @property
    def parts(self) -> int:
        """Ranks over which parameters are split."""
        return self.learner.num_ranks if self.learner.zero_stage == 3 else 1

    @property
    def keeps_average(self) -> bool:
        return self.algorithm.taught_by is not None and self.algorithm.taught_by.keeps_average

    @property
    def is_flat_bf16(self) -> bool:
        """Whether DeepSpeed's BF16_Optimizer steps (runtime/engine.py, ``_do_optimizer_sanity_check``)."""
        return self.learner.dtype is Dtype.bfloat16 and self.learner.zero_stage == 1 and self.learner.offload is Offload.none


def item_bytes(dtype: Dtype) -> int:
    """Bytes of a number."""
    return {Dtype.bfloat16: 2, Dtype.float32: 4}[dtype]


def adapter_parameters(shape: ModelShape, lora: LoraConfig) -> int:
    """L · Σ rank·(in + out) over the products that get an adapter (arXiv 2106.09685, section 4.1)."""
    sizes = shape.linear_sizes()
    named = sizes if lora.target_modules == ["all-linear"] else {n: s for n, s in sizes.items() if n in lora.target_modules}
    return shape.num_layers * sum(lora.rank * (wide + narrow) for wide, narrow in named.values())


def state(learning: Learning) -> tuple[Term, ...]:
    """All of it."""
    return tuple(
        term
        for found in (_weights, _gradients, _optimizer, _buckets, _teacher, _reference)
        for term in found(learning)
        if term.num_bytes > 0.0
    )


def _weights(learning: Learning) -> Iterator[Term]:
    """b·P, over N ranks at ZeRO 3; adapters besides, twice where a teacher has its own. At ZeRO 3 b·min(P, 1e9) more for what
    is whole at a time."""
    shape, b, parts = learning.shape, learning.num_bytes, learning.parts
    adapters = learning.num_trained * (2 if learning.keeps_average else 1) if learning.learner.lora.rank else 0
    whole = shape.num_parameters + adapters
    is_on_host = learning.learner.offload is Offload.all and learning.is_gpu
    yield Term(
        name="weights",
        num_bytes=b * whole / parts,
        arithmetic=product((b, "B"), (whole, "parameters"), over=parts),
        is_on_host=is_on_host,
    )
    if parts > 1 or is_on_host:
        live = min(whole, MAX_LIVE)
        yield Term(
            name="parameters gathered",
            num_bytes=b * live,
            arithmetic=product((b, "B"), (live, "parameters at once")),
            is_passing=True,
        )


def _gradients(learning: Learning) -> Iterator[Term]:
    """Stage 0: b·A. Stage 1 in bf16: fp32 sums, whole on every rank, 4·A (runtime/bf16_optimizer.py), and b·A of the pass at
    hand. Stage 1 in fp32 or offloaded: b·A of the pass at hand. Stages 2 and 3: 4·A/N of fp32 sums."""
    a, b, stage, n = learning.num_trained, learning.num_bytes, learning.learner.zero_stage, learning.shards
    is_offloaded = learning.learner.offload is not Offload.none and learning.is_gpu
    if learning.is_flat_bf16:
        yield Term(name="gradients, summed", num_bytes=4 * a, arithmetic=product((4, "B"), (a, "trained")))
    if stage >= 2 or is_offloaded:
        yield Term(
            name="gradients, summed",
            num_bytes=4 * a / n,
            arithmetic=product((4, "B"), (a, "trained"), over=n),
            is_on_host=is_offloaded,
        )
    if stage <= 1:
        yield Term(name="gradients", num_bytes=b * a, arithmetic=product((b, "B"), (a, "trained")), is_passing=True)


def _optimizer(learning: Learning) -> Iterator[Term]:
    """fp32 master weights and two moments, 12·A/N; without ZeRO the parameters are their own masters, 8·A."""
    a, n, stage = learning.num_trained, learning.shards, learning.learner.zero_stage
    each = 8 if stage == 0 else 12
    yield Term(
        name="moments" if stage == 0 else "master weights and moments",
        num_bytes=each * a / n,
        arithmetic=product((each, "B"), (a, "trained"), over=n),
        is_on_host=learning.learner.offload is not Offload.none and learning.is_gpu,
    )


def _buckets(learning: Learning) -> Iterator[Term]:
    """Gradients on their way, in buckets of 5e8 numbers (runtime/zero/stage_1_and_2.py, stage3.py).

    A number is fp32 at ZeRO 1 and 3, and has b bytes at 2. A bucket is allocated whole on a GPU. On a CPU, and by BF16_Optimizer,
    it is used as far as there are gradients. Then there is the flat gradient that the step is taken with, 4·A/N. ZeRO 3,
    offloading and BF16_Optimizer, which has it, do not add one.
    """
    stage, a, n = learning.learner.zero_stage, learning.num_trained, learning.shards
    if stage == 0:
        return
    numbers = min(REDUCE_BUCKET, a) if learning.is_flat_bf16 or not learning.is_gpu else REDUCE_BUCKET
    each = learning.num_bytes if stage == 2 else 4
    # One rank has nobody to reduce with: BF16_Optimizer then needs no bucket, and the others copy into theirs all the same.
    if not learning.is_flat_bf16 or n > 1:
        yield Term(
            name="gradient bucket",
            num_bytes=each * numbers,
            arithmetic=product((each, "B"), (numbers, "numbers")),
            is_passing=True,
        )
    is_offloaded = learning.learner.offload is not Offload.none and learning.is_gpu
    if stage <= 2 and not learning.is_flat_bf16 and not is_offloaded:
        yield Term(
            name="gradient of the step",
            num_bytes=4 * a / n,
            arithmetic=product((4, "B"), (a, "trained"), over=n),
            is_passing=True,
        )


def _teacher(learning: Learning) -> Iterator[Term]:
    """What the teacher's models take besides the policy."""
    teacher = learning.algorithm.taught_by
    if teacher is not None:
        for terms in teacher.models(_TeacherTerms(learning)):
            yield from terms


@dataclass(frozen=True, slots=True)
class _TeacherTerms:
    """The sizes of a teacher's parts."""

    learning: Learning

    def now(self, *, weight: float = 1.0, is_hinted: bool = True) -> tuple[Term, ...]:
        """Nothing: it is the policy."""
        return ()

    def start(self, *, weight: float = 1.0, is_hinted: bool = True) -> tuple[Term, ...]:
        """A copy in the compute type, b·P, over N ranks at ZeRO 3; with adapters the base is it."""
        learning = self.learning
        return () if learning.learner.lora.rank else (_copy(learning, "teacher", learning.shape.num_parameters),)

    def average(self, *, rate: float, on_host: bool, every: int = 1) -> tuple[Term, ...]:
        """The average in fp32 shards, 4·A/N; unless adapters are trained also a copy in the compute type for the forward."""
        learning = self.learning
        average = Term(
            name="teacher's average (fp32)",
            num_bytes=4 * learning.num_trained / learning.shards,
            arithmetic=product((4, "B"), (learning.num_trained, "trained"), over=learning.shards),
            is_on_host=on_host and learning.is_gpu,
        )
        return (average, *self.start())

    def other(self) -> tuple[Term, ...]:
        """b times its own parameters."""
        return (_copy(self.learning, "teacher", (self.learning.external or self.learning.shape).num_parameters),)


def _reference(learning: Learning) -> Iterator[Term]:
    """With ``reference_kl`` a frozen copy, b·P, over N ranks at ZeRO 3; with adapters the base is it."""
    if learning.algorithm.reference_kl and not learning.learner.lora.rank:
        yield _copy(learning, "reference", learning.shape.num_parameters)


def _copy(learning: Learning, name: str, num_parameters: int) -> Term:
    b, parts = learning.num_bytes, learning.parts
    return Term(
        name=f"{name}'s weights",
        num_bytes=b * num_parameters / parts,
        arithmetic=f"{b} B x {counted(num_parameters)} parameters" + (f" / {parts}" if parts > 1 else ""),
        is_on_host=learning.learner.offload is Offload.all and learning.is_gpu,
    )
