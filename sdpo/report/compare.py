"""``sdpo compare RUN [RUN …]``: one table over seeds, a row for runs that differ in their seed alone. Ends in a line of JSON.

Reads run folders only. Folders that hold no run, are broken or were never finished are named, and shown with what they have.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import isfinite
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sdpo.errors import UserError
from sdpo.report.groups import MAX_KEYS_NAMED, Estimate, grouped
from sdpo.report.record import RunRecord, run_record
from sdpo.report.standings import LAST_STEPS, Standing, standings
from sdpo.report.tables import NOTHING, percent
from sdpo.terminal.printable import printable

MAX_CHARACTERS = 60
"""Most characters of a config value, or of a name, in a cell."""
WIDTH_IN_FILES = 240
"""Columns where nobody's screen has a width: a table in a file is not folded."""


def run_compare(words: Sequence[str]) -> int:
    """The exit code. Raises UserError where no word is a run folder."""
    runs, refused = _read(words)
    if not runs:
        found = f"of {len(refused)} none is one; the first: {refused[0][1]}" if refused else "got none"
        raise UserError(f"sdpo compare takes run folders, e.g. sdpo compare runs/*; {found}")
    rows = standings(grouped(runs))
    screen = Console(highlight=False)
    if not screen.is_terminal:
        screen = Console(highlight=False, width=WIDTH_IN_FILES)
    screen.print(_table(rows))
    for line in _notes(rows, refused):
        screen.print(printable(line), markup=False, soft_wrap=True)
    print(json.dumps(_record(rows, refused)))
    return 0


def _read(words: Sequence[str]) -> tuple[list[RunRecord], list[tuple[str, str]]]:
    """Runs, each once, and what is none, with the reason."""
    runs: dict[Path, RunRecord] = {}
    refused = []
    for word in words:
        try:
            run = run_record(Path(word))
        except (UserError, OSError, ValueError) as error:  # a name with a null byte is a ValueError
            refused.append((word, str(error)))
            continue
        runs.setdefault(run.path, run)
    return list(runs.values()), refused


def _table(rows: Sequence[Standing]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("runs", overflow="fold")
    has_differences = any(_differing(row) for row in rows)
    if has_differences:
        table.add_column("what differs", overflow="fold")
    heads = (
        "seeds", "steps", "generations", "held-out first", "best", "last", f"last {LAST_STEPS} steps", "lift", "tokens/s",
        "hours", "alarms",
    )  # fmt: skip
    for head in heads:
        table.add_column(head, justify="right")
    for row in rows:
        cells = [
            Text(str(row.num_seeds)),
            Text(_steps(row)),
            Text(_number(row.generations, ",.0f")),
            Text(percent(row.first)),
            Text(_at(row.best, row.best_step)),
            Text(_at(row.last, row.last_step)),
            Text(percent(row.training)),
            Text(_lift(row)),
            Text(_number(row.tokens_per_s, ",.0f")),
            Text(_number(row.hours, ".2f")),
            Text(str(row.num_alarms)),
        ]
        told = [Text(_differing(row))] if has_differences else []
        table.add_row(Text(_cut(row.group.label)), *told, *cells)
    return table


def _differing(row: Standing) -> str:
    """One key a line, those that the label does not name already."""
    told = [(key, value) for key, value in row.differs if key != "algorithm.name" and f"{key}=" not in row.group.label]
    lines = [_cut(f"{key}={value}") for key, value in told[:MAX_KEYS_NAMED]]
    return "\n".join(lines + ([f"… {len(told) - MAX_KEYS_NAMED} more"] if len(told) > MAX_KEYS_NAMED else []))


def _steps(row: Standing) -> str:
    fewest, most = row.steps
    taken = f"{fewest}" if fewest == most else f"{fewest}–{most}"
    return taken if row.asked_steps is None or fewest >= row.asked_steps else f"{taken} of {row.asked_steps}"


def _lift(row: Standing) -> str:
    known = [number for number in (row.lift_first, row.lift_last) if number is not None]
    return " → ".join(percent(number, is_signed=True) for number in known) or NOTHING


def _at(number: Estimate | None, step: float | None) -> str:
    return percent(number) if number is None or step is None else f"{percent(number)} @{step:.0f}"


def _number(number: Estimate | None, form: str) -> str:
    if number is None:
        return NOTHING
    return f"{number.mean:{form}}" + ("" if number.error is None else f" ± {number.error:{form}}")


def _cut(text: str) -> str:
    shown = printable(text)
    return shown if len(shown) <= MAX_CHARACTERS else f"{shown[: MAX_CHARACTERS - 1]}…"


def _notes(rows: Sequence[Standing], refused: Sequence[tuple[str, str]]) -> list[str]:
    """Which runs are broken or unfinished, and which folders are no runs."""
    said = [(run.name, [*_unfinished(run), *run.missing]) for row in rows for run in row.group.runs]
    return [f"{name}: {'; '.join(what)}." for name, what in said if what] + [
        f"{word} is left out: {reason}" for word, reason in refused
    ]


def _unfinished(run: RunRecord) -> list[str]:
    taken, asked = (int(run.steps[-1]["step"]) if run.steps else 0), run.config.get("num_steps")
    return [f"{taken} of {asked} steps"] if isinstance(asked, int) and taken < asked else []


def _record(rows: Sequence[Standing], refused: Sequence[tuple[str, str]]) -> dict[str, object]:
    return {
        "groups": [
            {
                "label": row.group.label,
                "runs": [run.name for run in row.group.runs],
                "differs": {key: _jsonable(value) for key, value in row.differs},
                "seeds": row.num_seeds,
                "steps": list(row.steps),
                "asked_steps": row.asked_steps,
                "generations": _pair(row.generations),
                "heldout": {
                    "first": _pair(row.first),
                    "best": _pair(row.best),
                    "best_step": row.best_step,
                    "last": _pair(row.last),
                    "last_step": row.last_step,
                },
                "training_success": _pair(row.training),
                "lift": {"first": _pair(row.lift_first), "last": _pair(row.lift_last)},
                "tokens_per_s": _pair(row.tokens_per_s),
                "hours": _pair(row.hours),
                "alarms": row.num_alarms,
            }
            for row in rows
        ],
        "unfinished": {run.name: missing for row in rows for run in row.group.runs if (missing := _unfinished(run))},
        "missing": {run.name: list(run.missing) for row in rows for run in row.group.runs if run.missing},
        "left_out": [word for word, _ in refused],
    }


def _jsonable(value: object) -> object:
    """A number that JSON knows, or the value's text."""
    is_number = isinstance(value, int | float) and isfinite(value)
    return value if is_number or value is None else str(value)


def _pair(number: Estimate | None) -> dict[str, float | int | None] | None:
    if number is None:
        return None
    return {"mean": number.mean, "error": number.error, "runs": number.num_runs}
