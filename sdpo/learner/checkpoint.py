"""What survives a kill: everything needed to go on as if nothing had happened, whole or not at all.

A checkpoint is a folder ``step_NNNNNN`` that appears in one rename:
``rank-NNNNN.safetensors`` (a rank's fp32 master weights, moments and average, ``shard_files.py``), ``policy/`` (a plain Hugging
Face folder, loadable by transformers and vLLM) and ``learner.json`` (the counters).
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from sdpo.errors import UserError

PREFIX = "step_"
COUNTERS = "learner.json"
POLICY = "policy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """How far the learner was: its steps, its updates and its score."""

    step: int
    num_updates: int
    score: float | None = None
    """Success on held-out tasks, where the step was evaluated."""


def checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.name.startswith(PREFIX) and (path / COUNTERS).is_file())


def scratch_of(path: Path) -> Path:
    """The folder that a checkpoint is written to before it gets its name."""
    return path.with_name(f".{path.name}.partial")


def begin(path: Path) -> Path:
    """An empty scratch folder for ``path``; what an interrupted write left behind is removed."""
    scratch = scratch_of(path)
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    return scratch


def commit(path: Path, counters: Counters) -> None:
    """Give the scratch folder its name; from now on readers see it, whole."""
    scratch = scratch_of(path)
    (scratch / COUNTERS).write_text(json.dumps(asdict(counters), indent=1) + "\n")
    if path.exists():
        remove(path)
    os.replace(scratch, path)


def abandon(path: Path, error: Exception) -> UserError:
    """Remove what was written of a checkpoint that could not be finished, and say so."""
    shutil.rmtree(scratch_of(path), ignore_errors=True)
    free = shutil.disk_usage(path.parent).free / 2**20
    return UserError(
        f"the checkpoint {path} could not be written ({type(error).__name__}: {str(error).partition(chr(10))[0]}); "
        f"{free:.0f} MiB are free there. Nothing half-written was kept, and earlier checkpoints are whole. Free some space "
        "and repeat the command: it continues from the last one."
    )


def sweep(folder: Path) -> None:
    """Remove what interrupted writes left. Nobody may be writing."""
    for partial in folder.glob(f".{PREFIX}*"):
        shutil.rmtree(partial, ignore_errors=True)


def prune(folder: Path, *, keep: int, keep_best: int) -> None:
    """Remove all but the newest ``keep`` and the ``keep_best`` with the highest score, and what interrupted writes left."""
    found = checkpoints(folder)
    scores = {path: counters_of(path).score for path in found}
    scored = sorted(
        (path for path in found if scores[path] is not None), key=lambda path: (scores[path], path.name), reverse=True
    )
    kept = {*found[-keep:], *scored[:keep_best]}
    for path in found:
        if path not in kept:
            remove(path)
    sweep(folder)


def remove(path: Path) -> None:
    """First the name, then the files: a reader never finds half a checkpoint under a checkpoint's name."""
    doomed = path.with_name(f".{path.name}.removed")
    os.replace(path, doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def counters_of(path: Path) -> Counters:
    """Raises UserError if the folder is no checkpoint."""
    try:
        return Counters(**json.loads((path / COUNTERS).read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f"a checkpoint folder must hold a readable {COUNTERS}; {path} does not ({error}). Name a folder like "
            "runs/NAME/checkpoints/step_000012."
        ) from error
