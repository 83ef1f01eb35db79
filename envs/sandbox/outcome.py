"""What may one execution of an untrusted program use, and what can come of it?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

_MIN_MEMORY_BYTES = 1 << 26


class SandboxUnavailable(RuntimeError):
    """This machine cannot put up the walls, so the program was not run."""


class Ending(str, Enum):
    """How an execution ended. Each limit has its own, so that feedback can name it."""

    ok = "ok"
    """It ended by itself with exit code 0."""
    error = "error"
    """It ended by itself with another exit code."""
    timeout = "timeout"
    """It ran past the time limit and was killed."""
    cpu = "cpu"
    """It used up its processor time."""
    memory = "memory"
    """It ran out of memory."""
    processes = "processes"
    """It ended because it may not start a process."""
    files = "files"
    """It ended because a file grew too large, too many were open, or there was no room."""
    output = "output"
    """It wrote more than the output limit and was killed."""
    killed = "killed"
    """A signal ended it: a crash, or the kernel's out-of-memory killer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one execution may use. Raises ValueError for a limit under which no program can run."""

    wall_s: float = 5.0
    """Seconds on the clock."""
    cpu_s: float | None = None
    """Seconds of processor time, of all threads, rounded up to whole ones; None: as long as the clock allows, and one more."""
    memory_bytes: int = 1 << 29
    """Address space, the interpreter's own 30 MB included."""
    output_bytes: int = 1 << 16
    """Most bytes of standard output, standard error and the result, each."""
    file_bytes: int = 0
    """The largest file it may write, into its own directory only; 0 is no file at all."""
    num_open_files: int = 32

    def __post_init__(self) -> None:
        for name in ("wall_s", "cpu_s"):
            seconds = getattr(self, name)
            if seconds is not None and not (math.isfinite(seconds) and seconds > 0):
                raise ValueError(f"{name} must be a positive, finite number of seconds; got {seconds!r}: give e.g. 5.0")
        if self.memory_bytes < _MIN_MEMORY_BYTES:
            raise ValueError(
                f"memory_bytes must be at least {_MIN_MEMORY_BYTES} (Python does not start in less); "
                f"got {self.memory_bytes!r}: give e.g. {1 << 29}"
            )
        for name, at_least in (("output_bytes", 1), ("file_bytes", 0), ("num_open_files", 16)):
            value = getattr(self, name)
            if value < at_least:
                raise ValueError(f"{name} must be at least {at_least}; got {value!r}: raise it")

    @property
    def whole_cpu_s(self) -> int:
        """The kernel counts whole seconds."""
        return math.ceil(self.cpu_s) if self.cpu_s is not None else math.ceil(self.wall_s) + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of an execution. Every byte was chosen by the program: judge it, never trust it."""

    ending: Ending
    exit_code: int
    """As in ``subprocess``: minus the signal's number where a signal ended it."""
    stdout: bytes
    stderr: bytes
    result: bytes
    """What it wrote to file descriptor 3."""
    wall_s: float
