"""A command that computes for minutes, in the foreground: a screen that stays the user's, and an end when the user asks."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from rich.console import Console

from sdpo.errors import Stopped
from sdpo.run.logs import answer_with_stacks, output_into
from sdpo.terminal.live import Terminal


@dataclass(slots=True)
class StopRequest:
    """Set by a signal handler: end after the step."""

    is_set: bool = False
    signal_number: int = 0
    can_wait: bool = False
    """Whether steps are being taken, at whose end a stop is looked for."""


def user_screen() -> Console:
    """A console on a descriptor of its own, so that it stays the user's when this process's output is sent to a file."""
    return Console(file=os.fdopen(os.dup(1), "w", buffering=1), soft_wrap=False)


@contextmanager
def process_output_into(log: Path, screen: Console) -> Iterator[None]:
    """Send everything but the screen into ``log`` for the length of the block."""
    with output_into(log):
        answer_with_stacks(log.parent)
        yield


@contextmanager
def stopping(stop: StopRequest, terminal: Terminal, *others: signal.Signals) -> Iterator[None]:
    """Have SIGINT, SIGTERM, a closed terminal and the ``others`` ask for an end after the step, for the length of the block.

    A second one, or one before the first step, ends at once; but a SIGTERM that follows a SIGTERM changes nothing.
    """

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.is_set and number == signal.SIGTERM == stop.signal_number:
            return  # nobody is impatient: several machines say the same (Ray's jobs, the end of a pod, Slurm)
        if stop.is_set or not stop.can_wait:
            raise Stopped(number)
        stop.is_set, stop.signal_number = True, number
        terminal.stop_was_asked()

    with handling(ask, *asking(), *others):
        yield


@contextmanager
def handling(handler: Callable[[int, FrameType | None], None], *signals: signal.Signals) -> Iterator[None]:
    """Have ``handler`` called for each of the ``signals``, for the length of the block."""
    before = {number: signal.signal(number, handler) for number in signals}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def asking() -> tuple[signal.Signals, ...]:
    """Signals that ask for an end. A hangup does not where ``nohup`` has it ignored. An interrupt does even where a shell has it
    ignored, in the background: there somebody sends it on purpose."""
    return (signal.SIGINT, signal.SIGTERM, *([] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP]))
