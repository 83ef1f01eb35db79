"""What does a run folder hold? Its files as typed records, as far as they can be read.

A run that goes on, or was killed, leaves a file cut off in the middle of a line. A run of an older version has no ``credit/`` and
no places in its rollouts. Whatever can be read is given; what is missing is for the caller to say. Links that lead out of the
folder are not followed. A completion may hold anything, lone surrogates and control characters included, and is passed on as it
is. Whoever shows it must make it harmless.
"""

from __future__ import annotations

import gzip
import json
import math
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from stat import S_ISREG
from typing import BinaryIO, cast

import yaml

from sdpo.errors import UserError
from sdpo.report.records import Alarm, AttemptRecord, CreditRecord, EvaluationRecord, Record, StepRecord
from sdpo.run.folder import RunFolder

_STEP_FILE = re.compile(r"step_(\d{1,9})\.jsonl(?:\.gz)?")


class Run:
    """A run folder, for reading."""

    def __init__(self, path: Path) -> None:
        """Raises UserError where there is no run."""
        self.path = path.resolve()
        self.files = RunFolder(self.path)
        if not self.files.metrics.is_file() and not self.files.rollouts.is_dir():
            raise UserError(
                f"a run folder holds metrics.jsonl or rollouts/; {path} "
                f"{'holds neither' if path.is_dir() else 'is no folder'}. Name one that sdpo train has written: runs/NAME."
            )

    @property
    def name(self) -> str:
        return self.path.name

    def config(self) -> Record:
        """As the run wrote it; empty where it cannot be read."""
        try:
            loaded = yaml.safe_load(self._inside(self.files.config).read_bytes())
        except (OSError, yaml.YAMLError, ValueError, RecursionError):
            return {}
        return loaded if isinstance(loaded, dict) else {}

    def metrics(self) -> tuple[StepRecord, ...]:
        """One record a step, in order."""
        return tuple(map(StepRecord.of, self._records(self.files.metrics)))

    def evaluations(self) -> tuple[EvaluationRecord, ...]:
        """One record an evaluation, in order, with its attempts."""
        return tuple(map(EvaluationRecord.of, self._records(self.files.evaluations)))

    def alarms(self) -> tuple[Alarm, ...]:
        """In order."""
        return tuple(map(Alarm.of, self._records(self.files.alarms)))

    def attempts(self, step: int) -> tuple[AttemptRecord, ...]:
        """Those of a step, set-aside ones included, groups in order."""
        return tuple(placed(self._records(self.files.rollouts_of(step))))

    def credits(self, step: int) -> Iterator[CreditRecord]:
        """What was recorded of a step's tokens, one by one, since each may be a megabyte."""
        return filter(None, map(CreditRecord.of, self._records(self.files.credit_of(step))))

    def rollout_files(self) -> dict[int, Path]:
        """By step, in order."""
        return self._step_files(self.files.rollouts)

    def credit_files(self) -> dict[int, Path]:
        """By step, in order."""
        return self._step_files(self.files.credit)

    def lines(self, file: Path, start: int = 0) -> LineReader:
        """The whole lines of one of the run's files, from a place between two lines. None where there is no such file."""
        return LineReader(self._inside(file), start)

    def leads_out(self, file: Path) -> bool:
        """Whether it is a link to a place outside of the run folder."""
        return file.exists() and self._inside(file) != file.resolve()

    def _records(self, file: Path) -> Iterator[Record]:
        return filter(None, (parsed(line) for _, line in self.lines(file)))

    def _step_files(self, folder: Path) -> dict[int, Path]:
        try:
            names = sorted(file.name for file in self._inside(folder).iterdir())
        except OSError:
            return {}
        found = {int(match[1]): folder / name for name in names if (match := _STEP_FILE.fullmatch(name))}
        return dict(sorted(found.items()))

    def _inside(self, file: Path) -> Path:
        """The file itself, or one that is not there: no link may lead a reader out of the run."""
        try:
            real = file.resolve()
        except (OSError, RuntimeError):  # a circle of links
            return self.path / ".nothing"
        return real if real.is_relative_to(self.path) else self.path / ".nothing"


class LineReader:
    """The lines of a file that are whole. Gone through once; ``end`` and ``is_cut`` are known afterwards."""

    def __init__(self, file: Path, start: int = 0) -> None:
        self._file = file
        self.end = start
        """End of the last whole line: bytes, of the uncompressed file."""
        self.is_cut = False
        """Something follows that is no whole line."""

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        """Each line with its place."""
        try:
            if not S_ISREG(self._file.stat().st_mode):
                return
            with self._opened() as stream:
                stream.seek(self.end)
                for line in stream:
                    if not line.endswith(b"\n"):
                        self.is_cut = True
                        return
                    place, self.end = self.end, self.end + len(line)
                    yield place, line
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return
        except (EOFError, gzip.BadGzipFile, zlib.error):
            self.is_cut = True

    def _opened(self) -> BinaryIO:
        return cast(BinaryIO, gzip.open(self._file)) if self._file.suffix == ".gz" else self._file.open("rb")


def parsed(line: bytes) -> Record | None:
    """None for what is no JSON object. NaN and infinities become None."""
    try:
        record = json.loads(line, parse_constant=lambda _: None, parse_float=_finite)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def placed(records: Iterator[Record]) -> Iterator[AttemptRecord]:
    """The attempts of a step. Where an older version left their places out, a group begins where the task changes."""
    task, task_index, attempt = None, -1, 0
    for row, record in enumerate(records):
        if record.get("task") != task:
            task, task_index, attempt = record.get("task"), task_index + 1, 0
        yield AttemptRecord.of(record, row=row, task_index=task_index, attempt=attempt)
        attempt += "set_aside" not in record


def _finite(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None
