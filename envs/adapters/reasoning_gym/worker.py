"""The process that runs reasoning-gym: makes puzzles, and scores answers in forks that have walled themselves in.

It runs as a script, with nothing of this package in it. Requests come in on standard input and replies go out on standard output,
both marshalled behind their length. Only the answer is hostile, so it is read only in a fork, after the walls. The walls are:

- limits on processor time and address space
- no files written (Landlock, where the kernel has it, and a file size of 0)
- no capabilities, no network, no new process, no signal to another

A fork may read what its user may read: sympy and others import parts of themselves late.

What remains: a scorer calculates the score in the process that reads the answer. A text that makes the scorer execute it could
find the nonce in that process's memory and write a score of its own choice. Texts that the nine executing scorers would execute
are refused before (``plain.py``). For a hole in that, or in a scorer not yet known to execute, the walls bound the damage, but
not the score.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import json
import marshal
import os
import pickle
import random
import resource
import select
import signal
import struct
import sys
import time
from hashlib import blake2b
from types import ModuleType
from typing import Any, BinaryIO, NoReturn

_NEW_USER, _NEW_NETWORK = 0x10000000, 0x40000000
_PDEATHSIG, _SECCOMP, _NO_NEW_PRIVILEGES, _SECCOMP_FILTER = 1, 22, 38, 2
_CAPABILITY_VERSION = 0x20080522
_LANDLOCK_CREATE, _LANDLOCK_RESTRICT = 444, 446
_LANDLOCK_WRITING = {1: 0x1FF2, 2: 0x3FF2, 3: 0x7FF2}
"""Every right of a Landlock version but those to execute and read. Version 1 has those to open for writing, make and remove; 2
adds moving, and 3 truncating."""
_NONCE_BYTES = 16
_SCORED, _RAISED, _NO_WALLS = b"=", b"!", b"#"
_STOOD_IN_FOR = (
    *("matplotlib", "matplotlib.pyplot", "matplotlib.animation", "matplotlib.collections"),
    *("mpl_toolkits", "mpl_toolkits.mplot3d"),
)
"""Imported by a library that could also draw, and never used here: a second to start, and a directory left in /tmp."""
_LIBC = ctypes.CDLL(None, use_errno=True)

Puzzle = tuple[str, str | None, bytes]
"""Question, reference answer if there is one, and the pickled entry that its scorer wants back."""


class _Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


class Datasets:
    """The datasets asked for so far, made before any fork, so that a fork finds them made."""

    def __init__(self) -> None:
        for name in _STOOD_IN_FOR:
            sys.modules[name] = ModuleType(name)
        vars(sys.modules["mpl_toolkits.mplot3d"])["Axes3D"] = None
        if importlib.util.find_spec("pycosat") is None:  # has no wheels; one dataset of many needs it, but all import it
            sys.modules["pycosat"] = ModuleType("pycosat")
        gym = importlib.import_module("reasoning_gym")
        self._create = gym.create_dataset
        self.names = sorted(importlib.import_module("reasoning_gym.factory").DATASETS)
        self._made: dict[str, Any] = {}  # Any: the package has no types
        self._puzzles: dict[str, list[Puzzle]] = {}

    def get(self, name: str, options: dict[str, object]) -> Any:
        key = _key(name, options)
        if key not in self._made:
            dataset = self._create(name, **options)
            self._made[key] = dataset
            entry = dataset[0]
            dataset.score_answer(entry["answer"], entry)  # what it imports late, it imports now
        return self._made[key]

    def puzzles(self, name: str, options: dict[str, object], split: str, heldout_share: float) -> list[Puzzle]:
        """The different ones of ``split``: a question's hash, and nothing else, says which split it is in.

        All are made at once and kept: some generators (codeio runs other people's) do not make the same twice in a process.
        """
        dataset, key = self.get(name, options), _key(name, options)
        if key not in self._puzzles:
            random.seed(0)  # some draw from the global generators as well
            importlib.import_module("numpy").random.seed(0)
            found: dict[str, Puzzle] = {}
            for index in range(len(dataset)):
                entry = dataset[index]
                answer = None if entry["answer"] is None else str(entry["answer"])
                found.setdefault(str(entry["question"]), (str(entry["question"]), answer, pickle.dumps(entry)))
            self._puzzles[key] = list(found.values())
        return [puzzle for puzzle in self._puzzles[key] if is_heldout(puzzle[0], heldout_share) == (split == "heldout")]


def _key(name: str, options: dict[str, object]) -> str:
    return json.dumps([name, options], sort_keys=True, default=repr)


def is_heldout(question: str, heldout_share: float) -> bool:
    number = int.from_bytes(blake2b(question.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
    return number < heldout_share * 2**64


def main(refusals: bytes) -> None:
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)  # a dataset that prints does not speak to the trainer
    _LIBC.unshare(_NEW_NETWORK if os.geteuid() == 0 else _NEW_USER | _NEW_NETWORK)  # where refused, seccomp alone keeps forks off
    try:
        datasets = Datasets()
    except Exception as error:  # noqa: BLE001 - said to the one who asked for the package
        _send(replies, ("broken", f"{type(error).__name__}: {error}"))
        return
    _send(replies, ("ready", datasets.names))
    while header := requests.read(8):
        reply: tuple[object, ...]
        kind, *arguments = marshal.loads(requests.read(*struct.unpack("=Q", header)))
        try:
            if kind == "puzzles":
                name, options, split, heldout_share = arguments
                reply = ("puzzles", datasets.puzzles(name, options, split, heldout_share))
            else:
                name, options, entry, answer, wall_s, memory_bytes = arguments
                reply = _score(datasets.get(name, options), entry, answer, wall_s, memory_bytes, refusals)
        except Exception as error:  # noqa: BLE001 - the dataset's fault, or its options': said to the one who asked
            reply = ("broken", f"{type(error).__name__}: {error}")
        _send(replies, reply)


def _send(replies: BinaryIO, reply: tuple[object, ...]) -> None:
    message = marshal.dumps(reply)  # type: ignore[arg-type]
    replies.write(struct.pack("=Q", len(message)) + message)
    replies.flush()


def _score(
    dataset: Any, entry: bytes, answer: str, wall_s: float, memory_bytes: int, refusals: bytes
) -> tuple[str, float] | tuple[str, str]:
    """``("score", 0.35)``, ``("raised", "ValueError")``, or ``("stopped", reason)``."""
    nonce = os.urandom(_NONCE_BYTES)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        _score_and_end(dataset, entry, answer, wall_s, memory_bytes, refusals, nonce, writing)
    os.close(writing)
    said, is_late = _read_all(reading, time.monotonic() + wall_s)
    os.close(reading)
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    kind, rest = said[_NONCE_BYTES : _NONCE_BYTES + 1], said[_NONCE_BYTES + 1 :]
    if said[:_NONCE_BYTES] == nonce and kind == _SCORED and len(rest) == 8:
        return "score", struct.unpack("=d", rest)[0]
    if said[:_NONCE_BYTES] == nonce and kind == _RAISED:
        return "raised", rest.decode("ascii", "replace")
    if said[:_NONCE_BYTES] == nonce and kind == _NO_WALLS:
        raise OSError(f"the walls around scoring could not be put up: {rest.decode('utf-8', 'replace')}")
    if is_late or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU):
        return "stopped", f"it did not end within {wall_s:g} seconds"
    return "stopped", "its process ended without a score"


def _read_all(channel: int, deadline: float) -> tuple[bytes, bool]:
    said = b""
    while len(said) < 1024:
        ready, _, _ = select.select([channel], [], [], max(deadline - time.monotonic(), 0))
        if not ready:
            return said, True
        if not (chunk := os.read(channel, 1024)):
            break
        said += chunk
    return said, False


def _score_and_end(
    dataset: Any, entry: bytes, answer: str, wall_s: float, memory_bytes: int, refusals: bytes, nonce: bytes, writing: int
) -> NoReturn:
    try:
        question = pickle.loads(entry)
        _wall_in(wall_s, memory_bytes, refusals)
    except BaseException as error:  # noqa: BLE001 - said to the worker; this process must not go on
        os.write(writing, nonce + _NO_WALLS + str(error)[:200].encode("utf-8", "replace"))
        os._exit(1)
    try:
        random.seed(0)
        said = nonce + _SCORED + struct.pack("=d", float(dataset.score_answer(answer, question)))
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


if __name__ == "__main__":
    main(bytes.fromhex(sys.argv[1]))
