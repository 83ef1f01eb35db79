"""What does a step ask, and what is it answered?

Shapes: P tasks a step, G attempts a task.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from sdpo.attempts.conversation import attempts
from sdpo.attempts.groups import asked, grouped, refuse_broken_environment
from sdpo.attempts.task_stream import TaskStream
from sdpo.config import Config
from sdpo.errors import MachineError
from sdpo.protocols import Renderer, Sampler, Watcher
from sdpo.run.journal import Journal
from sdpo.types import Group, Prompt, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a step asks."""

    step: int
    """Steps finished before it."""
    tasks_P: tuple[Task, ...]
    prompts_P: tuple[tuple[int, ...], ...]
    prompts: tuple[Prompt, ...]
    """[P·G]"""


class Questions:
    """What a step asks: a pure function of the seed and the step."""

    def __init__(self, run: Config, tasks: TaskStream, renderer: Renderer) -> None:
        self._run, self._tasks, self._renderer = run, tasks, renderer

    def of(self, step: int) -> Asked:
        tasks_P = self._tasks.batch(step, self._run.batch.num_tasks)
        prompts_P = tuple(self._renderer.prompt(task) for task in tasks_P)
        prompts = asked(prompts_P, self._run.batch.group_size, f"{self._run.seed}/{step}")
        return Asked(step=step, tasks_P=tasks_P, prompts_P=prompts_P, prompts=prompts)


class Answers:
    """G attempts at each of a step's tasks, each verified as it ends, less those that a killed run already had."""

    def __init__(self, run: Config, sampler: Sampler, journal: Journal | None) -> None:
        self._run, self._sampler, self._journal = run, sampler, journal
        self._sampling = run.sampling.drawn()

    def to(self, what: Asked, log: Watcher) -> tuple[Group, ...]:
        """[P] Raises UserError where too much verification broke, MachineError where weights sampled that are too old."""
        if self._journal is None:
            verified = attempts(what.tasks_P, what.prompts, self._sampler, self._sampling, log)
        else:
            oldest_version = what.step - self._run.rollout.staleness
            page = self._journal.page(what.step + 1, what.prompts, oldest_version=oldest_version)
            if page.taken:
                log.taken_over([attempt.completion for _, attempt in page.taken], len(what.prompts))
            missing = attempts(what.tasks_P, page.missing, self._sampler, self._sampling, log)
            verified = chain(page.taken, page.written(missing))
        groups_P = grouped(what.tasks_P, what.prompts_P, verified)
        refuse_broken_environment(groups_P, self._run.rollout.max_set_aside_share)
        _refuse_stale(groups_P, what.step, self._run.rollout.staleness)
        return groups_P


def _refuse_stale(groups_P: Sequence[Group], step: int, staleness: int) -> None:
    """``step``: steps finished before the one that learns from the groups."""
    for group in groups_P:
        for attempt in group.attempts:
            version = attempt.completion.weights_version
            if version < step - staleness:
                raise MachineError(
                    f"what step {step + 1} learns from must be sampled by weights at most rollout.staleness={staleness} steps "
                    f"old, of version {step - staleness} or later; an attempt at task {group.task.id!r} has version {version}. "
                    "An engine has not taken the weights that it was sent; its log may say why."
                )
