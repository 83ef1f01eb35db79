"""Which attempts does a run hold, and where do they lie? In memory are places in files, never the texts.

``refresh`` reads what is new since the last time: the steps whose files have changed, and the new lines of the files that grow.
It stops after a while, so that somebody who looks at ten thousand attempts sees the first ones at once.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sdpo.report.reading import Run, parsed, placed
from sdpo.report.records import AttemptRecord, CreditRecord, Record

Signature = tuple[int, int, int]
"""Inode, size and time of change of a file."""
Place = tuple[int, int]
"""The byte at which a line begins in its file, and its length in bytes."""
GIST_CHARACTERS = 120
_GROUP, _ATTEMPT = (re.compile(rb'"%s":\s*(\d{1,9})\b' % key) for key in (b"task_index", b"attempt"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An attempt without its texts."""

    place: Place
    row: int
    task: str
    task_index: int
    attempt: int | None
    outcome: str
    """solved, failed or aside."""
    reward: float | None
    num_tokens: int | None
    hint: str | None
    gist: str
    """The first line of what the environment said, or else of the completion."""


@dataclass(slots=True)
class Step:
    """What is known of the two files of a step."""

    entries: tuple[Entry, ...] = ()
    credits: Mapping[tuple[int, int], int] = field(default_factory=dict)
    """Place of the record of each (task index, attempt) in the credit file: bytes, uncompressed."""
    revision: int = 0
    signatures: dict[Path, Signature] = field(default_factory=dict)
    is_cut: dict[Path, bool] = field(default_factory=dict)
    num_unreadable: int = 0
    has_places: bool = True
    """Whether the lines say which group they belong to; those of older versions do not."""

    def credit_of(self, entry: Entry) -> int | None:
        return None if entry.attempt is None else self.credits.get((entry.task_index, entry.attempt))


class Growing:
    """The lines of a file that is appended to."""

    def __init__(self, run: Run, file: Path) -> None:
        self._run, self.file = run, file
        self._signature: Signature | None = None
        self._end = 0
        self.records: list[Record] = []
        self.num_unreadable = 0
        self.is_cut = False
        self.revision = 0

    def refresh(self, revision: int) -> bool:
        """Whether there was something new."""
        found = signature(self.file)
        if found == self._signature:
            return False
        if found is None or self._signature is None or found[0] != self._signature[0] or found[1] < self._end:
            self.records, self._end, self.num_unreadable = [], 0, 0  # written anew, by a run that went back to a checkpoint
        reader = self._run.lines(self.file, self._end)
        for _, line in reader:
            record = parsed(line)
            if record is None:
                self.num_unreadable += 1
            else:
                self.records.append({key: value for key, value in record.items() if not isinstance(value, list)})
        self._signature, self._end, self.is_cut, self.revision = found, reader.end, reader.is_cut, revision
        return True


class RunIndex:
    """The attempts of a run. Not for two threads at once, but for ``attempt``, ``credit`` and ``search``."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.revision = 0
        self.steps: dict[int, Step] = {}
        self._config: tuple[Signature | None, Record] = (None, {})
        self.metrics = Growing(run, run.files.metrics)
        self.evaluations = Growing(run, run.files.evaluations)
        self.alarms = Growing(run, run.files.alarms)

    def refresh(self, seconds: float) -> bool:
        """Whether something is left to be read. At least one file is read, however short the time."""
        until = time.monotonic() + seconds
        for growing in (self.metrics, self.evaluations, self.alarms):
            self.revision += growing.refresh(self.revision + 1)
        rollouts, credits = self.run.rollout_files(), self.run.credit_files()
        for gone in self.steps.keys() - rollouts.keys():
            del self.steps[gone]
            self.revision += 1
        for files, read in ((rollouts, self._read_rollouts), (credits, self._read_credits)):
            for number, file in files.items():
                step = self.steps.get(number) if files is credits else self.steps.setdefault(number, Step())
                found = signature(file)
                if step is None or found is None or step.signatures.get(file) == found:
                    continue
                read(step, file)
                self.revision += 1
                step.signatures[file], step.revision = found, self.revision
                if time.monotonic() >= until:
                    return True
        return False

    def config(self) -> Record:
        """The run's, read again only when it was written again."""
        found = signature(self.run.files.config)
        if found != self._config[0]:
            self._config = (found, self.run.config())
        return self._config[1]

    def entry(self, step: int, row: int) -> Entry | None:
        known = self.steps.get(step)
        return known.entries[row] if known is not None and 0 <= row < len(known.entries) else None

    def attempt(self, step: int, row: int) -> AttemptRecord | None:
        """With its texts, read from its file; None where it is gone."""
        entry = self.entry(step, row)
        if entry is None:
            return None
        line = self._line(self.run.files.rollouts_of(step), entry.place[0])
        record = None if line is None or len(line) != entry.place[1] else parsed(line)
        if record is None:
            return None
        return AttemptRecord.of(record, row=row, task_index=entry.task_index, attempt=entry.attempt or 0)

    def credit(self, step: int, row: int) -> CreditRecord | None:
        """What was recorded of an attempt's tokens, if anything was."""
        entry = self.entry(step, row)
        start = None if entry is None else self.steps[step].credit_of(entry)
        line = None if start is None else self._line(self.run.files.credit_of(step), start)
        record = None if line is None else parsed(line)
        credit = None if record is None else CreditRecord.of(record)
        is_its_own = (
            credit is not None
            and entry is not None
            and (credit.task_index, credit.attempt)
            == (
                entry.task_index,
                entry.attempt,
            )
        )
        return credit if is_its_own else None

    def search(self, words: str) -> dict[int, list[int]]:
        """Rows by step of the attempts whose task, completion or feedback holds the words, capitals or not."""
        wanted = words.lower()
        sure = max(re.findall(r"[ !#-\[\]-~]+", wanted), key=len, default="").encode()
        found: dict[int, list[int]] = {}
        for number in list(self.steps):
            entries = self.steps[number].entries if number in self.steps else ()
            of_places = {entry.place[0]: entry for entry in entries}
            for place, line in self.run.lines(self.run.files.rollouts_of(number)):
                if place not in of_places or sure not in line.lower():
                    continue  # what JSON writes as it is must stand in the line as it is
                record = parsed(line)
                if record is not None and any(wanted in text.lower() for text in _texts(record)):
                    found.setdefault(number, []).append(of_places[place].row)
        return found

    def _line(self, file: Path, start: int) -> bytes | None:
        return next((line for _, line in self.run.lines(file, start)), None)

    def _read_rollouts(self, step: Step, file: Path) -> None:
        reader = self.run.lines(file)
        places, records = [], []
        step.num_unreadable = 0
        for place, line in reader:
            record = parsed(line)
            if record is None:
                step.num_unreadable += 1
            else:
                places.append((place, len(line)))
                records.append(record)
        step.has_places = all("task_index" in record for record in records)
        step.entries = tuple(_entry(place, attempt) for place, attempt in zip(places, placed(iter(records)), strict=True))
        step.is_cut[file] = reader.is_cut

    def _read_credits(self, step: Step, file: Path) -> None:
        """The two places stand at the head of a line, and nowhere else unescaped: a megabyte of tokens need not be parsed."""
        reader = self.run.lines(file)
        credits = {}
        for place, line in reader:
            group, attempt = _GROUP.search(line), _ATTEMPT.search(line)
            if group and attempt:
                credits[int(group[1]), int(attempt[1])] = place
        step.credits = credits
        step.is_cut[file] = reader.is_cut


def signature(file: Path) -> Signature | None:
    """None where there is no file."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _entry(place: Place, attempt: AttemptRecord) -> Entry:
    said = attempt.completion if attempt.is_solved else attempt.set_aside or attempt.feedback or attempt.completion
    return Entry(
        place=place,
        row=attempt.row,
        task=attempt.task,
        task_index=attempt.task_index,
        attempt=attempt.attempt,
        outcome="aside" if attempt.set_aside is not None else "solved" if attempt.is_solved else "failed",
        reward=attempt.reward,
        num_tokens=attempt.num_tokens,
        hint=attempt.hint,
        gist=next(_first_lines(said), "")[:GIST_CHARACTERS],
    )


def _first_lines(text: str) -> Iterator[str]:
    """Those that say something; of an answer that begins with a fence, what stands within it."""
    return (line.strip() for line in text[:4096].split("\n") if line.strip() and not line.startswith("```"))


def _texts(record: Record) -> Iterator[str]:
    turns = record.get("turns")
    spoken = [turn.get("content") for turn in turns if isinstance(turn, dict)] if isinstance(turns, list) else []
    named = (record.get(key) for key in ("task", "question", "completion", "feedback", "set_aside"))
    return (text for text in (*named, *spoken) if isinstance(text, str))
