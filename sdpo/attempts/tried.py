"""What has a run tried? ``tasks.jsonl`` has a line a step: by it a continued run draws the tasks an uninterrupted one would.

It is written where the task order learns, or groups without signal are replaced, and read where the task order learns.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from sdpo.attempts.task_stream import TaskStream
from sdpo.config import Config
from sdpo.errors import UserError
from sdpo.run.folder import RunFolder, records
from sdpo.types import Tasks, Tried


def task_stream(config: Config, tasks: Tasks, folder: RunFolder, step: int) -> TaskStream:
    """The tasks of a run that goes on after ``step`` steps. Raises UserError where what it tried cannot be read."""
    order, seed, lag = config.batch.order, config.seed, config.rollout.staleness
    try:
        stream = TaskStream(tasks=tasks, seed=seed, order=order, lag=lag)
    except ValueError as error:
        raise UserError(str(error)) from error
    if not stream.learns or step == 0:
        return stream
    return TaskStream(tasks=tasks, seed=seed, order=order, lag=lag, tried=_tried(folder, step))


def _tried(folder: RunFolder, step: int) -> list[tuple[Tried, ...]]:
    """[step] Raises UserError where a step is missing."""
    by_step: dict[int, tuple[Tried, ...]] = {}
    for record in records(folder.tasks):
        with suppress(KeyError, TypeError, ValueError):
            by_step[record["step"]] = tuple(map(_of, record["tried"]))
    missing = next((number for number in range(1, step + 1) if number not in by_step), None)
    if missing is not None:
        raise UserError(
            f"a run whose batch.order learns continues with what it has tried; {folder.tasks} has no record of step {missing}. "
            "Put the file back, or choose another name= to begin anew."
        )
    return [by_step[number] for number in range(1, step + 1)]


def _of(record: Mapping[str, Any]) -> Tried:
    return Tried(
        task=str(record["task"]),
        rewards=tuple(map(float, record["rewards"])),
        num_set_aside=int(record.get("set_aside", 0)),
        is_replaced=record.get("is_replaced") is True,
    )


def plain_tried(one: Tried) -> dict[str, object]:
    """As JSON has it."""
    return {
        "task": one.task,
        "rewards": one.rewards,
        **({"set_aside": one.num_set_aside} if one.num_set_aside else {}),
        **({"is_replaced": True} if one.is_replaced else {}),
    }
