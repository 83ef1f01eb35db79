"""How a plain class becomes a Ray actor: one place, because Ray's handles have no static type worth the name."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """Where an actor lives."""

    pid: int
    node: str
    """Ray's id of the machine."""


def this_process() -> Process:
    return Process(pid=os.getpid(), node=ray.get_runtime_context().get_node_id())


def start(actor_class: type, *arguments: object, num_gpus: float = 0.0, num_threads: int = 1, max_concurrency: int = 1) -> Any:
    """A handle on ``actor_class(*arguments)`` in a process of its own; returns at once.

    ``num_threads`` are its CPU threads; Ray, which would else give it one, does not count them as its resource: engine and
    learner take turns on the same cores. ``max_concurrency``: calls that may run at the same time, each in a thread.
    """
    return (
        ray.remote(actor_class)
        .options(
            num_cpus=0,
            num_gpus=num_gpus,
            max_concurrency=max_concurrency,
            runtime_env={"env_vars": {"OMP_NUM_THREADS": str(num_threads)}},
        )
        .remote(*arguments)
    )


def kill(actor: Any, process: Process | None) -> None:
    """End it for certain. Ray asks the process to go, which one that is stopped does not hear; ``process`` is killed besides."""
    with suppress(Exception):  # it may be gone, and so may Ray
        ray.kill(actor, no_restart=True)
    if process is None:
        return
    if process.node == ray.get_runtime_context().get_node_id():
        _kill(process.pid)
    else:
        strategy = NodeAffinitySchedulingStrategy(process.node, soft=False)
        ray.remote(_kill).options(num_cpus=0, scheduling_strategy=strategy).remote(process.pid)


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def threads_each(num_processes: int) -> int:
    """CPU threads for each of several processes that work at the same time: of the cores that this one may use."""
    return max(1, len(os.sched_getaffinity(0)) // num_processes)
