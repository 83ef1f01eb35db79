"""What does each process of a run hold at its peak on a machine without GPUs?

Proportional set sizes: memory that processes share is counted once, and Ray's object store by itself. The tensors follow from the
same formulas as on a GPU; what a process holds before the first tensor was seen in runs (docs/planning.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from sdpo.config import Config
from sdpo.planning.engine_memory import TRIAL_TOKENS, kv_token_bytes
from sdpo.planning.gpu_plan import Machine
from sdpo.planning.host_memory import object_store_bytes
from sdpo.planning.learner_pass import passing
from sdpo.planning.learner_state import Learning, item_bytes, state
from sdpo.planning.places import Places, places
from sdpo.planning.shapes import ModelShape
from sdpo.planning.terms import GIB, Term, counted, product, total

BARE_GIB = {"driver": 0.41, "learner": 0.46, "engine": 0.65, "verifier": 0.15, "ray": 0.45}
"""GiB of a process with its libraries loaded, as the kernel counted in runs (docs/planning.md). ``ray``: all of Ray's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessPlan:
    """Processes of one kind, each of which holds the same."""

    name: str
    num: int
    terms: tuple[Term, ...]

    @property
    def gib(self) -> float:
        """GiB of one process."""
        return total(self.terms) / GIB


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuPlan:
    """What each process of a run on CPUs holds, and what is wrong with that."""

    config: Config
    shape: ModelShape
    machine: Machine
    where: Places
    processes: tuple[ProcessPlan, ...]
    problems: tuple[str, ...]
    remarks: tuple[str, ...]

    @property
    def fits(self) -> bool:
        return not self.problems

    @property
    def machine_gib(self) -> float:
        """GiB on the driver's node, which has the most on it."""
        return sum(process.gib * _on_first_node(process, self.config.cluster.nodes) for process in self.processes)


def cpu_plan(config: Config, shape: ModelShape, external: ModelShape | None, machine: Machine) -> CpuPlan:
    """The plan of a run on CPUs, with the largest process of each kind at its peak."""
    learning = Learning(shape=shape, learner=config.learner, algorithm=config.algorithm, external=external, is_gpu=False)
    processes = (
        ProcessPlan(name="learner", num=config.learner.num_ranks, terms=tuple(_learner(learning, config))),
        ProcessPlan(name="engine", num=config.rollout.num_engines, terms=tuple(_engine(shape, config))),
        ProcessPlan(name="driver", num=1, terms=(_bare("driver"),)),
        ProcessPlan(name="verifier", num=config.rollout.num_verifiers, terms=(_bare("verifier"),)),
        ProcessPlan(name="object store", num=1, terms=(_object_store(shape, config),)),
        ProcessPlan(name="ray", num=1, terms=(_bare("ray"),)),
    )
    plan = CpuPlan(
        config=config, shape=shape, machine=machine, where=places(config, 0), processes=processes, problems=(), remarks=()
    )
    return replace(plan, problems=tuple(_problems(plan)))


def _on_first_node(process: ProcessPlan, num_nodes: int) -> int:
    is_spread = process.name in ("learner", "engine")
    return -(-process.num // num_nodes) if is_spread else process.num


def _bare(name: str) -> Term:
    return Term(name="process", num_bytes=BARE_GIB[name] * GIB, arithmetic=f"{BARE_GIB[name]:g} GiB, seen in runs")


def _learner(learning: Learning, config: Config) -> Iterator[Term]:
    """What a learner rank holds: the state, and the larger of what a pass and what the optimizer's step take besides.

    Activations are gone when the flat gradient is made, and the C library gives large blocks back at once.
    """
    held = state(learning)
    passes, step = passing(learning, config), tuple(term for term in held if term.name in _OF_THE_STEP)
    yield _bare("learner")
    yield from (term for term in held if term not in step)
    yield from max(passes, step, key=total)


_OF_THE_STEP = ("gradient bucket", "gradient of the step")


def _engine(shape: ModelShape, config: Config) -> Iterator[Term]:
    """What an engine holds: weights, the KV cache, and the widest layer of the trial pass.

    The weights count twice, as they were loaded and as packed for the CPU's kernels, and a tied output head once more. The KV
    cache is zeroed, and so resident as soon as it is made.
    """
    rollout, b, longest = config.rollout, item_bytes(config.rollout.dtype), config.max_model_tokens
    numbers = 2 * shape.num_parameters + (shape.embedding_parameters if shape.is_tied else 0)
    trial = max(TRIAL_TOKENS, longest) * b * (2 * shape.hidden + 3 * shape.intermediate)
    yield _bare("engine")
    yield Term(name="weights", num_bytes=b * numbers, arithmetic=product((b, "B"), (numbers, "parameters")))
    yield Term(
        name="KV cache",
        num_bytes=rollout.kv_cache_gib * GIB,
        arithmetic=f"{rollout.kv_cache_gib} GiB",
    )
    yield Term(
        name="trial pass",
        num_bytes=trial,
        arithmetic=f"{counted(max(TRIAL_TOKENS, longest))} tokens x {b} B x (2 x {shape.hidden} + 3 x {shape.intermediate})",
        is_passing=True,
    )


def _object_store(shape: ModelShape, config: Config) -> Term:
    needed = object_store_bytes(shape, config)
    b = item_bytes(config.learner.dtype)
    return Term(
        name="weights under way",
        num_bytes=min(needed, (config.cluster.object_store_gib or needed / GIB) * GIB),
        arithmetic=product((2, "copies"), (b, "B"), (shape.num_parameters, "parameters")),
    )


def _problems(plan: CpuPlan) -> Iterator[str]:
    config, given = plan.config, plan.config.cluster.object_store_gib
    needed = object_store_bytes(plan.shape, config) / GIB
    if not plan.machine.joins_cluster and given is not None and needed > given:
        yield (
            f"Ray's object store must hold two copies of the weights, {needed:.1f} GiB, those that engines serve and those under "
            f"way; cluster.object_store_gib={given:g}. Beyond it Ray writes to the disk at every step."
        )
    cache = config.max_model_tokens * kv_token_bytes(plan.shape, item_bytes(config.rollout.dtype), 1) / GIB
    if cache > config.rollout.kv_cache_gib:
        yield (
            f"an engine's KV cache must hold one longest sequence of {config.max_model_tokens:,} tokens, {cache:.2f} GiB; "
            f"rollout.kv_cache_gib={config.rollout.kv_cache_gib}."
        )
    if plan.machine.host_gib is not None and plan.machine_gib > plan.machine.host_gib:
        parts = " + ".join(f"{_on_first_node(one, config.cluster.nodes)} x {one.name} {one.gib:.1f}" for one in plan.processes)
        yield f"the machine has {plan.machine.host_gib:.1f} GiB, and the run needs {plan.machine_gib:.1f}: {parts}."
