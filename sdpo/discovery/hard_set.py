"""Which tasks are hard for the model as it is? A measurement of its own, on seeds that no search uses, kept in a file.

Were tasks chosen by the attempts that are then compared, those that had bad luck in them would be chosen. Every strategy would
then seem to help. The file says of each candidate how many of its attempts solved it; what is chosen follows from it.
"""

from __future__ import annotations

import fcntl
import json
import random
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from sdpo.attempts.conversation import attempts
from sdpo.attempts.groups import asked, grouped, refuse_broken_environment
from sdpo.config import DiscoveryConfig, HardSetConfig
from sdpo.errors import UserError
from sdpo.run.files import write_whole
from sdpo.solving.parts import Parts
from sdpo.solving.view import SearchView
from sdpo.types import Prompt, Task

CHUNK = 8
"""Candidates that are asked together; each chunk is kept as it ends."""


def candidates(tasks: Sequence[Task], config: HardSetConfig, seed: int) -> tuple[Task, ...]:
    """The tasks that are measured, in an order that has nothing to do with how hard they are."""
    order = list(range(len(tasks)))
    random.Random(f"{seed}/hard set").shuffle(order)
    return tuple(tasks[index] for index in order[: config.num_candidates])


def rates(file: Path) -> dict[str, tuple[int, int]]:
    """(attempts that solved it, attempts) by the id of each candidate that was measured."""
    lines = file.read_text().splitlines(keepends=True) if file.is_file() else []
    records = [json.loads(line) for line in lines if line.endswith("\n")]
    return {record["task"]: (record["solved"], record["attempts"]) for record in records}


def measure(config: DiscoveryConfig, tasks: Sequence[Task], parts: Parts, view: SearchView, file: Path) -> None:
    """Measure how many attempts solve each candidate that is not in the file yet. One process measures; others wait for it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        known = rates(file)
        write_whole(file, "".join(_line(task, *counts) for task, counts in known.items()))
        left = [task for task in tasks if task.id not in known]
        view.begins("sdpo discovery · hard set")
        if left:
            parts.sampler.engine.load(parts.learner.weights(), version=parts.learner.step)
        for first in range(0, len(left), CHUNK):
            chunk = left[first : first + CHUNK]
            view.say(f"hard set: {len(known) + first} of {len(tasks)} candidates measured")
            with file.open("a") as lines:
                for task, solved, total in _measured(config, chunk, parts, view):
                    lines.write(_line(task.id, solved, total))


def _measured(config: DiscoveryConfig, chunk: Sequence[Task], parts: Parts, view: SearchView) -> list[tuple[Task, int, int]]:
    view.phase("generate")
    prompts_P = tuple(map(parts.sampler.renderer.prompt, chunk))
    prompts = [
        prompt
        for index, (task, token_ids) in enumerate(zip(chunk, prompts_P, strict=True))
        for prompt in _asked(token_ids, index, config, task)
    ]
    answers = attempts(chunk, prompts, parts.sampler, config.sampling.drawn(), view)
    groups = grouped(chunk, prompts_P, answers)
    refuse_broken_environment(groups, config.rollout.max_set_aside_share)
    return [(g.task, sum(a.verdict.is_solved for a in g.attempts), len(g.attempts)) for g in groups]


def _asked(token_ids: tuple[int, ...], index: int, config: DiscoveryConfig, task: Task) -> list[Prompt]:
    """The prompts of a task, with seeds of the hard set alone, which follow from the task's id."""
    found = asked((token_ids,), config.hard.num_attempts, f"{config.seed}/hard set/{task.id}")
    return [replace(prompt, task_index=index) for prompt in found]


def chosen(tasks: Sequence[Task], found: dict[str, tuple[int, int]], config: HardSetConfig) -> tuple[Task, ...]:
    """The first of the candidates whose rate lies within the bounds. Raises UserError where there is none."""
    hard = [
        task
        for task in tasks
        if task.id in found
        and found[task.id][1] > 0
        and config.min_rate <= found[task.id][0] / found[task.id][1] <= config.max_rate
    ]
    if not hard:
        raise UserError(
            f"a hard set needs a task that between hard.min_rate={config.min_rate:g} and hard.max_rate={config.max_rate:g} of "
            f"{config.num_attempts} attempts solve; none of the {len(tasks)} candidates is one. Widen the bounds, or raise "
            "hard.num_candidates."
        )
    return tuple(hard[: config.num_tasks])


def keep_choice(file: Path, tasks: Sequence[Task], found: dict[str, tuple[int, int]], config: HardSetConfig) -> None:
    """Write the rule and the tasks that it chose, for whoever wants to know later which were chosen, and why."""
    record = {
        "rule": asdict(config),
        "tasks": {task.id: {"solved": found[task.id][0], "attempts": found[task.id][1]} for task in tasks if task.id in found},
    }
    write_whole(file, json.dumps(record, indent=1) + "\n")


def _line(task: str, solved: int, total: int) -> str:
    return json.dumps({"task": task, "solved": solved, "attempts": total}) + "\n"
