"""How a plain class becomes a Ray actor: one place, because Ray's handles have no static type worth the name."""

from __future__ import annotations

import os
from typing import Any

import ray


def start(actor_class: type, *arguments: object, num_gpus: float = 0.0, num_threads: int = 1) -> Any:
    """A handle on ``actor_class(*arguments)`` in a process of its own; returns at once.

    ``num_threads`` are its CPU threads; Ray, which would else give it one, does not count them as its resource: engine and
    learner take turns on the same cores.
    """
    return (
        ray.remote(actor_class)
        .options(
            num_cpus=0,
            num_gpus=num_gpus,
            runtime_env={"env_vars": {"OMP_NUM_THREADS": str(num_threads)}},
        )
        .remote(*arguments)
    )


def threads_each(num_processes: int) -> int:
    """CPU threads for each of several processes that work at the same time: of the cores that this one may use."""
    return max(1, len(os.sched_getaffinity(0)) // num_processes)
