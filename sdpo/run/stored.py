"""What has a run written of itself, read so that nothing in it can raise, hang or be taken for something else?

A run continues only with records that it can read: guards are folded over all of them. So what is damaged is named, and nothing
is dropped but what will be recorded again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sdpo.errors import UserError

_MAX_CONFIG_BYTES = 2**22
_NUMBERS: Mapping[str, tuple[str, ...]] = {
    "metrics.jsonl": ("success",),
    "evaluations.jsonl": ("k", "heldout/success", "heldout/success_se", "time/evaluate_s"),
}
"""By file: numbers that guards and screen read of each line."""
_TEXTS: Mapping[str, tuple[str, ...]] = {"alarms.jsonl": ("guard", "sentence")}
"""Likewise texts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line of a run's records."""

    number: int
    """In its file, from 1."""
    text: bytes
    """With its end."""
    record: dict[str, Any] | None
    """None where it is no record: damaged, or cut off by a kill."""

    @property
    def step(self) -> int | None:
        """The step it is of; None where it cannot be read."""
        return None if self.record is None else self.record["step"]


def lines(file: Path) -> list[Line]:
    """The file's lines; none where there is no file."""
    texts = file.read_bytes().splitlines(keepends=True) if file.is_file() else []
    return [Line(number=number, text=text, record=_record(text)) for number, text in enumerate(texts, start=1)]


def up_to(file: Path, step: int) -> list[Line]:
    """The lines of the first ``step`` steps. Raises UserError where one that may be of them cannot be read.

    An unreadable line is of a later step where it ends the file, as a kill leaves it, or follows a line of the last step.
    """
    if os.path.lexists(file) and not file.is_file():
        raise UserError(f"a run's records are files; {file} is none. Nothing was changed. Move it away, or choose another name=.")
    found, last = [], -1
    everything = lines(file) if step > 0 else []  # before the first step, nothing counts
    for line in everything:
        is_cut_off = line.number == len(everything) and not line.text.endswith(b"\n")
        if not (_is_whole(line, file.name) or is_cut_off) and last < step:
            raise UserError(
                f"a run continues from records that can be read; line {line.number} of {file} is no record of a step. Nothing "
                "was changed. Put the file back as it was, or take the line out to continue without it."
            )
        if line.step is not None:
            last = max(last, line.step)
            if line.step <= step:
                found.append(line)
    return found


def config(file: Path) -> dict[str, object]:
    """The config that a run has written. Raises UserError for anything else."""
    try:
        if not file.is_file() or file.stat().st_size > _MAX_CONFIG_BYTES:
            raise ValueError("it is no file of text" if not file.is_file() else f"it has {file.stat().st_size:,} bytes")
        text = file.read_text(encoding="utf-8")
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=yaml.SafeLoader)):
            raise ValueError("it refers to parts of itself")
        loaded = yaml.safe_load(text)
        if not isinstance(loaded, dict) or not all(isinstance(key, str) for key in loaded):
            raise ValueError("it is empty" if loaded is None else "it has no keys with values")
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"a run's folder must hold the config it was started with; {file} cannot be read ({reason}). Nothing was changed. "
            "Put it back as it was, or choose another name=."
        ) from error
    return loaded


def _is_whole(line: Line, name: str) -> bool:
    """Whether the line of a file of this name has what is read of it."""
    if line.record is None:
        return False
    numbers = [line.record.get(key) for key in _NUMBERS.get(name, ())]
    texts = [line.record.get(key) for key in _TEXTS.get(name, ())]
    attempts = line.record.get("attempts") if name == "evaluations.jsonl" else []  # a count elsewhere
    return (
        all(isinstance(value, int | float) and not isinstance(value, bool) for value in numbers)
        and all(isinstance(value, str) for value in texts)
        and isinstance(attempts, list)
        and all(isinstance(attempt, dict) for attempt in attempts)
    )


def _record(text: bytes) -> dict[str, Any] | None:
    if not text.endswith(b"\n"):
        return None
    try:
        record = json.loads(text.decode())
        if not isinstance(record, dict) or type(record.get("step")) is not int or record["step"] < 0:
            return None
        for value in record.values():
            if isinstance(value, int):
                float(value)  # OverflowError for what is no number of any run
    except (ValueError, RecursionError, OverflowError):
        return None
    return record
