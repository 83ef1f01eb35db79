"""How does this project start a process of its own, and how does that end with it?

A process that is killed runs no ``finally``. What it started would compute on for nobody, for hours or for ever.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

ASKS = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1})
"""Signals that ask a command to end."""


@contextmanager
def deaf() -> Iterator[None]:
    """Have what this thread starts in the block not hear ``ASKS``. Only SIGKILL ends it then, and what it starts.

    Schedulers and init systems signal every process of a job, whatever its session. The command shall hear it alone: it still
    needs the others for its step and its checkpoint.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ASKS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def deaf_alone() -> None:
    """Have this process not hear ``ASKS``, but whatever it starts from now on. To be called in its main thread.

    A process with other people's code in it: that may end what it started by SIGTERM, and wait for it.
    """
    owner = os.getpid()

    def ignore(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # it was forked, with the handlers of this process
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    for number in ASKS - {signal.SIGUSR1}:  # that one asks for stacks
        signal.signal(number, ignore)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ASKS)


def own_module(name: str, *words: str) -> list[str]:
    """The command that runs a module with this Python, and nothing that happens to lie in the current folder.

    ``-m`` alone puts that folder first on the search path: a file ``sdpo.py`` or ``random.py`` would be run instead.
    """
    return [sys.executable, "-P", "-m", name, *words]


class Lifeline:
    """A pipe between this process and one that it starts: when this end closes, the kernel sends the other process a signal.

    A process that ends closes its pipes, however it ends. Nothing is asked of the other process: neither a thread, which a
    computation in C would keep from running, nor a handler. Other systems than Linux have no such signal; there it is no more
    than a pipe.
    """

    def __init__(self) -> None:
        self._theirs, self._ours = os.pipe()

    def __enter__(self) -> Lifeline:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def pass_fds(self) -> tuple[int]:
        """What ``Popen`` has to pass on: the signal comes as long as the other process keeps it open."""
        return (self._theirs,)

    def tie(self, process: subprocess.Popen[bytes] | subprocess.Popen[str], number: int = signal.SIGKILL) -> None:
        """To be called right after the start. With all of its group, where the process leads one (``start_new_session``)."""
        if sys.platform == "linux":
            leads = os.getpgid(process.pid) == process.pid
            fcntl.fcntl(self._theirs, fcntl.F_SETOWN, -process.pid if leads else process.pid)
            fcntl.fcntl(self._theirs, fcntl.F_SETSIG, number)
            fcntl.fcntl(self._theirs, fcntl.F_SETFL, fcntl.fcntl(self._theirs, fcntl.F_GETFL) | os.O_ASYNC)
        os.close(self._theirs)
        self._theirs = -1

    def close(self) -> None:
        """Let go, and so send the signal to whatever is left of the process or its group."""
        for end in (self._theirs, self._ours):
            if end >= 0:
                os.close(end)
        self._theirs = self._ours = -1
