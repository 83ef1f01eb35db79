"""Does a run fit onto its GPUs? Every budget beside what is asked of it, and each breach with its arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sdpo.config import Config, Placement
from sdpo.planning.engine_memory import EngineMemory, engine_memory, overhead
from sdpo.planning.host_memory import Node, cache_sequences, host_terms, nodes, object_store_bytes
from sdpo.planning.learner_pass import passing
from sdpo.planning.learner_state import Learning, state
from sdpo.planning.places import Places, places
from sdpo.planning.shapes import ModelShape
from sdpo.planning.terms import GIB, Term, total

SLACK = 0.05
"""Share of a torch process's tensors that is lost between the allocator's blocks; assumed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What the plan is made for."""

    gpus_per_node: int
    gpu_gib: float
    host_gib: float | None
    """GiB of a node's own memory; None: not known, so not checked."""
    joins_cluster: bool = False
    """Ray is there already, with an object store of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuPlan:
    """Places of everything in a run on GPUs, the memory that it takes, and what is wrong with that."""

    config: Config
    shape: ModelShape
    machine: Machine
    where: Places
    rank: tuple[Term, ...]
    """Memory of each learner rank, on its GPU and on its host."""
    engine: EngineMemory
    hosts: tuple[tuple[Node, tuple[Term, ...]], ...]
    problems: tuple[str, ...]
    remarks: tuple[str, ...]
    """What works and might surprise."""

    @property
    def fits(self) -> bool:
        return not self.problems


def gpu_plan(config: Config, shape: ModelShape, external: ModelShape | None, machine: Machine) -> GpuPlan:
    """The plan of a run on GPUs. Raises UserError where not even the places can be found."""
    where = places(config, machine.gpus_per_node)
    rank = rank_terms(config, shape, external)
    engine = engine_memory(shape, config, machine.gpu_gib)
    hosts = tuple((node, host_terms(node, where, shape, config, rank)) for node in nodes(where))
    problems = (
        *_gpu_problems(config, shape, machine, where, rank),
        *_engine_problems(config, shape, machine, engine),
        *_host_problems(config, shape, machine, hosts),
    )
    return GpuPlan(
        config=config,
        shape=shape,
        machine=machine,
        where=where,
        rank=rank,
        engine=engine,
        hosts=hosts,
        problems=problems,
        remarks=tuple(_remarks(config, where, engine)),
    )


def rank_terms(config: Config, shape: ModelShape, external: ModelShape | None) -> tuple[Term, ...]:
    """Memory of a learner rank with a GPU."""
    learning = Learning(shape=shape, learner=config.learner, algorithm=config.algorithm, external=external)
    tensors = (*state(learning), *passing(learning, config))
    lost = SLACK * total(tensors)
    slack = Term(name="allocator", num_bytes=lost, arithmetic=f"{SLACK:.0%} of {total(tensors) / GIB:.1f} GiB")
    return (*tensors, slack, overhead(config.learner.num_ranks))


def told(terms: tuple[Term, ...]) -> str:
    """The largest first, as a sum."""
    largest = sorted(terms, key=lambda term: -term.num_bytes)
    shown = [f"{term.name} {term.gib:.1f}" for term in largest[:6]]
    rest = sum(term.gib for term in largest[6:])
    return " + ".join([*shown, f"the rest {rest:.1f}"] if len(largest) > 6 else shown)


def _gpu_problems(config: Config, shape: ModelShape, machine: Machine, where: Places, rank: tuple[Term, ...]) -> Iterator[str]:
    """What is wrong with a rank's GPU, its own or a shared one.

    An engine takes its share of a shared GPU, while the rank keeps all it ever took. Torch gives a GPU's memory back to nobody by
    itself.
    """
    on_gpu = tuple(term for term in rank if not term.is_on_host)
    if shape.num_heads % config.learner.sequence_parallel:
        yield (
            f"learner.sequence_parallel must divide the model's {shape.num_heads} attention heads; got "
            f"{config.learner.sequence_parallel}."
        )
    needed = total(rank) / GIB
    if not where.shares.are_colocated:
        if needed > machine.gpu_gib:
            yield f"a learner rank needs {needed:.1f} GiB and its GPU has {machine.gpu_gib:g}: {told(on_gpu)}."
        return
    share = config.rollout.gpu_memory_utilization * machine.gpu_gib
    if needed + share > machine.gpu_gib:
        yield (
            f"a GPU that a learner rank and an engine share has {machine.gpu_gib:g} GiB, and they need {needed:.1f} + "
            f"{share:.1f} = {needed + share:.1f}: {told(on_gpu)}; and the engine rollout.gpu_memory_utilization="
            f"{config.rollout.gpu_memory_utilization:g} x {machine.gpu_gib:g}."
        )


def _engine_problems(config: Config, shape: ModelShape, machine: Machine, engine: EngineMemory) -> Iterator[str]:
    """One longest sequence must find room in the KV cache, or vLLM refuses to start. Heads are dealt out evenly."""
    width, longest = config.rollout.tensor_parallel_size, config.max_model_tokens
    if shape.num_heads % width:
        yield f"rollout.tensor_parallel_size must divide the model's {shape.num_heads} attention heads; got {width}."
    needed = longest * engine.token_bytes
    if engine.cache_bytes < needed:
        fixed = tuple(term for term in engine.terms if term.name != "KV cache")
        yield (
            f"an engine's KV cache must hold one longest sequence, {longest:,} tokens x {engine.token_bytes / 1024:.1f} KiB = "
            f"{needed / GIB:.2f} GiB; left for it are {engine.cache_bytes / GIB:.2f} GiB: rollout.gpu_memory_utilization="
            f"{config.rollout.gpu_memory_utilization:g} x {machine.gpu_gib:g} GiB less {told(fixed)}."
        )
    if shape.max_tokens is not None and longest > shape.max_tokens:
        yield f"the longest prompt with its response has {longest:,} tokens, and the model's context {shape.max_tokens:,}."


def _host_problems(
    config: Config, shape: ModelShape, machine: Machine, hosts: tuple[tuple[Node, tuple[Term, ...]], ...]
) -> Iterator[str]:
    needed, given = object_store_bytes(shape, config) / GIB, config.cluster.object_store_gib
    if not machine.joins_cluster and given is not None and needed > given:
        yield (
            f"Ray's object store must hold two copies of the weights, {needed:.1f} GiB, those that engines serve and those under "
            f"way; cluster.object_store_gib={given:g}. Beyond it Ray writes to the disk at every step."
        )
    for node, terms in hosts:
        taken = sum(term.gib for term in terms)
        if machine.host_gib is not None and taken > machine.host_gib:
            yield f"node {node.index} needs {taken:.1f} GiB of its own memory and has {machine.host_gib:g}: {told(terms)}."
            break  # the others are as full, or emptier


def _remarks(config: Config, where: Places, engine: EngineMemory) -> Iterator[str]:
    if where.split_teams:
        yield (
            f"{len(where.split_teams)} of {len(where.teams)} teams of learner.sequence_parallel="
            f"{config.learner.sequence_parallel} ranks lie on several nodes: their all-to-all in every layer "
            "goes over the network."
        )
    if len(where.learner_nodes) > 1 and config.learner.zero_stage == 3:
        yield (
            f"ZeRO 3 gathers parameters over {len(where.learner_nodes)} nodes in every pass; where they fit, "
            "learner.zero_stage=1 or 2 sends gradients once an update."
        )
    at_once = cache_sequences(engine, config)
    if engine.cache_bytes > 0.0 and at_once < config.rollout.max_num_seqs:
        yield (
            f"the KV cache holds {at_once:.0f} sequences of the longest kind at once, of rollout.max_num_seqs="
            f"{config.rollout.max_num_seqs}: longer batches wait, or are computed anew."
        )
    num_gpus = where.num_nodes * where.gpus_per_node
    used = len({*where.ranks, *(spot for spots in where.engines for spot in spots)})
    if used < num_gpus:
        yield f"{num_gpus - used} of {num_gpus} GPUs have nothing to do: raise learner.num_ranks or rollout.num_engines."
    if config.cluster.placement is Placement.auto and where.shares.are_colocated:
        yield "there are too few GPUs for every rank and engine to have its own, so a rank and an engine share one."
