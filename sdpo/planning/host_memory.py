"""What does a node's own memory hold, where the work is on GPUs?"""

from __future__ import annotations

from dataclasses import dataclass

from sdpo.config import Config
from sdpo.planning.engine_memory import EngineMemory
from sdpo.planning.learner_state import item_bytes
from sdpo.planning.places import Places
from sdpo.planning.shapes import ModelShape
from sdpo.planning.terms import GIB, Term, product

PROCESS_GIB = 2.0
"""GiB of a process with torch and CUDA, or vLLM, on the host; assumed."""
VERIFIER_GIB = 0.3
"""GiB of one verifier, sandbox included; assumed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """What is on a node."""

    index: int
    num_ranks: int
    num_engines: int


def nodes(where: Places) -> tuple[Node, ...]:
    return tuple(
        Node(
            index=node,
            num_ranks=sum(spot.node == node for spot in where.ranks),
            num_engines=sum(spots[0].node == node for spots in where.engines),
        )
        for node in range(where.num_nodes)
    )


def payload_bytes(shape: ModelShape, config: Config) -> float:
    """b·P of the learner's compute type: what travels to the engines."""
    return float(item_bytes(config.learner.dtype) * shape.num_parameters)


def object_store_bytes(shape: ModelShape, config: Config) -> float:
    """2·b·P bytes: the weights that engines serve, kept for one that is restarted, and those on their way.

    They lie in whole buckets, of which a tensor that is larger has its own.
    """
    return 2.0 * payload_bytes(shape, config)


def host_terms(node: Node, where: Places, shape: ModelShape, config: Config, rank: tuple[Term, ...]) -> tuple[Term, ...]:
    """``rank``: a learner rank's terms, of which those on the host count here."""
    b, width = item_bytes(config.rollout.dtype), config.rollout.tensor_parallel_size
    moved = sum(term.num_bytes for term in rank if term.is_on_host)
    found = [
        Term(
            name="learner, offloaded",
            num_bytes=node.num_ranks * moved,
            arithmetic=f"{node.num_ranks} ranks x {moved / GIB:.1f} GiB",
        ),
        Term(
            name="weights under way, in the object store",
            num_bytes=object_store_bytes(shape, config) if node.num_engines or node.index == 0 else 0.0,
            arithmetic=product((2, "copies"), (item_bytes(config.learner.dtype), "B"), (shape.num_parameters, "parameters")),
        ),
        Term(
            name="resting engines' weights",
            num_bytes=node.num_engines * b * shape.num_parameters if where.shares.are_colocated else 0.0,
            arithmetic=product((node.num_engines, "engines"), (b, "B"), (shape.num_parameters, "parameters")),
        ),
        Term(
            name="processes",
            num_bytes=(node.num_ranks + node.num_engines * width) * PROCESS_GIB * GIB,
            arithmetic=f"{node.num_ranks + node.num_engines * width} x {PROCESS_GIB:g} GiB",
        ),
    ]
    if node.index == 0:
        found.append(
            Term(
                name="verifiers",
                num_bytes=config.rollout.num_verifiers * VERIFIER_GIB * GIB,
                arithmetic=f"{config.rollout.num_verifiers} x {VERIFIER_GIB:g} GiB",
            )
        )
    return tuple(term for term in found if term.num_bytes > 0.0)


def cache_sequences(engine: EngineMemory, config: Config) -> float:
    """How many of the longest sequences the KV cache holds at once."""
    return engine.cache_tokens / config.max_model_tokens
