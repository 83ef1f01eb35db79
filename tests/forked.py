"""``sdpo`` as a command in a process of its own, forked from one that has imported everything: a start in a tenth of a second.

It is what the console script runs, with its own arguments, environment, folder and streams; only its imports are done already.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from sdpo.forkserver.owner import FOLDER
from sdpo.forkserver.server import FIXED, address
from tests.session import COMMAND


class Forked:
    """A running command, with as much of ``subprocess.Popen`` as tests use. Output and errors come together, as text."""

    def __init__(self, words: Sequence[str], environment: Mapping[str, str]) -> None:
        self.returncode: int | None = None
        readable, output = os.pipe()
        self.stdout = os.fdopen(readable, errors="replace")
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(str(address(Path(os.environ[FOLDER]), COMMAND)))
        # What libraries have put there while the tests' process imported them (vLLM names its OpenMP) is not the command's.
        fixed = {name: value for name, value in FIXED.items() if value is not None}
        own = {name: value for name, value in environment.items() if name not in FIXED}
        request = {"argv": ["sdpo.cli:main", *words], "env": {**own, **fixed}, "cwd": os.getcwd()}
        nothing = os.open(os.devnull, os.O_RDONLY)
        socket.send_fds(self._connection, [f"{json.dumps(request)}\n".encode()], [nothing, output, output])
        for descriptor in (nothing, output):
            os.close(descriptor)
        self._answers = self._connection.makefile()
        line = self._answers.readline()
        assert line, f"the server that forks commands ended: {(Path(os.environ[FOLDER]) / 'log').read_text()[-3000:]}"
        self.pid = int(line)

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self._connection], [], [], 0.0)[0]:
            self.returncode = int(self._answers.readline() or 1)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._connection], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("sdpo", timeout or 0.0)
            self.poll()
        assert self.returncode is not None
        return self.returncode

    def communicate(self, timeout: float = 600.0) -> tuple[str, None]:
        """All it said, once it has ended."""
        reader = threading.Thread(target=lambda: said.append(self.stdout.read()), daemon=True)
        said: list[str] = []
        until = time.monotonic() + timeout
        reader.start()
        reader.join(timeout)
        if reader.is_alive():
            raise subprocess.TimeoutExpired("sdpo", timeout)
        self.wait(max(0.0, until - time.monotonic()))
        return said[0], None

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)
