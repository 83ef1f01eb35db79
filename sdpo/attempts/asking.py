"""What does a step ask, and what is it answered?

Groups without signal may be replaced (``algorithm.replacement_rounds``): so many tasks as lack are asked in their place, of those
that the task order names next. Their attempts are numbered on behind the step's own, so each has a seed and a line in the journal
that depend on nothing but its number. A round asks for at most what the step's first generation did, and what was replaced is
forgotten but for its rewards: neither an engine nor this process ever holds more than two batches.

Shapes: P tasks a step, G attempts a task.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice

from sdpo.attempts.conversation import attempts
from sdpo.attempts.groups import asked, grouped, refuse_broken_environment
from sdpo.attempts.task_stream import TaskStream
from sdpo.batches.signal import has_signal
from sdpo.config import Config
from sdpo.errors import MachineError
from sdpo.hindsight.hindsight import Hindsight
from sdpo.protocols import Renderer, Sampler, Watcher
from sdpo.run.journal import Journal, Page
from sdpo.types import Draw, Group, Prompt, Task, Tried


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a step asks."""

    step: int
    """Steps finished before it."""
    tasks_P: tuple[Task, ...]
    prompts_P: tuple[tuple[int, ...], ...]
    prompts: tuple[Prompt, ...]
    """[P·G]"""
    stand_ins: Iterator[Task]
    """Tasks that may be asked in place of one of the P."""
    numbers: Mapping[str, float]
    """What the task order says of the P."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What a step is answered."""

    groups_P: tuple[Group, ...]
    replaced: tuple[Tried, ...] = ()
    """In the order in which they were asked."""
    num_without_signal: int | None = None
    """Of the P; None where nobody looked."""


class Questions:
    """What a step asks: a pure function of the seed, the step, and where the task order learns, of what was tried before."""

    def __init__(self, run: Config, tasks: TaskStream, renderer: Renderer) -> None:
        self._run, self._tasks, self._renderer = run, tasks, renderer

    def of(self, step: int) -> Asked:
        num_tasks = self._run.batch.num_tasks
        drawn = self._tasks.drawn(step, num_tasks)
        tasks_P = tuple(islice(drawn, num_tasks))
        prompts_P = tuple(self._renderer.prompt(task) for task in tasks_P)
        prompts = asked(prompts_P, self._run.batch.group_size, _seed(self._run, step))
        # Drawn now, since a batch may be answered beside the loop, which goes on to draw the next.
        most = self._run.algorithm.replacement_rounds * num_tasks
        stand_ins = iter(tuple(islice(drawn, most)))
        return Asked(
            step=step,
            tasks_P=tasks_P,
            prompts_P=prompts_P,
            prompts=prompts,
            stand_ins=stand_ins,
            numbers=self._tasks.numbers(),
        )

    def note(self, what: Asked, answered: Answered, log: Watcher) -> tuple[Group, ...]:
        """[P] the groups, once ``log`` and the task order know how the step came to them. Called step by step, in order."""
        if self._tasks.learns or self._run.algorithm.replacement_rounds > 0:
            tried = (*answered.replaced, *map(Tried.of, answered.groups_P))
            log.drawn(Draw(tried=tried, num_without_signal=answered.num_without_signal, numbers=what.numbers))
            self._tasks.learn(what.step + 1, tried)
        return answered.groups_P


class Answers:
    """G attempts at each of a step's tasks, each verified as it ends, less those that a killed run already had."""

    def __init__(self, run: Config, sampler: Sampler, journal: Journal | None, hindsight: Hindsight | None = None) -> None:
        """``hindsight`` says from which groups something is distilled; None: the run's, without references and memory."""
        self._run, self._sampler, self._journal = run, sampler, journal
        self._hindsight = hindsight or Hindsight(run=run)
        self._sampling = run.sampling.drawn()

    def to(self, what: Asked, log: Watcher) -> Answered:
        """Raises UserError where too much verification broke, MachineError where weights sampled that are too old."""
        page = None
        if self._journal is not None:
            oldest_version = what.step - self._run.rollout.staleness
            page = self._journal.page(what.step + 1, what.prompts, oldest_version=oldest_version)
        groups_P = self._groups(what.step, what.tasks_P, what.prompts_P, what.prompts, page, log)
        refuse_broken_environment(groups_P, self._run.rollout.max_set_aside_share)
        if self._run.algorithm.replacement_rounds == 0:
            return Answered(groups_P=groups_P)
        return self._with_replacements(what, groups_P, page, log)

    def _with_replacements(self, what: Asked, groups_P: Sequence[Group], page: Page | None, log: Watcher) -> Answered:
        chosen, replaced, tasks = list(groups_P), list[Tried](), list(what.tasks_P)
        lacking = self._without_signal(what.step, chosen, range(len(chosen)))
        for _ in range(self._run.algorithm.replacement_rounds):
            further = tuple(islice(what.stand_ins, len(lacking)))
            if not further:  # either nothing lacks, or every task has been asked
                break
            prompts_ids = tuple(self._sampler.renderer.prompt(task) for task in further)
            prompts = asked(prompts_ids, self._run.batch.group_size, _seed(self._run, what.step), first=len(tasks))
            tasks += further
            found = self._groups(what.step, tasks, prompts_ids, prompts, page and page.further(prompts), log)
            refuse_broken_environment([*chosen, *found], self._run.rollout.max_set_aside_share)
            places, later = lacking[: len(found)], lacking[len(found) :]
            for place, group in zip(places, found, strict=True):
                replaced.append(Tried.of(chosen[place], is_replaced=True))
                chosen[place] = group
            lacking = sorted([*self._without_signal(what.step, chosen, places), *later])
        return Answered(groups_P=tuple(chosen), replaced=tuple(replaced), num_without_signal=len(lacking))

    def _without_signal(self, step: int, groups: Sequence[Group], places: Sequence[int]) -> list[int]:
        """Those of ``places`` whose group teaches nothing."""
        algorithm, renderer = self._run.algorithm, self._sampler.renderer
        return [
            place
            for place in places
            if not has_signal(groups[place], self._hindsight.hints(groups[place], step), algorithm, renderer)
        ]

    def _groups(
        self,
        step: int,
        tasks: Sequence[Task],
        prompts_ids: Sequence[tuple[int, ...]],
        prompts: Sequence[Prompt],
        page: Page | None,
        log: Watcher,
    ) -> tuple[Group, ...]:
        """One for each of ``prompts_ids``, which are those of the last of ``tasks``."""
        if page is None:
            verified = attempts(tasks, prompts, self._sampler, self._sampling, log)
        else:
            if page.taken:
                log.taken_over([attempt.completion for _, attempt in page.taken], len(prompts))
            missing = attempts(tasks, page.missing, self._sampler, self._sampling, log)
            verified = chain(page.taken, page.written(missing))
        first = len(tasks) - len(prompts_ids)
        groups = grouped(tasks[first:], prompts_ids, verified, first=first)
        _refuse_stale(groups, step, self._run.rollout.staleness)
        return groups


def _seed(run: Config, step: int) -> str:
    return f"{run.seed}/{step}"


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
