"""How does a helper process run a library over an answer, in a fork that has walled itself in first?

This is the helper's side; ``helpers.py`` starts it. Standard library only. Requests come in on standard input and replies go out
on standard output, both marshalled behind their length. Only the answer is hostile, so it is read only in a fork, after the
walls. The walls are:

- limits on processor time and address space
- no files written (Landlock, where the kernel has it, and a file size of 0)
- no capabilities, no network, no new process, no signal to another

A fork may read what its user may read: sympy and others import parts of themselves late.
"""

from __future__ import annotations

import ctypes
import marshal
import os
import random
import resource
import select
import signal
import struct
import time
from collections.abc import Callable
from typing import BinaryIO, NoReturn

Message = tuple[object, ...]

_NEW_USER, _NEW_NETWORK = 0x10000000, 0x40000000
_PDEATHSIG, _SECCOMP, _NO_NEW_PRIVILEGES, _SECCOMP_FILTER = 1, 22, 38, 2
_CAPABILITY_VERSION = 0x20080522
_LANDLOCK_CREATE, _LANDLOCK_RESTRICT = 444, 446
_LANDLOCK_WRITING = {1: 0x1FF2, 2: 0x3FF2, 3: 0x7FF2}
"""Every right of a Landlock version but those to execute and read. Version 1 has those to open for writing, make and remove; 2
adds moving, and 3 truncating."""
_NONCE_BYTES = 16
_SAID, _RAISED, _NO_WALLS = b"=", b"!", b"#"
_MAX_SAID_BYTES = 1024
_LIBC = ctypes.CDLL(None, use_errno=True)


class _Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def serve(start: Callable[[], tuple[object, Callable[[Message], Message]]]) -> None:
    """Answer requests until the input ends. ``start`` imports the library; it gives what to say of it, and what answers."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)  # a library that prints does not speak to the trainer
    _LIBC.unshare(_NEW_NETWORK if os.geteuid() == 0 else _NEW_USER | _NEW_NETWORK)  # where refused, seccomp alone keeps forks off
    try:
        about, answer = start()
    except Exception as error:  # noqa: BLE001 - said to the one who asked for the package
        _send(replies, ("broken", f"{type(error).__name__}: {error}"))
        return
    _send(replies, ("ready", about))
    while header := requests.read(8):
        request: Message = marshal.loads(requests.read(*struct.unpack("=Q", header)))
        try:
            reply = answer(request)
        except Exception as error:  # noqa: BLE001 - the library's fault, or its options': said to the one who asked
            reply = ("broken", f"{type(error).__name__}: {error}")
        _send(replies, reply)


def in_fork(judge: Callable[[], bytes], *, wall_s: float, memory_bytes: int, refusals: bytes) -> tuple[str, bytes | str]:
    """``("said", what judge returned)``, ``("raised", "ValueError")`` or ``("stopped", reason)``.

    What ``judge`` returns may be nearly 1,000 bytes long. Raises OSError where the walls cannot be put up.
    """
    nonce = os.urandom(_NONCE_BYTES)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        _judge_and_end(judge, wall_s, memory_bytes, refusals, nonce, writing)
    os.close(writing)
    said, is_late = _read_all(reading, time.monotonic() + wall_s)
    os.close(reading)
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    kind, rest = said[_NONCE_BYTES : _NONCE_BYTES + 1], said[_NONCE_BYTES + 1 :]
    if said[:_NONCE_BYTES] == nonce and kind == _SAID:
        return "said", rest
    if said[:_NONCE_BYTES] == nonce and kind == _RAISED:
        return "raised", rest.decode("ascii", "replace")
    if said[:_NONCE_BYTES] == nonce and kind == _NO_WALLS:
        raise OSError(f"the walls around scoring could not be put up: {rest.decode('utf-8', 'replace')}")
    if is_late or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU):
        return "stopped", f"it did not end within {wall_s:g} seconds"
    return "stopped", "its process ended without a score"


def _send(replies: BinaryIO, reply: Message) -> None:
    message = marshal.dumps(reply)  # type: ignore[arg-type]
    replies.write(struct.pack("=Q", len(message)) + message)
    replies.flush()


def _read_all(channel: int, deadline: float) -> tuple[bytes, bool]:
    said = b""
    while len(said) < _MAX_SAID_BYTES:
        ready, _, _ = select.select([channel], [], [], max(deadline - time.monotonic(), 0))
        if not ready:
            return said, True
        if not (chunk := os.read(channel, _MAX_SAID_BYTES)):
            break
        said += chunk
    return said, False


def _judge_and_end(
    judge: Callable[[], bytes], wall_s: float, memory_bytes: int, refusals: bytes, nonce: bytes, writing: int
) -> NoReturn:
    try:
        _wall_in(wall_s, memory_bytes, refusals)
    except BaseException as error:  # noqa: BLE001 - said to the helper; this process must not go on
        os.write(writing, nonce + _NO_WALLS + str(error)[:200].encode("utf-8", "replace"))
        os._exit(1)
    try:
        random.seed(0)
        said = nonce + _SAID + judge()
    except BaseException as error:  # noqa: BLE001 - whatever it is, this process ends here
        said = nonce + _RAISED + type(error).__name__[:80].encode("ascii", "replace")
    os.write(writing, said)
    os._exit(0)


def _wall_in(wall_s: float, memory_bytes: int, refusals: bytes) -> None:
    _check(_LIBC.prctl(_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "pdeathsig")
    _check(_LIBC.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0), "no_new_privs")
    version = _LIBC.syscall(_LANDLOCK_CREATE, None, ctypes.c_size_t(0), 1)
    if version >= 1:
        handled = struct.pack("=Q", _LANDLOCK_WRITING[min(version, max(_LANDLOCK_WRITING))])
        ruleset = _LIBC.syscall(_LANDLOCK_CREATE, handled, ctypes.c_size_t(len(handled)), 0)
        _check(ruleset, "landlock")
        _check(_LIBC.syscall(_LANDLOCK_RESTRICT, ruleset, 0), "landlock")
    header = struct.pack("=Ii", _CAPABILITY_VERSION, 0)
    _check(_LIBC.capset(header, bytes(24)), "capabilities")
    with open("/proc/self/statm") as statm:
        present_bytes = int(statm.read().split()[0]) * resource.getpagesize()
    for kind, limit in (
        (resource.RLIMIT_CPU, int(wall_s) + 1),
        (resource.RLIMIT_AS, present_bytes + memory_bytes),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 64),
    ):
        most = resource.getrlimit(kind)[1]
        limit = limit if most == resource.RLIM_INFINITY else min(limit, most)
        resource.setrlimit(kind, (limit, limit))
    filter_ = _Filter(len(refusals) // 8, refusals)
    _check(_LIBC.prctl(_SECCOMP, _SECCOMP_FILTER, ctypes.byref(filter_), 0, 0), "seccomp")


def _check(returned: int, wall: str) -> None:
    if returned < 0:
        raise OSError(ctypes.get_errno(), f"{wall}: {os.strerror(ctypes.get_errno())}")
