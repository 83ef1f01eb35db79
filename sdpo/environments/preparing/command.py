"""``sdpo envs prepare NAME to=DIR``: every row read, checked and divided, and the folder written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from sdpo.environments.preparing import contests, science, tool_calls
from sdpo.environments.preparing.published import published_files, published_rows
from sdpo.environments.preparing.rows import HELDOUT, TRAIN, Kept, Passed, Published, Recipe
from sdpo.environments.words import told_apart
from sdpo.envs import registry
from sdpo.errors import UserError
from sdpo.terminal.printable import printable

SETTINGS = ("to", "from", "level", "broken")
WHOLE = "train_all_tests"
HELDOUT_SHARE = 0.1
MOST_SHOWN = 3


def recipes(level: str) -> dict[str, Recipe]:
    """Every set of tasks that can be prepared. ``level``: of the science questions."""
    any_rows = (("*.jsonl",), ("*.json",), ("*.parquet",))
    sciences = {
        subject: Recipe(
            environment="multiple_choice",
            hub="hicai-zju/SciKnowEval",
            patterns=any_rows,
            convert=partial(science.converted, subject=subject, level=level),
        )
        for subject in science.SUBJECTS
    }
    tool_use = Recipe(environment="tool_use", hub=None, patterns=(("train.json", "test.json"),), convert=tool_calls.converted)
    livecodebench = Recipe(
        environment="code_file",
        hub="livecodebench/code_generation_lite",
        patterns=(("test6.jsonl",),),
        convert=contests.converted,
    )
    return {**sciences, "tool_use": tool_use, "livecodebench": livecodebench}


@dataclass(slots=True)
class Collected:
    """What a set's files hold."""

    tasks: dict[str, tuple[str, Kept]] = field(default_factory=dict)
    """By their question, with the place of each."""
    passed: dict[str, int] = field(default_factory=dict)
    """Rows that are not wanted, by reason."""
    broken: list[str] = field(default_factory=list)
    """What is wrong with each row that was left out."""


def run_prepare(name: str, rest: Sequence[str]) -> int:
    """The exit code. Raises UserError."""
    words = told_apart(rest, SETTINGS)
    if words.options:
        raise UserError(f"sdpo envs prepare takes {', '.join(f'{key}=' for key in SETTINGS)}; got {', '.join(words.options)}.")
    known = recipes(words.settings.get("level", science.LEVEL))
    if name not in known:
        raise UserError(f"what is prepared must be one of {', '.join(known)}; got {name!r}.")
    broken = words.settings.get("broken", "refuse")
    if broken not in ("refuse", "leave_out"):
        raise UserError(f"broken must be refuse or leave_out; got {broken!r}.")
    if not words.settings.get("to"):
        raise UserError(f"to= must name the folder to make, as in sdpo envs prepare {name} to=tasks/{name}.")
    folder = Path(words.settings["to"]).expanduser()
    if folder.exists() or folder.is_symlink():
        raise UserError(f"to= must be a new folder; {folder} is there already. Name another, or remove it.")
    recipe = known[name]
    collected = collect(published_files(name, recipe, words.settings.get("from")), recipe, may_leave_out=broken == "leave_out")
    lines = {split: list(map(json.dumps, rows)) for split, rows in files_of(collected).items()}
    _write(folder, lines, recipe)
    _report(name, folder, lines, collected)
    return 0


def collect(files: Sequence[Path], recipe: Recipe, *, may_leave_out: bool) -> Collected:
    """Raises UserError for a broken row, unless it may be left out, and where no task is left."""
    found = Collected()
    try:
        for published in published_rows(files):
            try:
                _collect_row(found, published, recipe)
            except ValueError as error:
                if not may_leave_out:
                    raise UserError(f"{error}. Or leave such rows out: broken=leave_out.") from error
                found.broken.append(str(error))
    except UserError:
        raise
    except (ValueError, OSError) as error:  # no rows at all, or a line that is no JSON: who knows what is missing
        raise UserError(str(error)) from error
    if not found.tasks:
        reasons = "; ".join(
            [*(f"{number} rows: {reason}" for reason, number in found.passed.items()), *found.broken[:MOST_SHOWN]]
        )
        raise UserError(f"a set needs a task; {', '.join(map(str, files[:MOST_SHOWN]))} gave none ({reasons or 'no rows'}).")
    return found


def _collect_row(found: Collected, published: Published, recipe: Recipe) -> None:
    row = published.row
    kept = recipe.convert(published)
    if isinstance(kept, Passed):
        found.passed[kept.reason] = found.passed.get(kept.reason, 0) + 1
        return
    try:
        json.dumps(kept.values, allow_nan=False)
    except ValueError as error:
        raise row.refused(f"numbers must be JSON's, which knows neither NaN nor infinity ({error}): correct the row") from error
    place, same = found.tasks.setdefault(kept.question, (row.where, kept))
    if same is kept:
        return
    if (same.split or kept.split) and same.split != kept.split:
        raise row.refused(f"a question must not be trained on and held out; it stands at {place} too: remove one of them")
    if same.values.get("answer") != kept.values.get("answer"):
        raise row.refused(f"a question must have one answer; at {place} it has another: correct one of them")
    reason = "the same question stood before it"
    found.passed[reason] = found.passed.get(reason, 0) + 1


def files_of(collected: Collected) -> dict[str, list[Mapping[str, object]]]:
    """The rows of each file, numbered anew: those of several files may count from 0 each. Raises UserError for an empty split."""
    files: dict[str, list[Mapping[str, object]]] = {TRAIN: [], HELDOUT: []}
    for number, (_, kept) in enumerate(collected.tasks.values()):
        split = kept.split or (HELDOUT if _position(kept.question) < HELDOUT_SHARE else TRAIN)
        files[split].append({**kept.values, "idx": number} if "idx" in kept.values else kept.values)
        if kept.whole is not None:
            files.setdefault(WHOLE, []).append(kept.whole)
    for split in (TRAIN, HELDOUT):
        if not files[split]:
            raise UserError(f"both splits need tasks; of {len(collected.tasks)} none is in {split}. Give more files.")
    return files


def _position(question: str) -> float:
    """In [0, 1), whatever else is in the files."""
    return int.from_bytes(hashlib.blake2b(question.encode(), digest_size=8).digest()) / 2**64


def _write(folder: Path, lines: Mapping[str, Sequence[str]], recipe: Recipe) -> None:
    """The environment reads the files before they get their name. Raises UserError."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as unfinished:
            draft = Path(unfinished) / "draft"
            draft.mkdir()
            for split, rows in lines.items():
                (draft / f"{split}.jsonl").write_text("".join(_ended(rows)))
            _examine(draft, recipe, {split: len(rows) for split, rows in lines.items()})
            draft.rename(folder)
    except OSError as error:
        raise UserError(f"to= must be a place where files can be written; {folder} is not ({error}). Name another.") from error


def _examine(draft: Path, recipe: Recipe, counts: Mapping[str, int]) -> None:
    options = {"path": str(draft / f"{TRAIN}.jsonl"), "heldout_path": str(draft / f"{HELDOUT}.jsonl")}
    try:
        environment = registry.make(recipe.environment, options)
        for split in (TRAIN, HELDOUT):
            found = len(environment.tasks(split, 0))
            assert found == counts[split], f"{found} of {counts[split]} tasks were read back"
    except ValueError as error:
        raise UserError(f"the prepared rows must be tasks of {recipe.environment}; {error}") from error


def _ended(rows: Sequence[str]) -> Iterator[str]:
    for row in rows:
        yield row + "\n"


def _report(name: str, folder: Path, lines: Mapping[str, Sequence[str]], collected: Collected) -> None:
    console = Console(highlight=False, soft_wrap=True)
    for split, rows in lines.items():
        digest = hashlib.sha256("".join(_ended(rows)).encode()).hexdigest()
        console.print(f"{split}.jsonl: {len(rows)} tasks, SHA-256 {digest}")
    for reason, number in collected.passed.items():
        console.print(f"not taken: {number} rows, because {reason}")
    if collected.broken:
        console.print(f"broken and left out: {len(collected.broken)} rows")
        for broken in collected.broken[:MOST_SHOWN]:
            console.print(f"  {escape(printable(broken))}")
    console.print(f"Wrote {escape(str(folder))}. Next: sdpo train experiment=paper/{name}_sdpo")
