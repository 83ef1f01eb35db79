"""What is a line of a run's files, once it is read? A key that is missing, or holds something else, is None or empty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

Record = Mapping[str, Any]
"""A line as JSON has it: any key may be missing, and hold anything."""
Top = tuple[tuple[int, float], ...]
"""[top] token id and log-probability in nats, most probable first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """A line of ``metrics.jsonl``."""

    step: int
    values: Mapping[str, float]
    """Keys of ``sdpo.metrics``; any may be missing."""

    @staticmethod
    def of(record: Record) -> StepRecord:
        return StepRecord(step=_whole(record, "step") or 0, values=_values(record))


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRecord:
    """A line of ``rollouts/``, or one of an evaluation's attempts."""

    step: int
    row: int
    """Position in the file: what names an attempt, set aside or not."""
    task: str
    task_index: int
    """Position of the task's group in the step."""
    attempt: int | None
    """Position in the group, set-aside ones not counted; None for those."""
    question: str
    completion: str
    set_aside: str | None
    """Why there is no verdict."""
    reward: float | None
    feedback: str | None
    finish: str | None
    num_tokens: int | None
    hint: str | None
    """demonstration, feedback, both, or the names of what was shown."""
    demonstration: str | None
    shown: Mapping[str, str]
    """What other sources of hints showed, by their names."""
    is_remembered: bool
    weights_version: int | None
    turns: tuple[tuple[str, str], ...]
    """Role and content, where there was more than one."""

    @property
    def is_solved(self) -> bool:
        """As ``sdpo.types.Verdict`` has it."""
        return self.reward is not None and self.reward >= 1.0

    @staticmethod
    def of(record: Record, *, row: int, task_index: int, attempt: int) -> AttemptRecord:
        """The places are those to take where the line does not say."""
        is_judged = "set_aside" not in record
        said = _whole(record, "attempt")
        turns = record.get("turns")
        return AttemptRecord(
            step=_whole(record, "step") or 0,
            row=row,
            task=_text(record, "task") or "",
            task_index=task_index if (group := _whole(record, "task_index")) is None else group,
            attempt=None if not is_judged else attempt if said is None else said,
            question=_text(record, "question") or "",
            completion=_text(record, "completion") or "",
            set_aside=None if is_judged else str(record["set_aside"]),
            reward=_number(record, "reward") if is_judged else None,
            feedback=_text(record, "feedback"),
            finish=_text(record, "finish"),
            num_tokens=_whole(record, "num_tokens"),
            hint=_text(record, "hint"),
            demonstration=_text(record, "demonstration"),
            shown={str(name): str(text) for name, text in shown.items()}
            if isinstance(shown := record.get("shown"), dict)
            else {},
            is_remembered=record.get("is_remembered") is True,
            weights_version=_whole(record, "weights_version"),
            turns=tuple(
                (_text(turn, "role") or "", _text(turn, "content") or "")
                for turn in (turns if isinstance(turns, list) else ())
                if isinstance(turn, dict)
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationRecord:
    """A line of ``evaluations.jsonl``."""

    step: int
    num_attempts: int | None
    """k, attempts a task."""
    values: Mapping[str, float]
    attempts: tuple[AttemptRecord, ...]

    @staticmethod
    def of(record: Record) -> EvaluationRecord:
        listed = record.get("attempts")
        lines = [line for line in listed if isinstance(line, dict)] if isinstance(listed, list) else []
        return EvaluationRecord(
            step=_whole(record, "step") or 0,
            num_attempts=_whole(record, "k"),
            values=_values(record),
            attempts=tuple(AttemptRecord.of(line, row=row, task_index=0, attempt=0) for row, line in enumerate(lines)),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """A line of ``alarms.jsonl``."""

    step: int
    guard: str
    sentence: str

    @staticmethod
    def of(record: Record) -> Alarm:
        return Alarm(
            step=_whole(record, "step") or 0, guard=_text(record, "guard") or "", sentence=_text(record, "sentence") or ""
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CreditRecord:
    """A line of ``credit/``: an attempt of R tokens. Log-probabilities and divergence in nats; None where the token is not the
    policy's own."""

    step: int
    task_index: int
    attempt: int
    task: str
    update: int | None
    prompt: str
    hindsight_prompt: str
    marks: Mapping[str, tuple[int, int]]
    """demonstration, feedback: characters [first, last) of the hindsight prompt."""
    tokens: tuple[str, ...]
    student: tuple[float | None, ...]
    teacher: tuple[float | None, ...]
    divergence: tuple[float | None, ...]
    student_top: tuple[Top | None, ...]
    teacher_top: tuple[Top | None, ...]
    pieces: Mapping[str, str]
    """Text of each token id in the tops."""

    def hindsight_parts(self) -> tuple[tuple[str | None, str], ...]:
        """The hindsight prompt cut at its marks: demonstration, feedback or None, and the text."""
        parts: list[tuple[str | None, str]] = []
        at = 0
        for kind, (first, last) in sorted(self.marks.items(), key=lambda mark: mark[1]):
            if at <= first < last <= len(self.hindsight_prompt):
                parts += [(None, self.hindsight_prompt[at:first]), (kind, self.hindsight_prompt[first:last])]
                at = last
        return tuple(part for part in (*parts, (None, self.hindsight_prompt[at:])) if part[1])

    @staticmethod
    def of(record: Record) -> CreditRecord | None:
        """None for a line without its place or its tokens, or whose columns do not agree in length."""
        task_index, attempt, tokens = _whole(record, "task_index"), _whole(record, "attempt"), record.get("tokens")
        if task_index is None or attempt is None or not isinstance(tokens, list):
            return None
        columns = {name: _column(record, name) for name in ("student", "teacher", "divergence", "student_top", "teacher_top")}
        if any(len(column) != len(tokens) for column in columns.values()):
            return None
        marks, pieces = record.get("marks"), record.get("pieces")
        return CreditRecord(
            step=_whole(record, "step") or 0,
            task_index=task_index,
            attempt=attempt,
            task=_text(record, "task") or "",
            update=_whole(record, "update"),
            prompt=_text(record, "prompt") or "",
            hindsight_prompt=_text(record, "hindsight_prompt") or "",
            marks={
                str(kind): (place[0], place[1])
                for kind, place in (marks if isinstance(marks, dict) else {}).items()
                if isinstance(place, list) and len(place) == 2 and all(_is_whole(end) for end in place)
            },
            tokens=tuple(map(str, tokens)),
            student=_floats(columns["student"]),
            teacher=_floats(columns["teacher"]),
            divergence=_floats(columns["divergence"]),
            student_top=_tops(columns["student_top"]),
            teacher_top=_tops(columns["teacher_top"]),
            pieces={str(token_id): str(text) for token_id, text in (pieces if isinstance(pieces, dict) else {}).items()},
        )


def _text(record: Record, key: str) -> str | None:
    found = record.get(key)
    return found if isinstance(found, str) else None


def _number(record: Record, key: str) -> float | None:
    found = record.get(key)
    return float(found) if _is_number(found) else None


def _whole(record: Record, key: str) -> int | None:
    found = record.get(key)
    return found if _is_whole(found) else None


def _values(record: Record) -> dict[str, float]:
    return {key: float(found) for key, found in record.items() if key not in ("step", "k") and _is_number(found)}


def _column(record: Record, key: str) -> list[Any]:
    found = record.get(key)
    return found if isinstance(found, list) else []


def _floats(column: Sequence[Any]) -> tuple[float | None, ...]:
    return tuple(float(found) if _is_number(found) else None for found in column)


def _tops(column: Sequence[Any]) -> tuple[Top | None, ...]:
    return tuple(_top(found) if isinstance(found, list) else None for found in column)


def _top(pairs: Sequence[Any]) -> Top:
    return tuple(
        (pair[0], float(pair[1]))
        for pair in pairs
        if isinstance(pair, list) and len(pair) == 2 and _is_whole(pair[0]) and _is_number(pair[1])
    )


def _is_whole(found: object) -> TypeGuard[int]:
    """At most what JavaScript counts exactly, so that no line can ask for a giant."""
    return isinstance(found, int) and not isinstance(found, bool) and abs(found) < 2**53


def _is_number(found: object) -> TypeGuard[float]:
    return isinstance(found, float) or _is_whole(found)
