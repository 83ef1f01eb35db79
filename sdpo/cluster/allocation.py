"""Which machines was this job given, and which of them is this one? Slurm's environment says it; nothing is asked or started."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sdpo.errors import UserError

_RUNNING = (
    "srun --ntasks-per-node=1 sdpo train cluster=slurm cluster.nodes=N (launch/slurm/train.sbatch), or submit it with sdpo train "
    "-m hydra/launcher=slurm"
)
_PART = r"(?:[\w.:-]|\[[\d,-]+\])+"
_LIST = re.compile(rf"{_PART}(?:,{_PART})*", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """The nodes of a job; the command runs once on each."""

    job: str
    """Names this start of the job: a job that is requeued is another one."""
    nodes: tuple[str, ...]
    index: int
    """Place of this node in ``nodes``; the first node is the driver's."""

    @property
    def is_first(self) -> bool:
        return self.index == 0

    @property
    def name(self) -> str:
        return self.nodes[self.index]

    @property
    def first(self) -> str:
        return self.nodes[0]


def of_slurm(environment: Mapping[str, str], *, num_nodes: int) -> Allocation:
    """The allocation of the job step that this process belongs to.

    Raises UserError where there is none, or it is not ``num_nodes`` nodes with a task each.
    """
    if "SLURM_JOB_ID" not in environment:
        raise UserError(
            f"cluster=slurm brings up Ray on the nodes of a Slurm job; this process belongs to none. Start it with {_RUNNING}."
        )
    is_step = "SLURM_STEP_ID" in environment
    nodes = expanded(environment.get("SLURM_STEP_NODELIST" if is_step else "SLURM_JOB_NODELIST", ""))
    if not is_step and len(nodes) > 1:
        raise UserError(
            f"cluster=slurm runs the command on every node of the job; this one runs on one of {len(nodes)}. Start it with "
            f"{_RUNNING}."
        )
    if len(nodes) != num_nodes:
        raise UserError(
            f"cluster.nodes must be the number of nodes that run the command; Slurm says {len(nodes)} ({', '.join(nodes)}), and "
            f"cluster.nodes={num_nodes}. Set cluster.nodes={len(nodes)}, or ask Slurm for --nodes={num_nodes}."
        )
    num_tasks = int(environment.get("SLURM_STEP_NUM_TASKS", len(nodes)))
    if num_tasks != len(nodes):
        raise UserError(
            f"a node runs the command once; Slurm started {num_tasks} tasks on {len(nodes)} nodes. Add --ntasks-per-node=1."
        )
    restart, step = environment.get("SLURM_RESTART_COUNT", "0"), environment.get("SLURM_STEP_ID", "0")
    job = f"{environment['SLURM_JOB_ID']}-{restart}-{step}"
    return Allocation(job=job, nodes=nodes, index=int(environment.get("SLURM_NODEID", "0")))


def expanded(nodelist: str) -> tuple[str, ...]:
    """The names that Slurm writes as ``gpu[01-03,7],login``. Raises UserError where it is not one of its lists."""
    if not _LIST.fullmatch(nodelist):
        raise UserError(f"Slurm's list of nodes must look like gpu[01-03,7],login; got {nodelist[:100]!r}.")
    return tuple(name for part in _parts(nodelist) for name in _names(part))


MAX_NODES = 65536
"""A list that says more is refused, not expanded."""


def _parts(nodelist: str) -> Iterator[str]:
    """Split at the commas outside of brackets."""
    return (match.group() for match in re.finditer(r"(?:\[[^\[\]]*\]|[^,\[\]])+", nodelist))


def _names(part: str) -> Iterator[str]:
    match = re.search(r"\[([^\[\]]*)\]", part)
    if match is None:
        yield part
        return
    for number in _numbers(match.group(1)):
        yield from _names(f"{part[: match.start()]}{number}{part[match.end() :]}")


def _numbers(ranges: str) -> Iterator[str]:
    """The numbers of ``01-03,7`` as they are written, with their zeros."""
    for part in ranges.split(","):
        low, dash, high = part.partition("-")
        if not low.isdecimal() or (dash and not high.isdecimal()) or int(high or low) - int(low) >= MAX_NODES:
            raise UserError(f"Slurm's list of nodes must hold ranges of numbers; got {part[:100]!r}.")
        yield from (str(number).zfill(len(low)) for number in range(int(low), int(high or low) + 1))
