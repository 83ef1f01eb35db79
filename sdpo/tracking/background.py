"""A tracker that fails or is slow costs the run nothing: who talks to it is a thread of its own.

What could not be delivered is kept in memory and tried again, in order, with what comes later, after pauses that grow. The user
is told once of a failure, and once of its end. What is never delivered is still in ``metrics.jsonl`` and ``evaluations.jsonl``.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from threading import Thread

from sdpo.errors import without_credentials
from sdpo.tracking.sink import Record, Sink

CLOSE_WITHIN_S = 60.0
"""So long is waited at the end of a run for what is still to be delivered."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 30.0, 1800.0


def closed(sinks: Sequence[BackgroundSink]) -> None:
    """At the end of a run: all of them, in the time that one may take."""
    until = time.monotonic() + CLOSE_WITHIN_S
    for sink in sinks:
        sink.close()
    for sink in sinks:
        sink.wait(until)


class BackgroundSink:
    """A Sink none of whose methods raises or waits."""

    def __init__(self, name: str, opened: Callable[[], Sink], on_event: Callable[[str], None]) -> None:
        """``opened`` and ``on_event`` are called by the thread."""
        self._name, self._opened, self._on_event = name, opened, on_event
        self._sink: Sink | None = None
        self._asked: SimpleQueue[Record | int | None] = SimpleQueue()
        self._waiting: deque[Record | int] = deque()
        self._failed_at: float | None = None
        self._pause_s = FIRST_PAUSE_S
        self._thread = Thread(target=self._work, name=f"tracker {name}", daemon=True)  # it must not keep the process alive
        self._thread.start()

    def go_back(self, step: int) -> None:
        self._asked.put(step)

    def record(self, record: Record) -> None:
        self._asked.put(record)

    def close(self) -> None:
        self._asked.put(None)

    def wait(self, until: float) -> None:
        """Wait, after ``close``, for what is still to be delivered, but not longer than ``until`` (time.monotonic())."""
        self._thread.join(max(0.0, until - time.monotonic()))
        if self._thread.is_alive():
            self._on_event(
                f"{self._name} has not taken everything within {CLOSE_WITHIN_S:.0f} s of the run's end; {_ALL_IS_KEPT}"
            )

    def _work(self) -> None:
        while (asked := self._asked.get()) is not None:
            self._waiting.append(asked)
            if self._failed_at is None or time.monotonic() - self._failed_at >= self._pause_s:
                self._deliver()
        self._deliver()
        if self._sink is not None and self._failed_at is None:
            self._attempt(self._sink.close)

    def _deliver(self) -> None:
        self._attempt(self._deliver_all)

    def _deliver_all(self) -> None:
        if self._sink is None:
            self._sink = self._opened()
        while self._waiting:
            first = self._waiting[0]
            if isinstance(first, Record):
                self._sink.record(first)
            else:
                self._sink.go_back(first)
            self._waiting.popleft()

    def _attempt(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # noqa: BLE001 - a client may raise anything, and the run goes on
            is_new, self._failed_at = self._failed_at is None, time.monotonic()
            self._pause_s = FIRST_PAUSE_S if is_new else min(2 * self._pause_s, LONGEST_PAUSE_S)
            if is_new:
                reason = without_credentials(str(error).strip().partition("\n")[0])[:300]  # clients quote the address
                self._on_event(
                    f"{self._name} failed ({type(error).__name__}: {reason}); it is tried again later, and {_ALL_IS_KEPT}"
                )
        else:
            if self._failed_at is not None:
                self._failed_at = None
                self._on_event(f"{self._name} works again")


_ALL_IS_KEPT = "every number is in metrics.jsonl and evaluations.jsonl"
