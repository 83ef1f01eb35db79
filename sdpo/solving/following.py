"""How far are searches that other processes work on? A sentence, from what their folders say."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from sdpo.solving.jobs import Job
from sdpo.terminal.view import duration


class Following:
    """From now on."""

    def __init__(self, jobs: Sequence[Job], clock: Callable[[], float] = time.monotonic) -> None:
        """``jobs`` are not over: what is on record of one already is how it ended at a smaller budget. ``clock``: seconds."""
        self._before = [(job, job.folder.found()) for job in jobs]
        self._clock = clock
        self._ends: list[float] = []
        """When it was seen that another one is over."""
        self._sentence = f"0 of {len(jobs)} searches over"

    def sentence(self) -> str:
        """Another one only once another search is over. The ETA is as if those that are left took as long as those since the
        first, which waited for engines and learners to start."""
        found = [(job.folder.found(), before) for job, before in self._before]
        over = [record for record, before in found if record is not None and record != before]
        new = len(over) - len(self._ends)
        if new:
            self._ends += [self._clock()] * new
            num_solved = sum("solved_at" in record for record in over)
            self._sentence = f"{len(over)} of {len(found)} searches over, {num_solved} solved{self._eta(len(found) - len(over))}"
        return self._sentence

    def _eta(self, num_left: int) -> str:
        since = self._ends[-1] - self._ends[0]
        return f"; ETA {duration(since / (len(self._ends) - 1) * num_left)}" if since > 0.0 else ""
