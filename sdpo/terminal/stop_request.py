"""Who asks a command to end, and when does it? Signals are heard from its first moment to its last.

Machines repeat themselves: ``timeout`` tells its child and then the child's group, a terminal that closes tells the shell and the
group, init systems send SIGTERM and SIGHUP. So all that comes within a second is one request. Later ones hurry a command only
where a person sends them.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from sdpo.errors import Stopped

ONE_REQUEST_S = 1.0
"""Signals that are closer together are one request."""


@dataclass(slots=True)
class StopRequest:
    """What signals have asked of a command."""

    is_set: bool = False
    signal_number: int = 0
    """The last signal that changed something."""
    can_wait: bool = False
    """Whether steps are being taken, at whose end a stop is looked for."""
    since: float = 0.0
    """When ``signal_number`` came, in seconds of the monotonic clock."""

    def is_repeated_by(self, number: int, now: float) -> bool:
        """Whether this signal asks for nothing more than those before it."""
        if not self.is_set:
            return False
        if number == signal.SIGQUIT != self.signal_number:
            return False
        by_a_person = (signal.SIGINT, signal.SIGQUIT, *((signal.SIGTERM,) if self.signal_number == signal.SIGINT else ()))
        return number not in by_a_person or now - self.since < ONE_REQUEST_S


@dataclass(frozen=True, slots=True)
class _Listener:
    """The handler of the signals."""

    request: StopRequest
    on_stop: Callable[[], None]

    def __call__(self, number: int, frame: FrameType | None) -> None:
        request, now = self.request, time.monotonic()
        if request.is_repeated_by(number, now):
            return
        waits = request.can_wait and not request.is_set and number != signal.SIGQUIT
        request.is_set, request.signal_number, request.since = True, number, now
        if not waits:
            raise Stopped(number)
        self.on_stop()


def _nobody() -> None:
    """Nobody is told."""


@contextmanager
def stopping(request: StopRequest, *others: signal.Signals, on_stop: Callable[[], None] = _nobody) -> Iterator[None]:
    """Have SIGINT, SIGTERM, a closed terminal and the ``others`` ask for an end, for the length of the block.

    The first one is told and ends a command after its step, or at once where it has none. Another one from a person ends it at
    once, and so does SIGQUIT. A block within a block hears for both.
    """
    outer = signal.getsignal(signal.SIGTERM)
    with handling(_Listener(request, on_stop), *asking(), *others):
        try:
            yield
        finally:
            if isinstance(outer, _Listener) and request.is_set:
                seen = outer.request
                seen.is_set, seen.signal_number, seen.since = True, request.signal_number, request.since


@contextmanager
def handling(handler: Callable[[int, FrameType | None], None], *signals: signal.Signals) -> Iterator[None]:
    """Have ``handler`` called for each of the ``signals``, for the length of the block, also where they were blocked before."""
    before = {number: signal.signal(number, handler) for number in signals}
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)  # as whoever started this process may have left them
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def asking() -> tuple[signal.Signals, ...]:
    """Signals that ask for an end. A hangup does not where ``nohup`` has it ignored. The keys' signals do even where a shell has
    them ignored, in the background: there somebody sends them on purpose."""
    hangup = [] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP]
    return (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, *hangup)
