"""A run from where it stands to its end, in one process: whenever the learner is lost, it is rebuilt from the last checkpoint.

What was recorded after that checkpoint is forgotten. The steps are run again, as by a new process, but with the engines and
verifiers that are there. So the run ends with the same bits as one that lost nothing.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sdpo.attempts.generation import rollouts_of
from sdpo.attempts.tried import task_stream
from sdpo.config import Config
from sdpo.errors import LearnerLost, LearnerOutOfMemory, MachineError, NodeLost, OutOfMemory
from sdpo.guards.fold import Guards, folded
from sdpo.hindsight.hindsight import Hindsight
from sdpo.hindsight.success_buffer import SuccessBuffer, remembered
from sdpo.learner import checkpoint
from sdpo.preflight.checks import Ready
from sdpo.protocols import Learner, Sampler
from sdpo.run.folder import RunFolder, records
from sdpo.run.journal import Journal
from sdpo.run.watchdog import Progress
from sdpo.terminal.live import Terminal
from sdpo.terminal.stop_request import StopRequest
from sdpo.tracking.background import closed
from sdpo.tracking.run_report import RunReport
from sdpo.tracking.tracker import Tracker, trackers_of
from sdpo.train import train


class RebuildableLearner(Learner, Protocol):
    """A learner over processes that may die."""

    @property
    def is_whole(self) -> bool:
        """Whether all of them are there, as far as is known."""
        ...

    def rebuild(self) -> None:
        """New processes, which begin like those of a new run."""
        ...

    def restore(self, path: Path) -> None:
        """Continue from a checkpoint."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a run continues with."""

    checkpoint: Path | None
    """The last whole one; None: from the start."""
    step: int
    guards: Guards
    successes: SuccessBuffer


def taken_up(config: Config, folder: RunFolder, say: Callable[[str], None]) -> Path | None:
    """The checkpoint that the run goes on from, once its folder is this process's; None: it begins.

    ``say`` is told of damage that the run survives. Raises UserError for any other, before anything is changed.
    """
    folder.claim(config)
    last = checkpoint.newest_sound(folder.checkpoints, say)
    for sentence in folder.refuse_damaged(checkpoint.counters_of(last).step if last else 0):
        say(sentence)
    checkpoint.set_aside(folder.checkpoints, last, say)
    return last


def standing(config: Config, folder: RunFolder, say: Callable[[str], None]) -> Standing:
    """What the run continues with at its last sound checkpoint. ``say`` is told of damaged ones."""
    last = checkpoint.newest_sound(folder.checkpoints, say)
    checkpoint.set_aside(folder.checkpoints, last, say)
    return standing_at(config, folder, last)


def standing_at(config: Config, folder: RunFolder, last: Path | None) -> Standing:
    """What the run continues with at this checkpoint, which was verified; None: at its start. What was recorded afterwards is
    forgotten."""
    step = checkpoint.counters_of(last).step if last else 0
    successes = remembered(config.algorithm, folder.rollouts_up_to(step))
    folder.forget_after(step)
    return Standing(
        checkpoint=last,
        step=step,
        guards=folded(config, records(folder.metrics), records(folder.evaluations)),
        successes=successes,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRun:
    """What a run is made of, all of it started."""

    config: Config
    folder: RunFolder
    ready: Ready
    sampler: Sampler
    learner: RebuildableLearner
    terminal: Terminal
    stop: StopRequest
    progress: Progress

    def go_on(self, where: Standing) -> None:
        """Run to its last step, or until it is asked to stop. Raises MachineError where the learner is lost too often."""
        sinks = trackers_of(self.config, self.folder, self.terminal.warn)
        try:
            self._go_on(where, Tracker(self.folder, self.config.tracking, sinks))
        finally:
            closed(sinks)

    def _go_on(self, where: Standing, tracker: Tracker) -> None:
        why, num_restarts, most = "", 0, self.config.learner.max_restarts
        memory_deaths: Counter[int] = Counter()
        while True:
            try:
                self._stand(where, why)
                tracker.go_back(where.step)
                self._train(where, tracker)
                return
            except MachineError as error:
                is_lost = isinstance(error, LearnerLost) or not self.learner.is_whole
                if self.stop.is_set and isinstance(error, LearnerOutOfMemory):
                    raise LearnerLost(str(error)) from error  # once is a loss like any other
                if self.stop.is_set or not is_lost or isinstance(error, NodeLost):
                    raise
                if isinstance(error, LearnerOutOfMemory):
                    step = 1 + max((int(row["step"]) for row in records(self.folder.metrics)), default=0)
                    memory_deaths[step] += 1
                    if memory_deaths[step] > 1:
                        raise OutOfMemory(f"step {step} died twice, so it is not begun a third time: {_cause(error)}.") from error
                before, where = where, standing(self.config, self.folder, self.terminal.warn)
                num_restarts = 1 + (num_restarts if where.checkpoint == before.checkpoint else 0)
                if num_restarts > most:
                    raise LearnerLost(
                        f"the learner was lost once more than learner.max_restarts={most} allows without a new checkpoint in "
                        f"between. The last time: {error}"
                    ) from error
                why = _cause(error)
                if not isinstance(error, LearnerLost):  # it is the engines that failed, over weights that died with their rank
                    why = f"the learner died, so {why}"

    def _stand(self, where: Standing, why: str) -> None:
        """Bring the learner to where the run stands. ``why`` it must be rebuilt for that; empty: it is there, and new."""
        self.stop.can_wait = False  # nothing is lost by ending at once until a step has begun
        began = time.monotonic()
        if why:
            self.terminal.phase("rebuild")
            self.progress.begins("rebuild")
            self.learner.rebuild()
        checkpoint.sweep(self.folder.checkpoints)  # of a rank that died while it wrote; now nobody writes
        if where.checkpoint is not None:
            self.learner.restore(where.checkpoint)
        rows, evaluations = records(self.folder.metrics), records(self.folder.evaluations)
        self.terminal.restore(rows, where.guards.alarms, evaluations)
        if why:
            source = "the start, as there is no checkpoint yet" if where.checkpoint is None else where.checkpoint.name
            seconds = time.monotonic() - began
            self.terminal.warn(f"{why}; the learner was rebuilt in {seconds:.1f} s from {source}, and the run goes on")

    def _train(self, where: Standing, tracker: Tracker) -> None:
        tasks = task_stream(self.config, self.ready.train, self.folder, where.step)
        journal = Journal(self.folder.unfinished, step=where.step)
        hindsight = Hindsight(run=self.config, references=self.ready.references, successes=where.successes)
        rollouts = rollouts_of(self.config, tasks, self.sampler, journal, hindsight)
        try:
            train(
                self.config,
                rollouts,
                self.ready.heldout,
                self.sampler,
                self.learner,
                RunReport(self.terminal, tracker, self.stop, where.guards, self.progress, self.sampler.renderer),
                self.folder.checkpoints,
                where.guards,
                references=self.ready.references,
                successes=where.successes,
            )
        finally:
            rollouts.close()


def _cause(error: MachineError) -> str:
    """Its first line, as a part of a sentence."""
    return str(error).partition("\n")[0].rstrip(".")
