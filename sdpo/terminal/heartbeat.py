"""What is a command without a live view doing? Says so once half a minute has passed without a line.

A phase that is over sooner is not mentioned, so a run whose steps are short prints one line a step and nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from threading import Event, Thread
from types import TracebackType

EVERY_S = 30.0
"""Least time between two lines, and least age of the phase that is told of."""
_CHECKS_EVERY_S = 1.0

Clock = Callable[[], float]
"""Seconds, as ``time.monotonic`` counts them."""


class Heartbeat:
    """A thread for the length of a context. Its owner tells it of each line and of each phase."""

    def __init__(self, sentence: Callable[[], str], say: Callable[[str], None], clock: Clock = time.monotonic) -> None:
        """``sentence`` says what is being done at the time it is called; ``say`` prints it, and has to call ``spoke``."""
        self._sentence, self._say, self._clock = sentence, say, clock
        self._phase_since = self._spoke_at = clock()
        self._is_over = Event()
        self._thread = Thread(target=self._run, name="heartbeat", daemon=True)

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._is_over.set()
        self._thread.join()

    def begins(self) -> None:
        """Note that another phase begins."""
        self._phase_since = self._clock()

    def spoke(self) -> None:
        """Note that a line was printed."""
        self._spoke_at = self._clock()

    def beat(self) -> None:
        """Say the sentence, if it is time."""
        if self._clock() - max(self._phase_since, self._spoke_at) >= EVERY_S:
            self._say(self._sentence())

    def _run(self) -> None:
        while not self._is_over.wait(_CHECKS_EVERY_S):
            with suppress(OSError):  # the screen is a file on a full disk; the command itself will meet that
                self.beat()
