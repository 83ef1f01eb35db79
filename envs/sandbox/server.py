"""The fork server: how does a program start in a millisecond, and what is left of it afterwards?

An interpreter that has imported what programs usually import locks itself into a room (``rooms.py``), then forks for every
execution. The fork takes the program's channels, walls itself in (``walls.py``), runs the program and ends. Then whatever else it
started is killed, what it wrote is removed, and the next may come. One execution runs at a time: a pool of servers runs several.

The server is a process of its own, with nothing but the standard library, and talks over a socket. A request is a message of
marshalled numbers with five file descriptors: program, standard input, output, error, and result. ``STOP`` ends the execution
that is going on. A reply says how it ended. The end of the socket ends the server.

Nothing secret may ever be in this process: every program begins as a copy of it. What a test expects never gets here.
"""

from __future__ import annotations

import atexit
import errno
import fcntl
import gc
import marshal
import os
import random
import select
import signal
import socket
import sys
import threading
import traceback
import types
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import NoReturn

from sdpo.envs.sandbox import rooms, walls
from sdpo.envs.sandbox.seccomp import NO_PROCESSES

STOP = b"stop"
EXIT_MEMORY, EXIT_PROCESSES, EXIT_FILES = 99, 97, 96
ROOM, NO_ROOM, FURNISHED = "room", "no room", "furnished"
"""Make a room; have none but a network namespace; stand in one that was made outside."""

_USUAL = (
    *("abc", "array", "bisect", "cmath", "collections", "collections.abc", "contextlib", "copy", "dataclasses", "datetime"),
    *("decimal", "enum", "fractions", "functools", "heapq", "io", "itertools", "json", "keyword", "math", "operator", "queue"),
    *("re", "statistics", "string", "struct", "textwrap", "time", "typing", "unicodedata"),
)
_RESULT = 3
_MESSAGE_BYTES = 1 << 16
_MOST_FILES = 1 << 12
_MAX_THREADS = 64
_NO_FILES = (errno.EFBIG, errno.ENOSPC, errno.EDQUOT, errno.EMFILE)
_WALLS_UP = b"+"


def main(channel: socket.socket, kind: str, refusals: bytes, directory: str, file_wall: bool, user: int) -> None:
    """Serve until the other end hangs up. ``directory``: where programs may write if there is no room. ``user``: whom root makes
    of its programs."""
    libraries = walls.library_paths()
    has_own_user = True
    if kind == ROOM:
        directory = rooms.enter_room(libraries)
    elif kind == FURNISHED:
        directory = rooms.finish_room()
    else:
        has_own_user = rooms.leave_network() or os.geteuid() == 0
    os.chmod(directory, 0o711)
    for name in _USUAL:
        __import__(name)
    if file_wall and kind == NO_ROOM and walls.landlock_version() < 1:
        raise OSError("the kernel has no Landlock (5.13 or later, and not switched off)")
    reading = walls.file_rules(libraries, directory, may_write=False) if file_wall else -1
    is_first = os.getpid() == 1  # of a process namespace: everybody else there is an execution's doing
    gc.collect()
    gc.freeze()  # forks then share the memory of what is there
    channel.send(marshal.dumps({"ready": True}))
    is_over = False
    while not is_over:
        request, fds, _, _ = socket.recv_fds(channel, _MESSAGE_BYTES, 5)
        if not request:
            break
        if request == STOP:
            continue  # came too late: what it was to stop had ended
        limits = marshal.loads(request)
        report_read, report_write = os.pipe()
        own = os.path.join(directory, "own")
        os.mkdir(own, 0o700)
        rooms.give(own, user)
        pid = os.fork()
        if pid == 0:
            may_write = limits[2] > 0
            rules = walls.file_rules(libraries, own, may_write=True) if file_wall and may_write else reading
            wall_in = partial(walls.wall_in, rules, refusals, user, _MAX_THREADS if has_own_user else 0, limits)
            _become(fds, report_write, own, wall_in)
        os.close(report_write)
        for fd in fds:
            os.close(fd)
        status, cpu_s, is_over = _outcome(channel, pid, is_first=is_first)
        _clear(directory)
        report = os.read(report_read, _MESSAGE_BYTES)
        os.close(report_read)
        if not is_over:
            channel.send(marshal.dumps({"status": status, "cpu_s": cpu_s, "refused": _refusal(report)}))
    with suppress(OSError):
        os.rmdir(directory)  # where there is no room, it is the machine's
    os._exit(0)


def _refusal(report: bytes) -> str:
    """Why a program was not run; empty if it was."""
    return "" if report == _WALLS_UP else report.decode(errors="replace") or "it ended before its walls were up"


def _outcome(channel: socket.socket, pid: int, *, is_first: bool) -> tuple[int, float, bool]:
    """The status and processor seconds of the execution, once it and all it started are gone; whether nobody waits for them."""
    process = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(process, select.POLLIN)
    poll.register(channel, select.POLLIN)
    ready = {fd for fd, _ in poll.poll()}
    is_over = process not in ready and channel.recv(len(STOP)) != STOP
    os.close(process)
    _kill(-1 if is_first else pid)
    _, status, usage = os.wait4(pid, 0)
    while is_first:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            break
    return status, usage.ru_utime + usage.ru_stime, is_over


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return  # everyone has ended


def _clear(directory: str) -> None:
    """Remove what is in ``directory``: the program's own directory with the files and links that it made there. Where the program
    and the server are one user, it could also write beside its own."""
    for entry in os.scandir(directory):
        if entry.is_dir(follow_symlinks=False):
            _clear(entry.path)
            os.rmdir(entry.path)
        else:
            os.unlink(entry.path)
    os.utime(directory, (0, 0))


def _become(fds: list[int], report: int, directory: str, wall_in: Callable[[], None]) -> NoReturn:
    """The forked process, from its first moment to its last."""
    leave = os._exit
    try:
        os.setsid()
        os.chdir(directory)
        program, *channels = fds
        with open(program, "rb") as file:
            source = file.read()
        for place, fd in enumerate(channels):
            os.dup2(fd, place, inheritable=False)
        wall_in()
        os.closerange(len(channels), report)
        os.closerange(report + 1, _MOST_FILES)
        os.write(report, _WALLS_UP)
        os.close(report)
    except BaseException as error:  # noqa: BLE001 - said to the server, which says it to whoever asked
        os.write(report, f"{type(error).__name__}: {error}".encode()[:_MESSAGE_BYTES])
        leave(1)
    leave(_run(source))


def _run(source: bytes) -> int:
    """The program's exit code, as its own interpreter would have it, or the code of what it ran into."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "sdpo"]:
        del sys.modules[name]
    os.environ.clear()
    sys.argv = ["program"]
    sys.stdin, sys.stdout, sys.stderr = (
        open(fd, mode, encoding="utf-8", errors=errors, closefd=False)  # noqa: SIM115 - the program's, as long as it lives
        for fd, mode, errors in ((0, "r", "surrogateescape"), (1, "w", "surrogateescape"), (2, "w", "backslashreplace"))
    )
    random.seed(0)  # every fork would begin where the server's generator stands
    module = sys.modules["__main__"] = types.ModuleType("__main__")
    code = 0
    try:
        exec(compile(source, "<program>", "exec"), module.__dict__)
        threading._shutdown()  # type: ignore[attr-defined] # as at an interpreter's end: threads that are no daemons are waited for
        atexit._run_exitfuncs()
    except MemoryError:
        return EXIT_MEMORY
    except SystemExit as asked:
        code = asked.code if isinstance(asked.code, int) else int(asked.code is not None)
    except BaseException as error:  # noqa: BLE001 - the program's own
        code = _code_of(error)
        trace = error.__traceback__
        traceback.print_exception(type(error), error, trace and trace.tb_next, limit=20)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            code = code or 1
    return code & 0xFF


def _code_of(error: BaseException) -> int:
    if isinstance(error, OSError) and error.errno == NO_PROCESSES:
        return EXIT_PROCESSES
    if isinstance(error, OSError) and error.errno in _NO_FILES:
        return EXIT_FILES
    return 1


def _from_outside() -> None:
    """``python -c BOOTSTRAP FOLDER CHANNEL KIND REFUSALS DIRECTORY FILE_WALL USER``"""
    fd, kind, refusals, directory, file_wall, user = sys.argv[2:]
    with socket.socket(fileno=fcntl.fcntl(int(fd), fcntl.F_DUPFD_CLOEXEC, 10)) as channel:
        os.close(int(fd))
        while os.open(os.devnull, os.O_RDWR) < _RESULT:  # the places of a program's channels are taken, so nothing else gets them
            pass
        main(channel, kind, bytes.fromhex(refusals), directory, file_wall == "1", int(user))
