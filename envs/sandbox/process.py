"""How is one untrusted program run to its end, and what came of it?

A program gets an interpreter of its own, which first walls itself in (``walls.py``) and then runs it. Nothing that the
program does outlives ``run``: its process group is killed, also on success, and its private directory removed. A new
interpreter costs some 20 ms an execution; a warm fork server, mount and process namespaces are left out here.
"""

from __future__ import annotations

import math
import os
import platform
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from sdpo.envs.sandbox.seccomp import filter_program
from sdpo.envs.sandbox.walls import EXIT_OUT_OF_MEMORY, NOBODY, READY

_WALLS = str(Path(__file__).with_name("walls.py"))
_MIN_MEMORY_BYTES = 1 << 26
_READ_BYTES = 1 << 16


class SandboxUnavailable(RuntimeError):
    """This machine cannot put up the walls, so the program was not run."""


class Ending(str, Enum):
    """How an execution ended."""

    ok = "ok"
    """It ended by itself with exit code 0."""
    error = "error"
    """It ended by itself with another exit code."""
    timeout = "timeout"
    """It ran past the time limit and was killed."""
    memory = "memory"
    """It ran out of memory."""
    output = "output"
    """It wrote more than the output limit and was killed."""
    killed = "killed"
    """A signal ended it: a crash, or the kernel's out-of-memory killer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one execution may use. Raises ValueError for a limit under which no program can run."""

    wall_s: float = 5.0
    """Seconds on the clock, the interpreter's start included; processor time is bounded by the same and one second."""
    memory_bytes: int = 1 << 29
    """Address space, the interpreter's own 20 MB included."""
    output_bytes: int = 1 << 16
    """Of standard output, standard error and the result, each."""
    file_bytes: int = 0
    """The largest file it may write, into its own directory only; 0 is no file at all."""
    num_open_files: int = 32
    allow_network: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.wall_s) and self.wall_s > 0):
            raise ValueError(f"wall_s must be a positive, finite number of seconds; got {self.wall_s!r}: give e.g. 5.0")
        if self.memory_bytes < _MIN_MEMORY_BYTES:
            raise ValueError(
                f"memory_bytes must be at least {_MIN_MEMORY_BYTES} (Python does not start in less); "
                f"got {self.memory_bytes!r}: give e.g. {1 << 29}"
            )
        for name, at_least in (("output_bytes", 1), ("file_bytes", 0), ("num_open_files", 16)):
            value = getattr(self, name)
            if value < at_least:
                raise ValueError(f"{name} must be at least {at_least}; got {value!r}: raise it")


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


def run(program: str, *, stdin: bytes, limits: Limits) -> Outcome:
    """Run ``program`` (Python source) within ``limits``, and wait for its end. Safe to call from several threads.

    Whatever the program does is an ``Outcome``. Raises SandboxUnavailable where the walls cannot be put up.
    """
    started = time.monotonic()
    directory = tempfile.mkdtemp(prefix="sdpo-sandbox-")
    program_fd = _in_memory("program", program.encode("utf-8", "surrogatepass"))
    stdin_fd = _in_memory("stdin", stdin)
    result_read, result_write = os.pipe()
    try:
        if os.geteuid() == 0:
            with suppress(OSError):  # in a user namespace without a nobody, the program stays who it is
                os.chown(directory, NOBODY, NOBODY)
        child = subprocess.Popen(
            [sys.executable, "-I", "-S", _WALLS, *_arguments(limits), str(program_fd), str(result_write)],
            stdin=stdin_fd,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=(program_fd, result_write),
            cwd=directory,
            env={},
            start_new_session=True,
            bufsize=0,
        )
        os.close(result_write)
        result_write = -1
        assert child.stdout is not None
        assert child.stderr is not None
        with child, child.stdout, child.stderr:
            channels = (child.stdout.fileno(), child.stderr.fileno(), result_read)
            try:
                collected, stopped = _collect(child.pid, channels, deadline=started + limits.wall_s, limits=limits)
            finally:
                _kill_group(child.pid)
            exit_code = child.wait()
    finally:
        for fd in (program_fd, stdin_fd, result_read, result_write):
            if fd >= 0:
                os.close(fd)
        os.chmod(directory, 0o700)
        shutil.rmtree(directory, ignore_errors=True)
    stdout, stderr, result = collected
    if stopped is None and not result.startswith(READY):
        reason = stderr.decode("utf-8", "replace").strip() or f"its interpreter ended with exit code {exit_code}"
        raise SandboxUnavailable(f"the sandbox could not be put up, so the program was not run: {reason}")
    return Outcome(
        ending=stopped or _ending(exit_code),
        exit_code=exit_code,
        stdout=stdout[: limits.output_bytes],
        stderr=stderr[: limits.output_bytes],
        result=result.removeprefix(READY)[: limits.output_bytes],
        wall_s=time.monotonic() - started,
    )


def _in_memory(name: str, content: bytes) -> int:
    """A file in memory, to be read from its start."""
    fd = os.memfd_create(name)
    with open(fd, "wb", closefd=False) as file:
        file.write(content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _arguments(limits: Limits) -> list[str]:
    """What ``walls.py`` is told, in its order."""
    try:
        refusals = filter_program(platform.machine(), allow_network=limits.allow_network)
    except ValueError as error:
        raise SandboxUnavailable(f"the sandbox could not be put up, so the program was not run: {error}") from error
    cpu_s = math.ceil(limits.wall_s) + 1
    numbers = (limits.memory_bytes, cpu_s, limits.file_bytes, limits.num_open_files, int(limits.allow_network))
    return [refusals.hex(), *map(str, numbers)]


def _collect(pid: int, channels: tuple[int, ...], *, deadline: float, limits: Limits) -> tuple[tuple[bytes, ...], Ending | None]:
    """What the process wrote to each channel until it ended, and what it has to be stopped for, if anything.

    Waits for the process, not for its channels to close: another process may hold them.
    """
    collected = {fd: bytearray() for fd in channels}
    most_bytes = limits.output_bytes + len(READY)
    process_fd = os.pidfd_open(pid)
    stopped: Ending | None = None
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(process_fd, selectors.EVENT_READ)
            for fd in channels:
                os.set_blocking(fd, False)
                selector.register(fd, selectors.EVENT_READ)
            has_ended = False
            while stopped is None and not has_ended:
                ready = {key.fd for key, _ in selector.select(max(deadline - time.monotonic(), 0))}
                has_ended = process_fd in ready
                for fd in channels if has_ended else ready:
                    if fd in selector.get_map() and _drain(fd, collected[fd], most_bytes):
                        selector.unregister(fd)
                if any(len(read) > most_bytes for read in collected.values()):
                    stopped = Ending.output
                elif not has_ended and time.monotonic() >= deadline:
                    stopped = Ending.timeout
    finally:
        os.close(process_fd)
    return tuple(bytes(collected[fd]) for fd in channels), stopped


def _drain(fd: int, into: bytearray, most_bytes: int) -> bool:
    """Read what is there, up to one byte too many. True at the channel's end."""
    while len(into) <= most_bytes:
        try:
            chunk = os.read(fd, min(_READ_BYTES, most_bytes + 1 - len(into)))
        except BlockingIOError:
            return False
        if not chunk:
            return True
        into += chunk
    return False


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)  # the leader is not reaped yet, so the id cannot be another group's
    except (ProcessLookupError, PermissionError):
        return  # everyone has ended


def _ending(exit_code: int) -> Ending:
    if exit_code == -signal.SIGXCPU:
        return Ending.timeout
    if exit_code < 0:
        return Ending.killed
    if exit_code == EXIT_OUT_OF_MEMORY:
        return Ending.memory
    return Ending.ok if exit_code == 0 else Ending.error
