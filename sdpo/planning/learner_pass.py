"""What does a learner rank hold while it works on a micro-batch? Activations, and what the loss works in.

A pack has T tokens on this rank, the model L layers, a number b bytes. Widths: H hidden, I of the MLP, Q of queries, K of keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sdpo.config import Config, FullSupport, SDPOConfig
from sdpo.planning.learner_state import Learning
from sdpo.planning.shapes import ModelShape, QkNorm
from sdpo.planning.terms import Term, counted, product

HEAD_ROWS = 4096
"""Rows of the output embedding that the loss works on at once (objectives/logits.py)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PassTokens:
    """Tokens of the largest micro-batch, on one rank."""

    student: int
    teacher: int


def pass_tokens(config: Config) -> PassTokens:
    """Student's and teacher's tokens in the largest micro-batch, on one rank.

    A pack holds ``batch.micro_batch_tokens``, or one row that is longer. Student and teacher are counted together, and a
    hindsight prompt is at least as long as the prompt. So the student has at most half, unless rows without a teacher carry a
    policy gradient. A team of ``sequence_parallel`` ranks shares each row. Padding of rows side by side is counted in the pack,
    so ``learner.packing`` changes nothing here.
    """
    algorithm, sampling, team = config.algorithm, config.sampling, config.learner.sequence_parallel
    budget, response = config.batch.micro_batch_tokens, sampling.max_response_tokens
    row = sampling.max_prompt_tokens + response
    if not isinstance(algorithm, SDPOConfig):
        return PassTokens(student=-(-max(row, budget) // team), teacher=0)
    hindsight = max(algorithm.hindsight.max_prompt_tokens, sampling.max_prompt_tokens) + response
    student = max(row, budget if algorithm.has_policy_gradient else budget // 2)
    return PassTokens(student=-(-student // team), teacher=-(-max(hindsight, budget) // team))


def layer_bytes(shape: ModelShape, num_bytes: int) -> int:
    """Bytes that autograd keeps of a token in one layer.

    - Two norms, each: the input in fp32, 4·H (in fp32 the residual itself); the normalised, b·H (OLMo: fp32); the product's
      input, b·H.
    - Attention: queries, keys, values, and its output, b·(2Q + 2K). Normalised queries and keys: the
      same two again, (4 + b)·(Q + K) (OLMo: fp32, 8·(Q + K)).
    - MLP: gate, its SiLU, up, and their product, 4·b·I.
    """
    b, queries, keys = num_bytes, shape.queries, shape.keys
    normed = 4 if shape.qk_norm is QkNorm.row else b
    norms = 2 * (4 + normed + b) * shape.hidden
    attention = b * (2 * queries + 2 * keys)
    if shape.qk_norm is not QkNorm.none:
        attention += (4 + normed) * (queries + keys)
    return norms + attention + 4 * b * shape.intermediate


def passing(learning: Learning, config: Config) -> tuple[Term, ...]:
    """Memory of the student's forward and backward pass, and of the teacher's forward pass, which is over before."""
    tokens = pass_tokens(config)
    return tuple(term for found in (_activations, _loss) for term in found(learning, config, tokens) if term.num_bytes > 0.0)


def _activations(learning: Learning, config: Config, tokens: PassTokens) -> Iterator[Term]:
    """T·L·layer_bytes. Recomputed: the input of each layer, T·L·b·H, and the whole of one, T·layer_bytes.

    The teacher's forward keeps one layer at work, T·b·(4H + 3I), so it counts only where that is more.
    """
    shape, b = learning.shape, learning.num_bytes
    each = layer_bytes(shape, b)
    if config.learner.gradient_checkpointing:
        kept = tokens.student * (shape.num_layers * b * shape.hidden + each)
        told = (
            f"{counted(tokens.student)} tokens x ({shape.num_layers} layers x {b} B x {shape.hidden} + {counted(each)} B of one)"
        )
    else:
        kept = tokens.student * shape.num_layers * each
        told = product((tokens.student, "tokens"), (shape.num_layers, "layers"), (each, "B"))
    teacher_bytes = tokens.teacher * b * (4 * shape.hidden + 3 * shape.intermediate)
    if teacher_bytes > kept:
        kept, told = (
            teacher_bytes,
            f"teacher's forward: {counted(tokens.teacher)} tokens x {counted(teacher_bytes / tokens.teacher)} B",
        )
    yield Term(name="activations", num_bytes=kept, arithmetic=told, is_passing=True)


def _loss(learning: Learning, config: Config, tokens: PassTokens) -> Iterator[Term]:
    """What the loss works in, which is never the logits of all tokens.

    - Two buffers of a chunk's logits (three over the whole vocabulary), each ``learner.logits_chunk_mib``, or 4·T·V where that is
      less.
    - A dozen numbers for each id of the support.
    - Where the head is trained, the fp32 sum of its gradient, 4·V·H, and 4,096 rows of it (objectives/fused.py).
    """
    shape, b, algorithm = learning.shape, learning.num_bytes, config.algorithm
    chunk = max(1, min(int(config.learner.logits_chunk_mib * 2**20) // (4 * shape.vocabulary), tokens.student))
    is_whole = isinstance(algorithm, SDPOConfig) and isinstance(algorithm.support, FullSupport)
    num_buffers = 3 if is_whole else 2
    yield Term(
        name="logits of a chunk",
        num_bytes=num_buffers * 4 * chunk * shape.vocabulary,
        arithmetic=f"{num_buffers} buffers x 4 B x {counted(chunk)} tokens x {counted(shape.vocabulary)} ids",
        is_passing=True,
    )
    if isinstance(algorithm, SDPOConfig) and not is_whole:
        ids = min(algorithm.support.num_ids_of(shape.vocabulary) + 1, shape.vocabulary)
        yield Term(
            name="logits of the support",
            num_bytes=12 * 4 * chunk * ids,
            arithmetic=f"12 numbers x 4 B x {counted(chunk)} tokens x {counted(ids)} ids",
            is_passing=True,
        )
    if not learning.learner.lora.rank:
        rows = min(HEAD_ROWS, shape.vocabulary)
        yield Term(
            name="gradient of the head",
            num_bytes=4 * shape.embedding_parameters + b * rows * shape.hidden,
            arithmetic=f"4 B x {counted(shape.vocabulary)} x {shape.hidden} + {b} B x {rows} x {shape.hidden}",
            is_passing=True,
        )
