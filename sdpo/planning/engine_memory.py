"""What does an engine hold on each GPU it spans, and how much is left for its KV cache?

vLLM takes ``rollout.gpu_memory_utilization`` of the GPU whatever the model. Weights and the memory of its trial pass come first,
and the KV cache gets the rest (its worker's ``determine_available_memory``).
"""

from __future__ import annotations

from dataclasses import dataclass

from sdpo.config import Config
from sdpo.planning.learner_state import item_bytes
from sdpo.planning.shapes import ModelShape
from sdpo.planning.terms import GIB, Term, counted, product

CONTEXT_GIB = 0.6
"""GiB of a CUDA context with its libraries; assumed."""
COLLECTIVES_GIB = 0.5
"""GiB of NCCL's buffers, where several GPUs work together; assumed."""
TRIAL_TOKENS = 8192
"""Least ``max_num_batched_tokens`` that the engine is given (rollout/engine.py)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineMemory:
    """Memory of one engine, on each of its GPUs."""

    terms: tuple[Term, ...]
    """All of them, the KV cache included."""
    token_bytes: float
    """Bytes that the KV cache takes for a token, on one GPU."""
    cache_bytes: float
    """What is left for the KV cache; below 0 where the rest does not even fit."""

    @property
    def cache_tokens(self) -> int:
        return max(0, int(self.cache_bytes // self.token_bytes))


def kv_token_bytes(shape: ModelShape, num_bytes: int, width: int) -> float:
    """2·L·K·b: keys and values of all layers. ``width`` GPUs share the key-value heads; fewer heads than GPUs are repeated."""
    heads = -(-shape.num_kv_heads // width)
    return 2.0 * shape.num_layers * heads * shape.head_size * num_bytes


def engine_memory(shape: ModelShape, config: Config, gpu_gib: float) -> EngineMemory:
    """Memory of an engine on GPUs of ``gpu_gib`` GiB each."""
    rollout, width = config.rollout, config.rollout.tensor_parallel_size
    b = item_bytes(rollout.dtype)
    tokens = max(TRIAL_TOKENS, config.max_model_tokens)
    # The widest moment of a layer: its input, gate, up and their product; and a step's logits in fp32, sorted and copied.
    trial = tokens * b * (2 * shape.hidden + 3 * shape.intermediate / width)
    logits = 3.0 * 4.0 * rollout.max_num_seqs * shape.vocabulary
    fixed = [
        Term(
            name="weights",
            num_bytes=b * shape.num_parameters / width,
            arithmetic=product((b, "B"), (shape.num_parameters, "parameters"), over=width),
        ),
        Term(
            name="trial pass",
            num_bytes=trial,
            arithmetic=f"{counted(tokens)} tokens x {b} B x (2 x {shape.hidden} + 3 x {shape.intermediate}"
            + (f" / {width})" if width > 1 else ")"),
            is_passing=True,
        ),
        Term(
            name="logits of a step",
            num_bytes=logits,
            arithmetic=f"3 x 4 B x {rollout.max_num_seqs} sequences x {counted(shape.vocabulary)} ids",
            is_passing=True,
        ),
        overhead(width),
    ]
    allowed = rollout.gpu_memory_utilization * gpu_gib * GIB
    cache = allowed - sum(term.num_bytes for term in fixed)
    told = f"{rollout.gpu_memory_utilization:g} x {gpu_gib:g} GiB less the above"
    kept = Term(name="KV cache", num_bytes=max(0.0, cache), arithmetic=told)
    return EngineMemory(terms=(*fixed, kept), token_bytes=kv_token_bytes(shape, b, width), cache_bytes=cache)


def overhead(num_together: int) -> Term:
    """CUDA's context, and NCCL's buffers where processes work together."""
    gib = CONTEXT_GIB + (COLLECTIVES_GIB if num_together > 1 else 0.0)
    told = f"{CONTEXT_GIB} GiB of CUDA" + (f" + {COLLECTIVES_GIB} GiB of NCCL" if num_together > 1 else "")
    return Term(name="framework", num_bytes=gib * GIB, arithmetic=told)
