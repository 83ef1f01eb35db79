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
import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from stat import S_ISREG
from typing import BinaryIO, cast

import yaml

from sdpo.errors import UserError, without_credentials
from sdpo.report.records import Alarm, AttemptRecord, CreditRecord, EvaluationRecord, Record, StepRecord
from sdpo.run.folder import RunFolder

_LONGEST_CONFIG = 2**17
"""Bytes. What a run writes is a twentieth of it."""
_LONGEST_LINE = 2**26
"""Bytes. An evaluation is one line with all of its attempts, which may be tens of megabytes."""
_MOST_LINES = 100_000
"""Lines of a file that are read at a time."""
_MOST_UNPACKED = 2**29
"""Bytes of a compressed file: two megabytes may be packed into two gigabytes, or a thousand times as many."""
_LARGEST = 2**63
"""No number that a run writes is larger. Giants take long to be written out, and cannot be beyond 4,300 digits."""
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
        """As the run wrote it, without passwords in addresses; empty where it cannot be read."""
        text = _whole_file(self._inside(self.files.config), _LONGEST_CONFIG)
        return {} if text is None else plain_yaml(text)

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
    """The lines of a file that are whole. Gone through once; ``end``, ``is_cut`` and ``is_too_large`` are known afterwards.

    The file may be made to hang or to fill whoever reads it. So a line, the lines and what is unpacked each have a limit.
    """

    def __init__(self, file: Path, start: int = 0) -> None:
        self._file = file
        self.end = start
        """End of the last whole line: bytes, of the uncompressed file."""
        self.is_cut = False
        """Something follows that is no whole line, or more than is read."""
        self.is_too_large = False
        """What follows is more than is read."""

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        """Each line with its place."""
        try:
            raw = _opened(self._file)
            if raw is None:
                return
            is_packed = self._file.suffix == ".gz"
            with raw, cast(BinaryIO, gzip.open(raw)) if is_packed else raw as stream:
                if is_packed and self.end > _MOST_UNPACKED:
                    return
                stream.seek(self.end)
                for _ in range(_MOST_LINES):
                    line = stream.readline(_LONGEST_LINE + 1)
                    if not line:
                        return
                    self.is_too_large = len(line) > _LONGEST_LINE or (is_packed and self.end + len(line) > _MOST_UNPACKED)
                    if self.is_too_large or not line.endswith(b"\n"):
                        self.is_cut = True
                        return
                    place, self.end = self.end, self.end + len(line)
                    yield place, line
                self.is_too_large = self.is_cut = bool(stream.read(1))
        except (EOFError, gzip.BadGzipFile, zlib.error):
            self.is_cut = True
        except OSError:  # none, or none that may be read
            return


def _opened(file: Path) -> BinaryIO | None:
    """A file for reading; None for what is none: to open a pipe would wait for somebody who writes into it."""
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if S_ISREG(os.fstat(descriptor).st_mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    return None


def _whole_file(file: Path, most: int) -> bytes | None:
    """None where it cannot be read, is no file, or is larger than ``most`` bytes."""
    try:
        stream = _opened(file)
        if stream is None:
            return None
        with stream:
            text = stream.read(most + 1)
    except OSError:
        return None
    return text if len(text) <= most else None


class _PlainLoader(yaml.SafeLoader):
    """YAML as a run writes it. An alias can make a few lines into gigabytes, or a thing that holds itself; tags make objects."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "tag", None) not in (None, "!"):
            raise yaml.YAMLError("a run's config has neither aliases nor tags")
        return super().compose_node(parent, index)


def plain_yaml(text: bytes) -> Record:
    """A mapping of plain values with texts for keys; empty where it cannot be read, or is none. Raises nothing."""
    try:
        loaded = yaml.load(text, _PlainLoader)
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError):
        return {}
    found = _plain(loaded)
    return found if isinstance(found, dict) else {}


def _plain(value: object) -> object:
    """What JSON has; dates and giants as words."""
    match value:
        case dict():
            return {_word(key): _plain(one) for key, one in value.items()}
        case list():
            return [_plain(one) for one in value]
        case str():
            return without_credentials(value)
        case bool() | float() | None:
            return value
        case int() if abs(value) < _LARGEST:
            return value
        case _:
            return _word(value)


def _word(value: object) -> str:
    return "a number that is too large" if isinstance(value, int) and abs(value) >= _LARGEST else str(value)


def parsed(line: bytes) -> Record | None:
    """None for what is no JSON object. NaN, infinities and giants become None."""
    try:
        record = json.loads(line, parse_constant=lambda _: None, parse_float=_finite, parse_int=_number)
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


def _number(text: str) -> int | None:
    return int(text) if len(text) < 20 else None
