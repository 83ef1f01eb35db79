"""How is one untrusted program run to its end, and what came of it? By a warm fork server, of which this process keeps some.

Each thread that runs a program has a server to itself; servers that are free wait for the next. They end with this process,
however that ends, because their socket does.

Programs that are given a secret have servers of their own, which run nothing else. So what the kernel keeps for one server (the
process ids of its room, its directory, its user's limits) tells a program without a secret nothing of one that had it.
"""

from __future__ import annotations

import atexit
import marshal
import os
import selectors
import signal
import socket
import subprocess
import threading
import time
from contextlib import suppress
from functools import partial
from typing import TypedDict

from sdpo.envs.children import deaf
from sdpo.envs.sandbox import server
from sdpo.envs.sandbox.isolation import Isolation, Settings, command
from sdpo.envs.sandbox.outcome import Ending, Limits, Outcome, SandboxUnavailable
from sdpo.envs.scratch import ScratchFolder

_START_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 5.0
_READ_BYTES = 1 << 16
_MESSAGE_BYTES = 1 << 16
_MOST_IDLE = 2 * (os.cpu_count() or 1)
"""Servers that wait for programs with a secret, and as many for those without."""


def run(program: str, *, stdin: bytes, limits: Limits, has_secret: bool = False) -> Outcome:
    """Run ``program`` (Python source) within ``limits``, and wait for its end. Safe to call from several threads.

    ``has_secret``: the program or its input holds what a later one may not learn, and nothing that it says is told.
    Whatever the program does is an ``Outcome``. Raises SandboxUnavailable where the walls cannot be put up.
    """
    return _POOL.run(program.encode("utf-8", "surrogatepass"), stdin, limits, has_secret=has_secret)


def use(settings: Settings) -> None:
    """What every program of this process is run in from now on."""
    _POOL.use(settings)


def isolation() -> Isolation:
    """What programs are run in. Raises SandboxUnavailable where there is nothing strong enough."""
    return _POOL.isolation()


def reasons_against() -> dict[Isolation, str]:
    """Why each kind of isolation does not work on this machine; empty where it does."""
    found = {}
    for kind in Isolation:
        try:
            ForkServer(kind).close()
            found[kind] = ""
        except SandboxUnavailable as error:
            found[kind] = str(error)
    return found


class _Reply(TypedDict):
    """What a fork server says of an execution."""

    status: int
    cpu_s: float
    refused: str


class ForkServer:
    """One, and the socket to it. A context manager: at its end the server is gone, and all that it ran."""

    def __init__(self, isolation: Isolation) -> None:
        """Returns when it serves. Raises SandboxUnavailable with its last words where it does not."""
        self.isolation = isolation
        self.is_usable = True
        has_room = isolation in (Isolation.bubblewrap, Isolation.namespaces)
        self._scratch = None if has_room else ScratchFolder("sandbox")
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        log = os.memfd_create("log")
        try:
            with theirs, deaf():
                self._process = subprocess.Popen(
                    command(isolation, theirs.fileno(), "" if self._scratch is None else str(self._scratch.path)),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=log,
                    pass_fds=(theirs.fileno(),),
                    cwd="/",
                    env={"PYTHONHASHSEED": "0"},  # the order of a set of strings may decide a verdict
                    start_new_session=True,
                )
            self._channel.settimeout(_START_TIMEOUT_S)
            if not self._received():
                self._process.wait(_STOP_TIMEOUT_S)
                words = os.pread(log, _READ_BYTES, 0).decode("utf-8", "replace").strip().splitlines()
                raise SandboxUnavailable(words[-1] if words else f"its server ended with exit code {self._process.returncode}")
            self.run(b"", b"", Limits())  # the walls of an execution are not the server's own
        except (SandboxUnavailable, OSError, subprocess.TimeoutExpired) as error:
            self.close()
            reason = f"no program was run, because the {isolation.value} sandbox could not be put up: {error}"
            raise SandboxUnavailable(reason) from error
        finally:
            os.close(log)

    def __enter__(self) -> ForkServer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self.is_usable = False
        self._channel.close()
        if hasattr(self, "_process"):
            with suppress(ProcessLookupError):
                self._process.kill()
            self._process.wait()
        if self._scratch is not None:
            self._scratch.close()

    def run(self, program: bytes, stdin: bytes, limits: Limits) -> Outcome:
        """As ``run`` above, here."""
        if limits.file_bytes > 0 and self.isolation is Isolation.landlock:
            raise SandboxUnavailable("the landlock sandbox has no quota of files and bytes, so a program may write none in it")
        started = time.monotonic()
        pipes = [os.pipe() for _ in range(3)]
        reads, writes = [read for read, _ in pipes], [write for _, write in pipes]
        sent = [_in_memory("program", program), _in_memory("stdin", stdin), *writes]
        try:
            numbers = (limits.memory_bytes, limits.whole_cpu_s, limits.file_bytes, limits.num_open_files)
            socket.send_fds(self._channel, [marshal.dumps(numbers)], sent)
            for fd in sent:
                os.close(fd)
            sent = []
            collected, stopped, reply = self._collect(reads, deadline=started + limits.wall_s, most_bytes=limits.output_bytes)
        except BaseException:  # whatever it was, what the server does now is not known
            self.is_usable = False
            raise
        finally:
            for fd in (*reads, *sent):
                os.close(fd)
        if reply["refused"] and stopped is None:  # a busy machine may not even have put the walls up in time
            raise SandboxUnavailable(reply["refused"])
        exit_code = os.waitstatus_to_exitcode(reply["status"])
        stdout, stderr, result = (channel[: limits.output_bytes] for channel in collected)
        return Outcome(
            ending=stopped or _ending(exit_code, is_out_of_cpu=reply["cpu_s"] >= limits.whole_cpu_s),
            exit_code=exit_code,
            stdout=stdout,
            stderr=stderr,
            result=result,
            wall_s=time.monotonic() - started,
        )

    def _collect(self, reads: list[int], *, deadline: float, most_bytes: int) -> tuple[list[bytes], Ending | None, _Reply]:
        """What the program wrote to each channel until it ended, what it was stopped for, and what the server says of it."""
        collected = {fd: bytearray() for fd in reads}
        stopped: Ending | None = None
        with selectors.DefaultSelector() as selector:
            selector.register(self._channel, selectors.EVENT_READ)
            for fd in reads:
                os.set_blocking(fd, False)
                selector.register(fd, selectors.EVENT_READ)
            while True:
                ready = {key.fd for key, _ in selector.select(max(deadline - time.monotonic(), 0))}
                has_ended = self._channel.fileno() in ready
                for fd in reads if has_ended else ready:
                    if fd in selector.get_map() and _drain(fd, collected[fd], most_bytes):
                        selector.unregister(fd)
                if any(len(read) > most_bytes for read in collected.values()):
                    stopped = Ending.output
                elif not has_ended and time.monotonic() >= deadline:
                    stopped = Ending.timeout
                if has_ended or stopped is not None:
                    reply = self._reply(stop=not has_ended)
                    return [bytes(collected[fd]) for fd in reads], stopped, reply

    def _reply(self, *, stop: bool) -> _Reply:
        self._channel.settimeout(_STOP_TIMEOUT_S)
        try:
            if stop:
                self._channel.send(server.STOP)
            message = self._received()
        except OSError:
            message = b""
        if not message:  # dead or stuck: with it goes all that it ran
            self.close()
            return {"status": signal.SIGKILL, "cpu_s": 0.0, "refused": ""}
        reply: _Reply = marshal.loads(message)
        return reply

    def _received(self) -> bytes:
        try:
            return self._channel.recv(_MESSAGE_BYTES)
        except ConnectionError:
            return b""


class _Pool:
    """The servers of this process."""

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        """In a forked process they are the parent's."""
        self._lock = threading.Lock()
        self._idle: dict[bool, list[ForkServer]] = {False: [], True: []}
        """By whether their programs have a secret."""
        self._settings = getattr(self, "_settings", Settings())
        self._chosen: Isolation | None = None

    def use(self, settings: Settings) -> None:
        with self._lock:
            idle = self._free()
            self._settings, self._chosen = settings, None
        for free in idle:
            free.close()

    def isolation(self) -> Isolation:
        taken = self._take(has_secret=False)
        self._give(taken, has_secret=False)
        return taken.isolation

    def run(self, program: bytes, stdin: bytes, limits: Limits, *, has_secret: bool) -> Outcome:
        taken = self._take(has_secret=has_secret)
        try:
            return taken.run(program, stdin, limits)
        finally:
            self._give(taken, has_secret=has_secret)

    def close(self) -> None:
        for free in self._free():
            free.close()

    def _free(self) -> list[ForkServer]:
        idle, self._idle = self._idle, {False: [], True: []}
        return [*idle[False], *idle[True]]

    def _take(self, *, has_secret: bool) -> ForkServer:
        with self._lock:
            if self._idle[has_secret]:
                return self._idle[has_secret].pop()
            if self._chosen is None:
                return self._choose()
        return ForkServer(self._chosen)

    def _give(self, taken: ForkServer, *, has_secret: bool) -> None:
        with self._lock:
            idle = self._idle[has_secret]
            if taken.is_usable and len(idle) < _MOST_IDLE and taken.isolation is self._chosen:
                idle.append(taken)
                return
        taken.close()

    def _choose(self) -> ForkServer:
        reasons = []
        for kind in Isolation if self._settings.isolation is None else (self._settings.isolation,):
            if kind is Isolation.weak and not self._settings.allow_weak:
                reasons.append("only weak isolation is left, which sandbox.allow_weak=true would permit")
                continue
            try:
                found = ForkServer(kind)
            except SandboxUnavailable as error:
                reasons.append(str(error))
                continue
            self._chosen = kind
            return found
        raise SandboxUnavailable("; ".join(reasons))


_POOL = _Pool()
atexit.register(_POOL.close)
os.register_at_fork(after_in_child=partial(_Pool._forget, _POOL))


def _in_memory(name: str, content: bytes) -> int:
    """A file in memory, to be read from its start."""
    fd = os.memfd_create(name)
    with open(fd, "wb", closefd=False) as file:
        file.write(content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


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


def _ending(exit_code: int, *, is_out_of_cpu: bool) -> Ending:
    if exit_code == -signal.SIGXCPU or (exit_code == -signal.SIGKILL and is_out_of_cpu):
        return Ending.cpu
    if exit_code < 0:
        return Ending.killed
    own = {
        0: Ending.ok,
        server.EXIT_MEMORY: Ending.memory,
        server.EXIT_PROCESSES: Ending.processes,
        server.EXIT_FILES: Ending.files,
    }
    return own.get(exit_code, Ending.error)
