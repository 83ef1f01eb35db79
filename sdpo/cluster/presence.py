"""Is the Ray that this process is connected to still there? A thread looks, and ends the command where it is not.

Ray itself would wait: for the raylet without end, for its control store a minute, and then it ends the process without a word.
The main thread may wait anywhere meanwhile, so it is interrupted by a signal of its own.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import Protocol

import psutil

from sdpo.cluster.deaths import full_shared_memory, num_memory_kills
from sdpo.errors import MachineError, Stopped, UserError
from sdpo.run.logs import print_last_words
from sdpo.terminal.stop_request import handling

CHECK_S = 0.5
NUM_PRESSES, PRESS_S = 3, 15.0
"""Interrupts, and how long each is given. After them the process is ended for certain; Ray would do that after 60 s, silently."""
PATIENCE_S = 30.0
"""Longest that a control store of somebody else's may refuse connections: it may be started again."""
_INTERRUPT = signal.SIGUSR2


class Part(Protocol):
    """A process of Ray without which nothing goes on."""

    @property
    def title(self) -> str: ...

    def end(self) -> str | None:
        """How it ended, in words; None: it is there."""
        ...


class Pollable(Protocol):
    """``subprocess.Popen``, as far as it is asked."""

    def poll(self) -> int | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """A process that this one started."""

    title: str
    process: Pollable

    def end(self) -> str | None:
        code = self.process.poll()
        if code is None:
            return None
        return f"ended with exit code {code}" if code >= 0 else f"was ended by {_signal_name(-code)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stranger:
    """A process of this machine that another one started."""

    title: str
    process: psutil.Process

    def end(self) -> str | None:
        with suppress(psutil.Error):
            if self.process.is_running() and self.process.status() != psutil.STATUS_ZOMBIE:
                return None
        return "is gone"


@dataclass(slots=True, kw_only=True)
class Listener:
    """A process of any machine, by the address at which it listens."""

    title: str
    address: tuple[str, int]
    patience_s: float = PATIENCE_S
    _refused_since: float | None = None

    def end(self) -> str | None:
        try:
            socket.create_connection(self.address, timeout=CHECK_S).close()
        except OSError:
            now = time.monotonic()
            self._refused_since = now if self._refused_since is None else self._refused_since
            silent_s = now - self._refused_since
            return f"has refused connections for {silent_s:.0f} s" if silent_s > self.patience_s else None
        self._refused_since = None
        return None


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def listening_at(path: str) -> psutil.Process | None:
    """The process that listens at a Unix socket, as the kernel knows it. None where there is none on this machine."""
    with suppress(OSError, psutil.Error), socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        probe.connect(path)
        pid, _, _ = struct.unpack("3i", probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
        return psutil.Process(pid) if pid > 0 else None  # 0: it is in another container
    return None


@contextmanager
def while_there(parts: Sequence[Part]) -> Iterator[None]:
    """End the block with MachineError as soon as one of the ``parts`` is gone, wherever the main thread waits.

    For the main thread; elsewhere nothing is watched.
    """
    if not parts or threading.current_thread() is not threading.main_thread():
        yield
        return
    watch = _Watch(parts)
    with handling(watch.interrupt, _INTERRUPT):
        try:
            watch.start()
            yield
        except BaseException as error:
            watch.leave()  # what interrupts this would be told in place of what is found
            found = watch.found_by_now(error)
            if found is None:
                raise
            raise MachineError(found) from error
        finally:
            watch.stop()


class _Gone(KeyboardInterrupt):
    """Raised in the main thread: of all errors, Ray lets only this kind through where it waits."""


class _Watch:
    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts, self._num_kills = parts, num_memory_kills()
        self._found: str | None = None
        self._over = threading.Event()
        self._main = threading.main_thread().ident
        self._thread = threading.Thread(target=self._run, name="presence", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def leave(self) -> None:
        """From here on nothing is interrupted."""
        self._over.set()

    def stop(self) -> None:
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join()

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._found is not None and not self._over.is_set():  # else it is somebody else's signal
            raise _Gone

    def found_by_now(self, error: BaseException) -> str | None:
        """What is gone and has led to ``error``. Ray may fail a moment before the thread looks again."""
        if isinstance(error, Stopped):
            return None
        until = time.monotonic() + (2 * CHECK_S if isinstance(error, Exception) and not isinstance(error, UserError) else 0.0)
        while self._found is None:
            self._check()
            if time.monotonic() >= until:
                break
            time.sleep(CHECK_S / 10)
        return self._found

    def _run(self) -> None:
        while not self._over.wait(CHECK_S):
            self._check()
            if self._found is not None:
                self._press(self._found)
                return

    def _check(self) -> None:
        for part in self._parts:
            end = part.end()
            if end is not None and self._found is None:
                self._found = self._in_words(part.title, end)

    def _press(self, found: str) -> None:
        """Interrupt the main thread until it has left the block, and end the process where it does not."""
        assert self._main is not None
        for _ in range(NUM_PRESSES):
            signal.pthread_kill(self._main, _INTERRUPT)
            if self._over.wait(PRESS_S):
                return
        print_last_words(f"error: {found}\nThe last checkpoint stands; the same command continues from it.\n")
        os._exit(1)

    def _in_words(self, title: str, end: str) -> str:
        why = ""
        full = full_shared_memory()
        if full is not None:
            why = f". {full}"
        elif num_memory_kills() > self._num_kills:
            why = ". The kernel has killed a process since the start because memory ran out"
        return f"{title} {end}, and without it no engine and no rank of the learner can go on{why}."
