"""What of a run does a report show, and what is missing in its folder?

Everything is taken as it lies there. A run may be under way, cut off in the middle of a line, of an older version, or without
evaluations, rollouts or credit. What cannot be read is counted and said, and the rest is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from sdpo.report.reading import Run, parsed, placed
from sdpo.report.records import Alarm, AttemptRecord, CreditRecord, EvaluationRecord, Record, StepRecord
from sdpo.types import Metrics

MAX_NUMBER = 1e300
"""A larger one is no measure, and no axis has room for it."""
_Read = TypeVar("_Read")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """A run, as its folder tells it."""

    path: Path
    name: str
    config: Mapping[str, object]
    """Flat: ``learner.lr`` to its value; empty where it cannot be read."""
    steps: tuple[Metrics, ...]
    """One a step, ``step`` among the numbers, in order."""
    evaluations: tuple[Metrics, ...]
    """One an evaluation, ``step`` among the numbers, in order."""
    alarms: tuple[Alarm, ...]
    attempts: tuple[AttemptRecord, ...]
    """Attempts of the last step that recorded any."""
    credited: CreditRecord | None
    """The attempt of whose tokens hindsight says most, in the last step that recorded any credit."""
    missing: tuple[str, ...]
    """Sentences without their full stop."""


def run_record(path: Path) -> RunRecord:
    """Raises UserError where no run has been."""
    run, missing = Run(path), _Missing()
    steps = _by_step([(line.step, line.values) for line in _read(run, run.files.metrics, StepRecord.of, missing)])
    evaluations = _by_step([(line.step, line.values) for line in _read(run, run.files.evaluations, EvaluationRecord.of, missing)])
    config = flat(run.config())
    missing.where(not config, "config.yaml cannot be read")
    missing.where(not steps, "no finished step in metrics.jsonl")
    if steps and len(steps) != steps[-1]["step"]:
        missing.where(True, f"metrics.jsonl has {len(steps)} of {steps[-1]['step']:.0f} steps, and totals count from those")
    missing.where(not evaluations, "no evaluation")
    missing.where(
        bool(evaluations) and evaluations[-1]["step"] == 0.0, "no evaluation after a step, so no change of held-out success"
    )
    missing.where(not any(run.files.checkpoints.glob("step_*")), "no checkpoint")
    attempts = _last(run, run.rollout_files(), lambda records: list(placed(records)), missing)
    missing.where(not attempts, "no rollouts, so no attempts to show")
    credited = _last(run, run.credit_files(), _strongest, missing)
    return RunRecord(
        path=run.path,
        name=run.name,
        config=config,
        steps=steps,
        evaluations=evaluations,
        alarms=tuple(_read(run, run.files.alarms, Alarm.of, missing)),
        attempts=tuple(attempts),
        credited=credited[0] if credited else None,
        missing=tuple(missing.said),
    )


def flat(nested: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """``{"learner": {"lr": 1}}`` as ``{"learner.lr": 1}``."""
    found: dict[str, object] = {}
    for key, value in nested.items():
        found.update(flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) and value else {f"{prefix}{key}": value})
    return found


def hindsight_credit(record: CreditRecord) -> tuple[float | None, ...]:
    """Hindsight credit of each token: teacher less student, nats; None where the token is not the policy's own."""
    pairs = zip(record.student, record.teacher, strict=True)
    return tuple(None if student is None or teacher is None else teacher - student for student, teacher in pairs)


def strength(record: CreditRecord) -> float:
    """Mean size of the credit of a token, nats."""
    known = [abs(credit) for credit in hindsight_credit(record) if credit is not None]
    return sum(known) / len(known) if known else 0.0


def _strongest(records: Iterator[Record]) -> list[CreditRecord]:
    """The one of whose tokens hindsight says most; none where there is none. One is held at a time: each may be a megabyte."""
    strongest = max(filter(None, map(CreditRecord.of, records)), key=strength, default=None)
    return [] if strongest is None else [strongest]


class _Missing:
    """What is to be said, once each."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def where(self, is_missing: bool, sentence: str) -> None:
        if is_missing and sentence not in self.said:
            self.said.append(sentence)


def _read(run: Run, file: Path, of: Callable[[Record], _Read], missing: _Missing) -> list[_Read]:
    """A file's lines; none where there is no file."""
    return [of(record) for record in _records(run, file, missing)]


def _records(run: Run, file: Path, missing: _Missing) -> Iterator[Record]:
    lines, num_bad = run.lines(file), 0
    for _, line in lines:
        record = parsed(line)
        if record is not None:
            yield record
        else:
            num_bad += 1
    missing.where(lines.is_too_large, f"{file.name} holds more than is read, or a line that no run writes")
    missing.where(lines.is_cut and not lines.is_too_large, f"{file.name} is cut off in the middle of a line")
    missing.where(num_bad > 0, f"{num_bad} line{'s' * (num_bad > 1)} of {file.name} cannot be read")


def _last(run: Run, files: Mapping[int, Path], of: Callable[[Iterator[Record]], list[_Read]], missing: _Missing) -> list[_Read]:
    """What the newest file holds that holds anything."""
    for step in sorted(files, reverse=True):
        found = of(_records(run, files[step], missing))
        if found:
            return found
    return []


def _by_step(lines: Sequence[tuple[int, Metrics]]) -> tuple[Metrics, ...]:
    """In order; of two lines of a step, the later one."""
    latest = {step: {name: value for name, value in values.items() if abs(value) < MAX_NUMBER} for step, values in lines}
    return tuple({"step": float(step), **latest[step]} for step in sorted(latest))
