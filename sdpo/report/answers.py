"""What does the page get to know of a run? Plain values for JSON, from an index."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from math import isfinite
from pathlib import Path

from sdpo.report.index import Growing, RunIndex, Step, signature
from sdpo.report.records import Alarm, CreditRecord, Record, StepRecord

CURVES = (
    "success", "reward", "hindsight", "divergence", "credit", "credit/solved", "credit/failed", "response_tokens", "entropy",
    "loss", "time/step_s", "heldout/success", "heldout/success_se", "heldout/pass_at_k", "lift", "lift/se",
)  # fmt: skip
"""The numbers that the page draws."""


_CREDIT = ("update", "prompt", "tokens", "student", "teacher", "divergence", "student_top", "teacher_top", "pieces")


def as_json(value: object) -> bytes:
    """ASCII, so that half a character of a completion passes as an escape; and nothing that JavaScript could not read."""
    return json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"), default=str).encode("ascii")


def changes(index: RunIndex, since: int, *, has_more: bool) -> dict[str, object]:
    """What is new after the revision ``since``; 0 for everything."""
    config = index.config()
    return {
        "name": index.run.name,
        "path": str(index.run.path),
        "revision": index.revision,
        "has_more": has_more,
        "steps": sorted(index.steps),
        "changed": [_step(number, step) for number, step in sorted(index.steps.items()) if step.revision > since],
        "metrics": _curves(index.metrics, since),
        "evaluations": _curves(index.evaluations, since),
        "alarms": [asdict(Alarm.of(record)) for record in index.alarms.records],
        "num_steps": config.get("num_steps") if isinstance(config.get("num_steps"), int) else None,
        "config": _finite(config) if since == 0 else None,
        "written": _written(index),
        "missing": [] if has_more else list(missing(index, config)),
    }


def _finite(value: object) -> object:
    """The same with its numbers that JSON does not know (a clip of infinity) as text."""
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return str(value) if isinstance(value, float) and not isfinite(value) else value


def attempt(index: RunIndex, step: int, row: int) -> dict[str, object] | None:
    """Everything about one attempt; None where it is gone."""
    record = index.attempt(step, row)
    if record is None:
        return None
    credit = index.credit(step, row)
    return {**asdict(record), "is_solved": record.is_solved, "credit": None if credit is None else _credit(credit)}


def missing(index: RunIndex, config: Record) -> Iterator[str]:
    """What the folder does not hold, or not whole: sentences."""
    files = index.run.files
    for file, loss in (
        (files.config, "nothing is known of its settings"),
        (files.metrics, "there are no curves of the steps"),
        (files.evaluations, "there is no held-out curve"),
        (files.rollouts, "there are no attempts"),
        (files.checkpoints, "whatever it learned, its weights are not here"),
    ):
        if index.run.leads_out(file):
            yield f"{file.name} is a link out of the run folder, which is not followed: {loss}."
        elif not file.exists() or (file.is_dir() and not any(file.iterdir())):
            yield f"There is no {file.name}, or nothing in it: {loss}."
    steps = index.steps
    if steps and not any(step.credits for step in steps.values()):
        yield (
            "There are no credit records (credit/), so tokens cannot be coloured: the run is of an older version, learned without"
            " hindsight, or had tracking.credit_share=0."
        )
    if any(not step.has_places for step in steps.values()):
        yield "The rollouts are of an older version that did not write places; groups are told apart by their task."
    yield from _damage(index)


def _damage(index: RunIndex) -> Iterator[str]:
    growing = (index.metrics, index.evaluations, index.alarms)
    cut = [file.file for file in growing if file.is_cut]
    cut += [file for _, step in sorted(index.steps.items()) for file, is_cut in step.is_cut.items() if is_cut]
    for file in cut[:5]:
        yield f"{file.relative_to(index.run.path)} is cut off in the middle of a line, or too long; the rest is left out."
    if len(cut) > 5:
        yield f"So are {len(cut) - 5} more files."
    num_unreadable = sum(file.num_unreadable for file in growing) + sum(step.num_unreadable for step in index.steps.values())
    if num_unreadable:
        yield f"Lines that are no JSON objects, and are left out: {num_unreadable}."


def _step(number: int, step: Step) -> dict[str, object]:
    """One list an attempt, since there may be ten thousand: the page has the same order in ``model.js``."""
    return {
        "step": number,
        "attempts": [
            [
                entry.row, entry.task_index, entry.attempt, entry.task, entry.outcome, entry.reward, entry.num_tokens, entry.hint,
                entry.gist, int(step.credit_of(entry) is not None),
            ]
            for entry in step.entries
        ],
    }  # fmt: skip


def _curves(file: Growing, since: int) -> list[dict[str, float]] | None:
    """None where nothing is new."""
    if file.revision <= since:
        return None
    read = [StepRecord.of(record) for record in file.records]
    return [{"step": one.step, **{name: one.values[name] for name in CURVES if name in one.values}} for one in read]


def _credit(credit: CreditRecord) -> Mapping[str, object]:
    told = {name: getattr(credit, name) for name in _CREDIT}  # asdict would copy every one of forty thousand pairs
    return {**told, "hindsight_parts": credit.hindsight_parts()}


def _written(index: RunIndex) -> float | None:
    """When the run last wrote something, in seconds since 1970."""
    files: list[Path] = [index.metrics.file, index.evaluations.file]
    if index.steps:
        files.append(index.run.files.rollouts_of(max(index.steps)))
    times = [found[2] / 1e9 for file in files if (found := signature(file)) is not None]
    return max(times, default=None)
