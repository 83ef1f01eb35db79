"""One process a core: the same command, started several times, each on cores of its own, and ended with this one."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.status import Status

from sdpo.envs.children import Lifeline, own_module
from sdpo.errors import MachineError
from sdpo.run.logs import tail
from sdpo.terminal.heartbeat import Clock, Heartbeat
from sdpo.terminal.view import duration

POLL_S = 1.0
_OWN = ("num_workers=", "name=", "quiet=")
"""What a worker is told in other words."""


def run_workers(
    command: str, words: Sequence[str], name: str, num_workers: int, logs: Path, screen: Console, how_far: Callable[[], str]
) -> None:
    """``sdpo COMMAND WORDS name=NAME num_workers=1``, so many times; ``how_far``, a sentence, is shown whenever it changes.
    Raises MachineError with what the first that failed said last; what the others finished stays."""
    logs.mkdir(parents=True, exist_ok=True)
    cores = sorted(os.sched_getaffinity(0))
    shares = [set(cores[index::num_workers]) or {cores[index % len(cores)]} for index in range(num_workers)]
    files = [logs / f"worker-{index}.log" for index in range(num_workers)]
    alike = [*(word for word in words if not word.startswith(_OWN)), f"name={name}", "num_workers=1", "quiet=true"]
    said = _Said(screen)
    with said.status, ExitStack() as lines:
        running = [
            _start(command, alike, mine, file, lines.enter_context(Lifeline())) for mine, file in zip(shares, files, strict=True)
        ]
        try:
            while any(process.poll() is None for process in running):
                said.say(how_far())
                time.sleep(POLL_S)
        finally:
            for process in running:
                if process.poll() is None:
                    process.terminate()
            for process in running:
                process.wait()
    for process, file in zip(running, files, strict=True):
        if process.returncode not in (0, 3):
            raise MachineError(
                f"a worker must end with exit code 0 or 3; one had {process.returncode}. The end of {file}:\n{tail(file)}\n"
                "The same command continues."
            )


def _start(command: str, words: Sequence[str], cores: set[int], log: Path, line: Lifeline) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        process = subprocess.Popen(
            own_module("sdpo.cli", command, *words),
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # it is asked to end by this process, once
            env={**os.environ, "OMP_NUM_THREADS": str(len(cores))},
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
            pass_fds=line.pass_fds,
        )
    line.tie(process, signal.SIGTERM)
    return process


class _Said:
    """A line on the screen that follows its sentence where there is a terminal.

    Without one there is a new line for each sentence, and for one that has stood for a while.
    """

    def __init__(self, screen: Console, clock: Clock = time.monotonic) -> None:
        self._screen, self._clock, self._began, self._last = screen, clock, clock(), ""
        self._heartbeat = Heartbeat(self._still, self._print, clock)
        self.status = Status("", console=screen)

    def say(self, sentence: str) -> None:
        """To be called all the time."""
        if self._screen.is_terminal:
            with suppress(BrokenPipeError):
                self.status.update(escape(sentence))
        elif sentence == self._last:
            self._heartbeat.beat()
        else:
            self._last = sentence
            self._print(sentence)

    def _still(self) -> str:
        return f"{self._last} (running for {duration(self._clock() - self._began)})"

    def _print(self, line: str) -> None:
        self._heartbeat.spoke()
        with suppress(BrokenPipeError):  # whoever was reading has gone; the searches have not
            self._screen.print(line, highlight=False, markup=False, soft_wrap=True)
