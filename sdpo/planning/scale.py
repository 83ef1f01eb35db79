"""How long does a step take on more nodes, from the times of its phases on few? A model that says what it assumes.

Generation is divided by the engines until the longest response alone takes as long. Learning is divided by the ranks in whole
rows. The optimizer is divided where ZeRO splits it. Gradients go round a ring: 2(N-1)/N of their bytes over a node's bandwidth,
and 2(N-1) latencies (Patarasuk and Yuan, 2009, for the all-reduce). A reduce-scatter or all-gather is half of it. Weights reach N
nodes in log2 N rounds. What the driver does is not divided (Amdahl, 1967). With ``rollout.staleness`` generation and learning
happen side by side: the longer of them counts instead of both.

Strong scaling is the same batch on more nodes; its efficiency is t(1) / (N t(N)). Weak scaling is N times the batch on N nodes;
its efficiency is t(1) / t(N). What the optimizer gains from more shards is not counted there, so that it never exceeds 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from math import ceil, log2

FACTORS = (1, 2, 4, 8, 16, 32, 64)
"""Times the nodes that were measured."""


class Part(Enum):
    """A part of a step; the value is its word."""

    generation = "generation"
    longest = "the longest response"
    """Generation, where more engines do not help any more."""
    verification = "verification"
    learning = "learning"
    rows = "rows that do not divide"
    """Learning, where a rank has one row an update left, or ranks differ in their rows."""
    optimizer = "optimizer"
    communication = "gradients and parameters between nodes"
    sync = "weights to the engines"
    driver = "driver"
    """One process: hindsight, packing, recording, and what is in no phase."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """The network between nodes."""

    bytes_per_s: float
    """Bytes a second that a node sends, in one direction."""
    latency_s: float
    """Latency of a message, in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A step as it was measured."""

    source: str
    num_nodes: int
    """Number of nodes that it was measured on."""
    generate_s: float
    """Until the last completion, beside earlier steps or not."""
    longest_s: float
    """Seconds of the longest response by itself; at most ``generate_s``."""
    verify_s: float
    learn_s: float
    """The updates, without the optimizer."""
    optimizer_s: float
    sync_s: float
    driver_s: float
    attempts: float
    rows_per_update: float
    updates: int
    ranks_per_node: float
    """Ranks of a node that have rows of their own."""
    passes: int
    """Micro-batches of a rank in an update."""
    zero_stage: int
    gradient_bytes: float
    """fp32, of what is trained."""
    weight_bytes: float
    """Bytes of the whole model, in the compute type."""
    overlaps: bool
    """Whether generation and learning are side by side."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A step on so many nodes."""

    num_nodes: int
    parts: Mapping[Part, float]
    """Seconds of each."""
    step_s: float
    efficiency: float
    attempts_per_h: float

    @property
    def limit(self) -> Part:
        """What takes longest."""
        return max(self.parts, key=lambda part: self.parts[part])

    @property
    def limit_share(self) -> float:
        return self.parts[self.limit] / self.step_s if self.step_s > 0.0 else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Strong or weak scaling."""

    title: str
    points: tuple[Point, ...]
    assumptions: tuple[str, ...]

    def record(self) -> dict[str, object]:
        """For JSON."""
        return {
            "title": self.title,
            "points": [
                {
                    "nodes": point.num_nodes,
                    "step_s": round(point.step_s, 4),
                    "efficiency": round(point.efficiency, 4),
                    "attempts_per_h": round(point.attempts_per_h, 1),
                    "limit": point.limit.name,
                    "seconds": {part.name: round(seconds, 4) for part, seconds in point.parts.items()},
                }
                for point in self.points
            ],
            "assumptions": list(self.assumptions),
        }


def curves(work: Workload, network: Network) -> tuple[Curve, ...]:
    """Strong and weak."""
    return tuple(
        Curve(
            title=f"{title}, from {work.source}",
            points=tuple(point(work, network, factor, is_weak=is_weak) for factor in FACTORS),
            assumptions=_assumptions(work, network) if is_weak else (),
        )
        for title, is_weak in (("strong scaling: the same batch", False), ("weak scaling: a batch for every node", True))
    )


def point(work: Workload, network: Network, factor: int, *, is_weak: bool) -> Point:
    """On ``factor`` times the measured nodes."""
    parts = parts_of(work, network, factor, is_weak=is_weak)
    alone, here = (together(found, work.overlaps) for found in (parts_of(work, network, 1, is_weak=is_weak), parts))
    gained = alone / here if here > 0.0 else 1.0
    attempts = work.attempts * (factor if is_weak else 1)
    return Point(
        num_nodes=work.num_nodes * factor,
        parts=parts,
        step_s=here,
        efficiency=gained if is_weak else gained / factor,
        attempts_per_h=attempts / here * 3600.0 if here > 0.0 else 0.0,
    )


def together(parts: Mapping[Part, float], overlaps: bool) -> float:
    """The step: the sum, or the longer of the two sides and what neither can hide."""
    sampling = sum(parts.get(part, 0.0) for part in (Part.generation, Part.longest, Part.verification))
    learning = sum(parts.get(part, 0.0) for part in (Part.learning, Part.rows, Part.optimizer, Part.communication))
    rest = parts[Part.sync] + parts[Part.driver]
    return (max(sampling, learning) if overlaps else sampling + learning) + rest


def parts_of(work: Workload, network: Network, factor: int, *, is_weak: bool) -> dict[Part, float]:
    """Seconds of each part on ``factor`` times the nodes."""
    divided = 1 if is_weak else factor
    even = work.generate_s / divided
    generation = max(even, work.longest_s)
    talked = communication_s(work, network, 1, is_weak=is_weak)
    share = min(1.0, work.learn_s / talked) if talked > 0.0 else 1.0  # what was measured has its own communication in it
    alone = max(0.0, work.learn_s - talked)
    learning = alone * (1.0 if is_weak else uneven(work, factor))
    optimizer = work.optimizer_s / (divided if work.zero_stage >= 1 else 1)
    return {
        Part.generation if generation == even else Part.longest: generation,
        Part.verification: work.verify_s / divided,
        Part.rows if learning > 1.25 * alone / divided else Part.learning: learning,
        Part.optimizer: optimizer,
        Part.communication: share * communication_s(work, network, factor, is_weak=is_weak),
        Part.sync: work.sync_s + broadcast_s(work, network, factor) - broadcast_s(work, network, 1),
        Part.driver: work.driver_s * (factor if is_weak else 1),
    }


def uneven(work: Workload, factor: int) -> float:
    """The share of the measured learning that is left: the rows of the busiest rank, then and now, in whole ones."""
    ranks = work.ranks_per_node * work.num_nodes
    return ceil(work.rows_per_update / (ranks * factor)) / ceil(work.rows_per_update / ranks)


def ring_s(num_bytes: float, num_nodes: int, network: Network, *, turns: int = 2) -> float:
    """An all-reduce over a ring of nodes; ``turns=1``: a reduce-scatter or an all-gather."""
    steps = turns * (num_nodes - 1)
    return steps * (num_bytes / num_nodes / network.bytes_per_s + network.latency_s)


def communication_s(work: Workload, network: Network, factor: int, *, is_weak: bool) -> float:
    """Seconds of a step for gradients and parameters between nodes.

    - ZeRO 0: an all-reduce of the fp32 gradients an update.
    - ZeRO 1: besides, the new parameters gathered.
    - ZeRO 2: gradients scattered in every pass, and the new parameters gathered an update.
    - ZeRO 3: in every pass gradients scattered, and parameters gathered three times (teacher, forward, backward).
    """
    num_nodes = work.num_nodes * factor
    passes = work.passes if is_weak else ceil(work.passes / factor)
    gathered = ring_s(work.weight_bytes, num_nodes, network, turns=1)
    reduced = ring_s(work.gradient_bytes, num_nodes, network)
    scattered = ring_s(work.gradient_bytes, num_nodes, network, turns=1)
    update = {0: reduced, 1: reduced + gathered, 2: passes * scattered + gathered, 3: passes * (3 * gathered + scattered)}
    return work.updates * update[work.zero_stage]


def broadcast_s(work: Workload, network: Network, factor: int) -> float:
    """Weights from one node to all: every round, each that has them passes them on."""
    rounds = ceil(log2(work.num_nodes * factor))
    return rounds * (work.weight_bytes / network.bytes_per_s + network.latency_s)


def _assumptions(work: Workload, network: Network) -> tuple[str, ...]:
    return (
        f"generation is divided by the engines, down to {work.longest_s:.2f} s, the longest response by itself",
        f"verifiers grow with the nodes, and learning is divided in whole rows ({work.rows_per_update:g} an update); what "
        "siblings share is not counted twice where they are parted",
        f"a node sends {network.bytes_per_s / 1e9:g} GB/s, a message takes {network.latency_s * 1e6:g} µs; gradients "
        f"({work.gradient_bytes / 1e9:.2f} GB in fp32) are not sent while the backward still runs",
        f"weights ({work.weight_bytes / 1e9:.2f} GB) are copied from node to node in log2 N rounds",
        f"the driver's {work.driver_s:.2f} s are not divided, and grow with the batch",
        "generation and learning are side by side: the longer counts"
        if work.overlaps
        else "generation and learning take turns (rollout.staleness=0)",
    )
