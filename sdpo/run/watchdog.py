"""Who waits for whom, when a run stands still? A thread that says so, and has every process write down what it is doing.

It only looks: what has to be ended for being silent too long, its own owner ends (``learner.timeout_s``, ``rollout.*``).
"""

from __future__ import annotations

import faulthandler
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from sdpo.protocols import Verifier
from sdpo.run.logs import ask_for_stacks
from sdpo.types import Attempt, Completion, Prompt, Reply, SetAside, Task

_LEARNER = "the ranks of the learner"
_DOING = {
    "start": ("starting", "engines, learner and verifiers"),
    "generate": ("generating", "the engines"),
    "hindsight": ("choosing hints", "nobody, it computes"),
    "learn": ("learning", _LEARNER),
    "record": ("recording what hindsight says of tokens", _LEARNER),
    "sync": ("sending weights", "the engines, to take the learner's weights"),
    "evaluate": ("evaluating", "the engines"),
    "lift": ("evaluating the teacher", "the engines"),
    "save": ("saving a checkpoint", f"{_LEARNER}, to write it"),
    "rebuild": ("rebuilding the learner", "its new ranks"),
}
"""What the run does in each phase, and whom it waits for."""


@dataclass(slots=True)
class Progress:
    """What was last seen of a run. Its loop writes it, the watchdog's thread reads it; neither waits for the other."""

    phase: str = "start"
    num_completions: int = 0
    num_asked: int = 0
    num_verdicts: int = 0
    num_updates: int = 0
    """These four count within the phase, verdicts within a round of a conversation."""
    at: float = field(default_factory=time.monotonic)
    """When it was seen; time.monotonic() seconds."""

    def begins(self, phase: str) -> None:
        self.phase = phase
        self.num_completions = self.num_asked = self.num_verdicts = self.num_updates = 0
        self.at = time.monotonic()

    def completions(self, num: int, asked: int) -> None:
        if num == 0:  # another round of a conversation
            self.num_verdicts = 0
        self.num_completions, self.num_asked = num, asked
        self.at = time.monotonic()

    def verdict(self) -> None:
        self.num_verdicts += 1
        self.at = time.monotonic()

    def update(self) -> None:
        self.num_updates += 1
        self.at = time.monotonic()

    def in_words(self) -> str:
        """What the run does, how far it is, and whom it waits for."""
        doing, waits_for = _DOING[self.phase]
        if self.num_asked:
            far = f" ({self.num_completions} of {self.num_asked} completions are there, {self.num_verdicts} of them judged)"
            if self.num_completions == self.num_asked:
                waits_for = "the verifiers"
        else:
            far = f" ({self.num_updates} updates of this step are done)" if self.num_updates else ""
        return f"while {doing}{far}: waiting for {waits_for}"


class Watchdog:
    """A context manager whose thread reports a stall once, and its end."""

    def __init__(self, progress: Progress, say: Callable[[str], None], logs: Path, *, report_s: float) -> None:
        """``say`` is called from the watchdog's own thread."""
        self._progress, self._say, self._logs, self._report_s = progress, say, logs, report_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Watchdog:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        stalled_at: float | None = None
        while not self._ended.wait(min(self._report_s / 10, 5.0)):
            seen_at, now = self._progress.at, time.monotonic()
            if stalled_at is None and now - seen_at >= self._report_s:
                stalled_at = seen_at
                self._report(now - seen_at)
            elif stalled_at is not None and seen_at != stalled_at:
                self._say(f"progress again, after {seen_at - stalled_at:.0f} s without")
                stalled_at = None

    def _report(self, seconds: float) -> None:
        num_others = ask_for_stacks(self._logs)
        with suppress(OSError), (self._logs / "driver.log").open("a") as log:  # the disk may be full
            faulthandler.dump_traceback(log, all_threads=True)
        self._say(
            f"no progress for {seconds:.0f} s {self._progress.in_words()}; the stacks of all processes of the run on this "
            f"machine ({1 + num_others}) are in {self._logs}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedVerifier:
    """The Verifier of the loop, each of whose answers counts as progress."""

    verifier: Verifier
    progress: Progress

    def reply(
        self, tasks_P: Sequence[Task], completions: Iterable[tuple[Prompt, Completion]]
    ) -> Iterator[tuple[Prompt, Reply | SetAside]]:
        for answer in self.verifier.reply(tasks_P, completions):
            self.progress.verdict()
            yield answer

    def verify(
        self, tasks_P: Sequence[Task], completions: Iterable[tuple[Prompt, Completion]]
    ) -> Iterator[tuple[Prompt, Attempt | SetAside]]:
        for answer in self.verifier.verify(tasks_P, completions):
            self.progress.verdict()
            yield answer
