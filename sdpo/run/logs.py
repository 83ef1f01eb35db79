"""Process output: that of libraries goes into a file of the run, so that the screen stays the user's. Stacks on request."""

from __future__ import annotations

import faulthandler
import os
import platform
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sdpo.run.files import write_whole

PROCESSES = "processes"
"""Folder beside the logs: a file ``HOST-PID`` for each process that writes one, with when it began (``began_at``)."""
_users_errors = [2]
"""Descriptors of the user's standard error; the last one holds, while the process's own is a file."""


def redirect_output(path: Path) -> None:
    """Send this process's standard output and error to the end of ``path``, those of C++ libraries and children included.

    Whenever it gets SIGUSR1, the stacks of all its threads go there too. C writes them, so also while it hangs in a library.
    """
    _send_output(path)
    answer_with_stacks(path.parent)


@contextmanager
def output_into(path: Path) -> Iterator[None]:
    """Send this process's output to the end of ``path`` for the length of the block."""
    saved = os.dup(1), os.dup(2)
    _users_errors.append(saved[1])
    try:
        _send_output(path)
        yield
    finally:
        _users_errors.pop()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):  # the log's disk may be full
                stream.flush()
        for descriptor, copy in zip((1, 2), saved, strict=True):
            os.dup2(copy, descriptor)
            os.close(copy)


def print_last_words(text: str) -> None:
    """Write to the user's standard error, also while this process's output goes into a file; for the last words of a process."""
    with suppress(OSError):
        os.write(_users_errors[-1], text.encode(errors="replace"))


def answer_with_stacks(logs: Path) -> None:
    """Write the stacks of all threads to where errors go whenever this process gets SIGUSR1, and note that in ``logs``."""
    faulthandler.register(signal.SIGUSR1, file=2, all_threads=True)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})  # it may have been started deaf to it
    _sign_in(logs / PROCESSES)


def tail(path: Path) -> str:
    """The last 15 lines of a log, or a word that there are none."""
    if not path.exists():
        return "(no log was written)"
    lines = path.read_text(errors="replace").splitlines()
    return "\n".join(lines[-15:]) or "(the log is empty)"


def processes(logs: Path) -> list[int]:
    """Ids of the processes of this machine that write a log in ``logs`` and answer SIGUSR1 with their stacks."""
    found = []
    for file in (logs / PROCESSES).glob(f"{platform.node()}-*"):
        pid = int(file.name.rpartition("-")[2])
        try:
            is_the_same = began_at(pid) == int(file.read_text())  # ids are given out again
        except (OSError, ValueError):
            is_the_same = False
        if is_the_same:
            found.append(pid)
        else:
            file.unlink(missing_ok=True)
    return found


def began_at(pid: int) -> int:
    """When a process began, in clock ticks after the machine's own start, which no change of its clock moves.

    The 22nd field of ``/proc/PID/stat`` (proc(5)); the second is a name that may hold anything. Raises OSError where there is no
    such process.
    """
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def ask_for_stacks(logs: Path) -> int:
    """Have each of the ``processes`` but this one write its stacks. Returns how many were asked."""
    others = [pid for pid in processes(logs) if pid != os.getpid()]
    for pid in others:
        with suppress(OSError):  # it has ended since
            os.kill(pid, signal.SIGUSR1)
    return len(others)


def _send_output(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def _sign_in(folder: Path) -> None:
    with suppress(OSError):  # a full disk; then nobody will ask this process
        folder.mkdir(exist_ok=True)
        file = folder / f"{platform.node()}-{os.getpid()}"
        write_whole(file, str(began_at(os.getpid())))
