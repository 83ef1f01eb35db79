"""Many searches: one after the other in a process, shared among as many processes as there are.

A search belongs to whoever holds its folder's lock; a process takes the first that nobody works on and that is not over. So the
same command shares the work. It can be given again, on another machine that sees the same folder, or by ``num_workers`` processes
at once. Between two searches the learner goes back to its beginning, and no search knows of another.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from sdpo.config import SearchConfig
from sdpo.solving.folder import SearchFolder
from sdpo.solving.parts import Parts
from sdpo.solving.search import Ending, Search, absorbed
from sdpo.solving.solve import solve
from sdpo.solving.strategy import strategy
from sdpo.solving.view import SearchView
from sdpo.types import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A search that is asked for."""

    task: Task
    strategy: str
    seed: int
    folder: SearchFolder
    title: str

    def standing(self, config: SearchConfig) -> tuple[Search, Ending | None]:
        """As its folder says, without a learner."""
        search = absorbed(Search(self.task, config.algorithm.hindsight), self.folder.steps())
        return search, search.ending(config.budget, config.stale_steps)

    def finish(self, search: Search, ending: Ending) -> None:
        about: dict[str, object] = {
            "task": self.task.id,
            "env": self.task.env,
            "strategy": self.strategy,
            "seed": self.seed,
        }
        self.folder.finish(search, ending, about)


class Jobs:
    """The searches of a command."""

    def __init__(self, config: SearchConfig, jobs: Sequence[Job], *, stop_at_once: bool) -> None:
        self._config, self._jobs, self._stop_at_once = config, tuple(jobs), stop_at_once

    def open(self) -> tuple[Job, ...]:
        """Those that are not over; what is over is on record."""
        found = []
        for job in self._jobs:
            search, ending = job.standing(self._config)
            if ending is None:
                found.append(job)
            elif (record := job.folder.found()) is None or record["ending"] != ending.value:
                job.finish(search, ending)
        return tuple(found)

    def work(self, parts: Parts, view: SearchView, folder: Path, ended: Callable[[Job, Search, Ending], None]) -> None:
        """Search until nothing is left that nobody works on. In ``folder`` the learner's first state is kept meanwhile."""
        with _first_state(parts, folder) as beginning:
            for job in self._jobs:
                with job.folder.claimed() as is_mine:
                    if not is_mine or job.standing(self._config)[1] is not None:
                        continue
                    parts.learner.restore(beginning)
                    view.begins(job.title)
                    search, ending = solve(
                        job.task,
                        self._config,
                        strategy(job.strategy),
                        parts,
                        job.folder,
                        view,
                        seed=job.seed,
                        stop_at_once=self._stop_at_once,
                    )
                    job.finish(search, ending)
                    ended(job, search, ending)


@contextmanager
def _first_state(parts: Parts, folder: Path) -> Iterator[Path]:
    """Folder of the learner's state before any search. Those that killed processes of this machine left behind are removed."""
    for left in folder.glob(f"*.beginning-{platform.node()}-*"):  # half-written ones have a dot more
        if not psutil.pid_exists(int(left.name.removesuffix(".partial").rpartition("-")[2])):
            shutil.rmtree(left, ignore_errors=True)
    beginning = folder / f".beginning-{platform.node()}-{os.getpid()}"
    parts.learner.keep(beginning)
    try:
        yield beginning
    finally:
        shutil.rmtree(beginning, ignore_errors=True)
