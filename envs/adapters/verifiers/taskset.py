"""How are a taskset's tasks read, and a reply scored, without the rest of the package verifiers?

The one module that touches it. Everything that leaves here is a text or a number, so that tasks travel between processes.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Any  # the package is not in the locked set, so none of its types can be named

Prompt = list[dict[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """What a task's functions gave a reply."""

    total: float
    """The weighted sum of the rewards."""
    rewards: Mapping[str, float]
    """Before weighting."""
    metrics: Mapping[str, float]


@cache
def load(taskset: str, options: str) -> Any:
    """The taskset, once a process. Raises ValueError where it cannot be made, or where its tasks need tools."""
    loaders = importlib.import_module("verifiers.v1.utils.loaders")
    try:
        config = loaders.taskset_config_type(taskset).model_validate({**json.loads(options), "id": taskset})
        made = loaders.load_taskset(config)
    except Exception as error:
        raise ValueError(
            f"verifiers must be able to load the taskset {taskset!r} with {options}; that raised {type(error).__name__}: {error}"
        ) from error
    _check_single_turn(taskset, made)
    return made


def records(taskset: str, options: str, max_tasks: int) -> Iterator[tuple[Prompt, str]]:
    """Prompt and data of each task. Raises ValueError for a prompt that is not text."""
    for task in islice(load(taskset, options), max_tasks):
        yield _prompt(taskset, task.data), task.data.model_dump_json()


def score(taskset: str, options: str, record: str, reply: str) -> Scores:
    """What the task's rewards and metrics say of one reply."""
    v1 = importlib.import_module("verifiers.v1")
    made = load(taskset, options)
    task_type = type(made).task_type()
    data = task_type.data_type().model_validate_json(record)
    task = task_type(data, made.config.task)
    messages = [*_prompt(taskset, data), {"role": "assistant", "content": reply}]
    nodes = [
        {"message": message, "parent": place - 1 if place else None, "sampled": place == len(messages) - 1}
        for place, message in enumerate(messages)
    ]
    agent = importlib.import_module("verifiers.v1.trace").AgentInfo[v1.AgentConfig](config=v1.AgentConfig())
    trace = v1.Trace[type(data), v1.State, v1.AgentConfig](
        task={"type": task_type.__name__, "data": data},
        agent=agent,
        nodes=nodes,
        is_completed=True,
        ok=True,
        stop_condition="done",
    )
    asyncio.run(task.score(trace))
    return Scores(
        total=float(trace.reward),
        rewards={name: float(reward.score) for name, reward in trace.rewards.items() if reward is not None},
        metrics={name: float(value) for name, value in trace.metrics.items() if value is not None},
    )


def _check_single_turn(taskset: str, made: Any) -> None:
    base = importlib.import_module("verifiers.v1").Task
    task_type = type(made).task_type()
    needs = [hook for hook in ("setup", "finalize", "stage_verifier") if getattr(task_type, hook) is not getattr(base, hook)]
    needs += ["toolsets"] if type(made).toolsets(made.config) or task_type.toolsets(made.config.task) else []
    needs += ["a container"] if task_type.NEEDS_CONTAINER else []
    tagged = [function for _, function in inspect.getmembers(task_type, inspect.isfunction) if hasattr(function, "reward")]
    needs += [f"a runtime for {function.__name__}" for function in tagged if "runtime" in inspect.signature(function).parameters]
    if needs:
        raise ValueError(
            f"a taskset must need one reply and nothing else to be scored; {taskset!r} needs {', '.join(needs)}: "
            "choose a single-turn one"
        )


def _prompt(taskset: str, data: Any) -> Prompt:
    """System prompt first; a text becomes the user's message."""
    messages = [{"role": "user", "content": data.prompt}] if isinstance(data.prompt, str) else []
    if not isinstance(data.prompt, str):
        messages = [{"role": message.role, "content": message.content} for message in data.prompt or []]
    if data.system_prompt:
        messages = [{"role": "system", "content": data.system_prompt}, *messages]
    if not messages or not all(isinstance(message["content"], str) for message in messages):
        raise ValueError(f"a task's prompt must be text; one of the taskset {taskset!r} has none, or images")
    return messages
