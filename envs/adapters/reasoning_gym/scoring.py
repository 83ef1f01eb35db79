"""How does the trainer ask reasoning-gym for puzzles and scores without running any of it in its own process?

One worker (``worker.py``) a process, started at the first question and kept: importing reasoning-gym takes seconds. One question
at a time; a worker that died is replaced at the next one.
"""

from __future__ import annotations

import atexit
import marshal
import os
import platform
import struct
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sdpo.envs.children import Lifeline
from sdpo.envs.sandbox.seccomp import filter_program

_WORKER = str(Path(__file__).with_name("worker.py"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Puzzle:
    """A task's payload."""

    dataset: str
    reference: str | None
    """A right answer, never to be shown to a student; None where the dataset gives none."""
    entry: bytes
    """What the scorer wants back, pickled by the worker and opaque here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What a scorer gave an answer."""

    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Unscored:
    """Why a scorer came to no score: ``"it raised ValueError"``."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What scoring one answer may use."""

    wall_s: float
    memory_bytes: int
    """Address space beyond what the worker has."""


class Worker:
    """A running ``worker.py``. Raises RuntimeError where it does not start or dies."""

    def __init__(self) -> None:
        refusals = filter_program(platform.machine()).hex()
        # Hash seed 0: datasets that walk over a set of strings are then the same in every process. -P, not -I, which would
        # drop it.
        self._line = Lifeline()  # the end of its input would end it only after the question that it is at
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-s", _WORKER, refusals],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1"},
            pass_fds=self._line.pass_fds,
        )
        self._line.tie(self._process)
        self._lock = threading.Lock()
        self.is_alive = True
        match self._receive():
            case ("ready", list(names)):
                self.dataset_names = tuple(names)
            case ("broken", reason):
                raise RuntimeError(f"reasoning_gym must be importable by {sys.executable}; importing it raised {reason}")

    def ask(self, request: tuple[object, ...]) -> tuple[object, ...]:
        """The reply. Raises ValueError, with the worker's reason, for what the dataset or its options cannot do."""
        message = marshal.dumps(request)  # type: ignore[arg-type]  # texts, numbers, and options of them
        with self._lock:
            assert self._process.stdin is not None
            try:
                self._process.stdin.write(struct.pack("=Q", len(message)) + message)
                self._process.stdin.flush()
            except BrokenPipeError as error:
                self.is_alive = False
                raise RuntimeError("the process that runs reasoning-gym has died") from error
            reply = self._receive()
        if reply[0] == "broken":
            raise ValueError(str(reply[1]))
        return reply

    def close(self) -> None:
        """The end of its input ends it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):  # it has died, with a question unread
            self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(timeout=10)
        self._line.close()

    def _receive(self) -> tuple[object, ...]:
        assert self._process.stdout is not None
        header = self._process.stdout.read(8)
        if len(header) < 8:
            self.is_alive = False
            raise RuntimeError(f"the process that runs reasoning-gym ended with exit code {self._process.wait()}")
        reply = marshal.loads(self._process.stdout.read(*struct.unpack("=Q", header)))
        assert isinstance(reply, tuple)
        return reply


_workers: dict[int, Worker] = {}
"""By process id, so that a forked process starts its own instead of talking over its parent's."""
_starting = threading.Lock()


def worker() -> Worker:
    """This process's worker."""
    with _starting:
        own = _workers.get(os.getpid())
        if own is None or not own.is_alive:
            own = _workers[os.getpid()] = Worker()
            atexit.register(own.close)
        return own


def puzzles(dataset: str, options: Mapping[str, object], split: str, heldout_share: float) -> list[tuple[str, Puzzle]]:
    """Each question of ``split`` with its puzzle. Raises ValueError for options that the dataset does not take."""
    match worker().ask(("puzzles", dataset, dict(options), split, heldout_share)):
        case ("puzzles", list(made)):
            return [(question, Puzzle(dataset=dataset, reference=answer, entry=entry)) for question, answer, entry in made]
        case reply:
            raise AssertionError(reply)


def score(puzzle: Puzzle, options: Mapping[str, object], answer: str, limits: Limits) -> Score | Unscored:
    """What the dataset's scorer says of ``answer``. Raises RuntimeError where scoring itself is broken."""
    request = ("score", puzzle.dataset, dict(options), puzzle.entry, answer, limits.wall_s, limits.memory_bytes)
    try:
        reply = worker().ask(request)
    except ValueError as error:
        raise RuntimeError(f"the scorer of {puzzle.dataset} could not be run: {error}") from error
    match reply:
        case ("score", float(value)):
            return Score(value=value)
        case ("raised", str(error_name)):
            return Unscored(reason=f"it raised {error_name}")
        case ("stopped", str(reason)):
            return Unscored(reason=reason)
    raise AssertionError(reply)
