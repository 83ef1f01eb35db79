"""How is an examination run in a process of its own, and ended when the environment hangs or dies?"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import IO

from sdpo.environments.findings import Finding, error
from sdpo.environments.records import Began, Ended, Imported, Judged, Listed, Refused, Request, Ruling
from sdpo.envs.children import Lifeline, own_module

START_LIMIT_S = 120.0
POLLS_PER_S = 5.0


@dataclass(slots=True)
class Examination:
    """What came of it, as far as it came."""

    refusal: str | None = None
    """Why the environment could not be made."""
    findings: list[Finding] = field(default_factory=list)
    listed: dict[str, Listed] = field(default_factory=dict)
    """By split."""
    rulings: dict[tuple[str, str], Ruling] = field(default_factory=dict)
    seconds: tuple[float, ...] = ()
    heavy: tuple[str, ...] = ()

    def note(self, record: object) -> None:
        match record:
            case Finding():
                self.findings.append(record)
            case Refused(reason=reason):
                self.refusal = reason
            case Listed(split=split):
                self.listed[split] = record
            case Judged(rulings=rulings, seconds=seconds):
                self.rulings.update(rulings)
                self.seconds = seconds
            case Imported(libraries=libraries):
                self.heavy = libraries


def conduct(request: Request, *, hash_seed: int) -> Examination:
    """Examine in a new process, whose hashes of text are salted with ``hash_seed``; wait for its end, or end it.

    It ends with this process, too, and so does all of its group.
    """
    receiving, sending = Pipe(duplex=False)
    with receiving, sending, tempfile.TemporaryFile() as output, Lifeline() as line:
        process = subprocess.Popen(
            own_module("sdpo.environments.examination", str(sending.fileno())),
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=(sending.fileno(), *line.pass_fds),
            env={**os.environ, "PYTHONHASHSEED": str(hash_seed)},
            start_new_session=True,
        )
        line.tie(process)
        examination = Examination()
        try:
            sending.close()
            assert process.stdin is not None
            with suppress(BrokenPipeError), process.stdin as stdin:  # one that is dead already is noticed below
                stdin.write(pickle.dumps(request))
            for record in _records(receiving, process, output):
                examination.note(record)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # what the environment started goes with it
            process.wait()
    return examination


def _records(receiving: Connection, process: subprocess.Popen[bytes], output: IO[bytes]) -> Iterator[object]:
    """Everything that arrives, and a finding where it ends before its time."""
    began = Began(where="the start of the process", limit_s=START_LIMIT_S)
    until = time.monotonic() + began.limit_s
    while True:
        is_over = process.poll() is not None
        if not receiving.poll(0.0 if is_over else 1 / POLLS_PER_S):
            if is_over:
                yield _death(began, process.wait(), output)
                return
            if time.monotonic() > until:
                yield error(began.rule, began.where, f"did not end within {began.limit_s:.0f} s", began.remedy)
                return
            continue
        try:
            record: object = receiving.recv()
        except (EOFError, OSError):  # it closed its end, or died in the middle of a record
            yield _death(began, process.wait(), output)
            return
        if isinstance(record, Ended):
            return
        began = record if isinstance(record, Began) else began
        until = time.monotonic() + began.limit_s
        yield record


def _death(began: Began, exit_code: int, output: IO[bytes]) -> Finding:
    output.seek(0)
    lines = output.read().decode(errors="replace").strip().splitlines()
    how = f"signal {-exit_code}" if exit_code < 0 else f"exit code {exit_code}"
    last = f", and last said {lines[-1][:200]!r}" if lines else ""
    remedy = "Neither the constructor nor a verdict may end the process. The rest was not checked."
    return error("dies", began.where, f"ended the process with {how}{last}", remedy)
