"""How does the trainer ask a library without running any of it in its own process?

A script that calls ``forks.serve`` is a *helper*: one process for each process that asks, started at the first question and kept,
since its library takes seconds to import. One question at a time; a helper that died is replaced at the next one.
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
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sdpo.envs.children import Lifeline, deaf
from sdpo.envs.sandbox.seccomp import filter_program

_BOOTSTRAP = """
import runpy, sys, types
for name in ("sdpo", "sdpo.envs", "sdpo.envs.sandbox"):
    module = sys.modules[name] = types.ModuleType(name)
    module.__path__ = [sys.argv[1]] if name.endswith("sandbox") else []
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Of this package, a helper has ``forks`` and its own script."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What judging one answer may use."""

    wall_s: float
    memory_bytes: int
    """Address space beyond what the helper has."""


class Helper:
    """A running script. Raises RuntimeError where it does not start or dies."""

    def __init__(self, script: Path, package: str) -> None:
        """``package``: what it needs, for messages."""
        self._package = package
        refusals = filter_program(platform.machine()).hex()
        # Hash seed 0: libraries that walk over a set of strings are then the same in every process. -P, not -I, which would
        # drop it.
        self._line = Lifeline()  # the end of its input would end it only after the question that it is at
        with deaf():
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-s", "-c", _BOOTSTRAP, str(Path(__file__).parent), str(script), refusals],
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
            case ("ready", about):
                self.about = about
            case ("broken", reason):
                raise RuntimeError(f"{package} must be importable by {sys.executable}; importing it raised {reason}")

    def ask(self, request: tuple[object, ...]) -> tuple[object, ...]:
        """The reply. Raises ValueError, with the helper's reason, for what the library or its options cannot do."""
        message = marshal.dumps(request)  # type: ignore[arg-type]  # texts, numbers, and options of them
        with self._lock:
            assert self._process.stdin is not None
            try:
                self._process.stdin.write(struct.pack("=Q", len(message)) + message)
                self._process.stdin.flush()
            except BrokenPipeError as error:
                self.is_alive = False
                raise RuntimeError(f"the process that runs {self._package} has died") from error
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
            raise RuntimeError(f"the process that runs {self._package} ended with exit code {self._process.wait()}")
        reply = marshal.loads(self._process.stdout.read(*struct.unpack("=Q", header)))
        assert isinstance(reply, tuple)
        return reply


_helpers: dict[tuple[int, Path], Helper] = {}
"""By process id, so that a forked process starts its own instead of talking over its parent's."""
_starting = threading.Lock()


def helper(script: Path, package: str) -> Helper:
    """This process's helper that runs ``script``."""
    with _starting:
        key = (os.getpid(), script)
        own = _helpers.get(key)
        if own is None or not own.is_alive:
            own = _helpers[key] = Helper(script, package)
            atexit.register(own.close)
        return own
