"""Do an environment's tasks come at all? ``listed`` asks for them, and gives up on a ``tasks()`` that never returns.

Seconds of computing and seconds of waiting are counted apart, and neither grows on a machine that is busy with other things. The
count is taken in the main thread, by a timer's signal. A loop within one call of C, such as ``list(itertools.cycle(words))``,
lets no signal through: Python's own watchdog then ends the process with a traceback. In other threads nothing is counted.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Protocol, TypeVar, runtime_checkable

from sdpo.envs.base import Environment
from sdpo.types import Task

Returned = TypeVar("Returned")

LIMIT_S = 5.0
"""What is honest and takes longer says so in its class (``TakesLong``), or its user does: ``tasks_limit_s=60`` behind
``sdpo envs``, ``env.tasks_limit_s=60`` for a run."""
_TICK_S = 0.25
_IDLE_SHARE = 0.05
"""A thread that computes for less of a tick waits: for a network, a lock, a clock."""
_IGNORED_S = 3.0
"""An environment that catches everything gets so long to stop after it was interrupted."""
_DEAF_LIMITS = 4
"""After so many limits without a single tick, the process is ended from outside of Python."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """How long tasks may take, in seconds."""

    computing_s: float = LIMIT_S
    waiting_s: float = LIMIT_S
    option: str = "tasks_limit_s"
    """Where the user says otherwise."""


@runtime_checkable
class TakesLong(Protocol):
    """An environment that knows of itself that its tasks take longer: it reads files, or computes much."""

    tasks_limit_s: float
    """Seconds, in place of a smaller limit."""


class Endless(Exception):
    """The tasks did not come within the limit; its text says what, where, and what to do."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"{what}. {remedy}")
        self.what = what
        self.remedy = remedy


def listed(environment: Environment, split: str, seed: int, limit: Limit) -> Sequence[Task]:
    """What ``tasks(split, seed)`` returns, its length asked for. Raises Endless, or what the environment raises."""

    def ask() -> Sequence[Task]:
        tasks = environment.tasks(split, seed)
        len(tasks)
        return tasks

    if isinstance(environment, TakesLong):
        computing_s, waiting_s = (max(own, environment.tasks_limit_s) for own in (limit.computing_s, limit.waiting_s))
        limit = replace(limit, computing_s=computing_s, waiting_s=waiting_s)
    return within(limit, f"tasks({split!r}, {seed}) of environment {environment.name!r}", ask)


def within(limit: Limit, what: str, ask: Callable[[], Returned]) -> Returned:
    """What ``ask`` returns. Raises Endless where it takes longer than ``limit``."""
    if threading.current_thread() is not threading.main_thread():
        return ask()
    count = _Count(limit=limit, what=what)
    try:
        with _ticking(count), _without_collecting():
            return ask()
    except _Interrupted:
        assert count.over is not None
        raise count.over from None


class _Interrupted(BaseException):
    """Passes through ``except Exception``."""


@dataclass(slots=True, kw_only=True)
class _Count:
    """How long it has taken so far."""

    limit: Limit
    what: str
    computed_s: float = 0.0
    waited_s: float = 0.0
    over: Endless | None = None
    _seen: tuple[float, float] = field(default_factory=lambda: (time.monotonic(), time.thread_time()))

    def watch_from_outside(self) -> None:
        """Begin to wait for the next tick."""
        faulthandler.dump_traceback_later(_DEAF_LIMITS * self.limit.computing_s, exit=True, file=2)

    def tick(self, signal_number: int, frame: FrameType | None) -> None:
        self.watch_from_outside()
        now, cpu = time.monotonic(), time.thread_time()
        passed, computed = now - self._seen[0], cpu - self._seen[1]
        self._seen = now, cpu
        self.computed_s += computed
        if computed < _IDLE_SHARE * passed:
            self.waited_s += passed
        over_s = max(self.computed_s - self.limit.computing_s, self.waited_s - self.limit.waiting_s)
        if over_s < 0:
            return
        if self.over is None:
            self.over = self._ended(frame, is_waiting=self.waited_s >= self.limit.waiting_s)
        if over_s > _IGNORED_S:  # it catches whatever is raised in it
            os.write(2, f"error: {self.over}\n".encode(errors="backslashreplace"))
            os._exit(2)
        raise _Interrupted

    def _ended(self, frame: FrameType | None, *, is_waiting: bool) -> Endless:
        place = f", and was at line {frame.f_lineno} of {Path(frame.f_code.co_filename).name}" if frame is not None else ""
        limit_s, does = (self.limit.waiting_s, "waiting") if is_waiting else (self.limit.computing_s, "computing")
        option, more_s = self.limit.option, max(60.0, 4 * self.limit.computing_s)
        return Endless(
            f"{self.what} must return; after {limit_s:g} s of {does} it had not{place}",
            f"Let it return a sequence that ends. If it is only slow, allow it more: {option}={more_s:g}, or write "
            f"tasks_limit_s = {more_s:g} in its class.",
        )


@contextmanager
def _ticking(count: _Count) -> Iterator[None]:
    """Whoever else uses the timer (a test's limit) gets it back, with the time that is left."""
    handler_before = signal.signal(signal.SIGALRM, count.tick)
    began = time.monotonic()
    left_s, interval_s = signal.setitimer(signal.ITIMER_REAL, _TICK_S, _TICK_S)
    count.watch_from_outside()
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGALRM, handler_before if handler_before is not None else signal.SIG_DFL)
        if left_s:
            signal.setitimer(signal.ITIMER_REAL, max(left_s - (time.monotonic() - began), 1e-3), interval_s)


@contextmanager
def _without_collecting() -> Iterator[None]:
    """Tasks stay: looking for garbage among a million of them doubles the time it takes to make them."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
