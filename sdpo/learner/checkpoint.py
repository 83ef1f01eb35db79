"""What survives a kill: everything needed to go on as if nothing had happened, whole or not at all.

A checkpoint is a folder ``step_NNNNNN`` that appears in one rename, once all of it is on the disk:
``rank-NNNNN.safetensors`` (a rank's fp32 master weights, moments and average, ``shard_files.py``), ``policy/`` (a plain Hugging
Face folder, loadable by transformers and vLLM), ``learner.json`` (the counters) and ``SHA256SUMS`` (``run/digests.py``). Whoever
reads a checkpoint verifies it first. A damaged one is never removed: it is named, or renamed ``step_NNNNNN.damaged``.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from sdpo.errors import UserError
from sdpo.run import digests
from sdpo.run.files import step_in

PREFIX = "step_"
COUNTERS = "learner.json"
POLICY = "policy"
_LEFT = re.compile(rf"\.{PREFIX}[0-9]+\.(partial|removed)")
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """How far the learner was: its steps, its updates and its score."""

    step: int
    num_updates: int
    score: float | None = None
    """Success on held-out tasks, where the step was evaluated."""


def checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints, oldest first: folders that are called ``step_`` and digits, by number."""
    return [path for path in _numbered(folder) if (path / COUNTERS).is_file()]


def readable(folder: Path) -> dict[Path, Counters]:
    """The checkpoints whose counters can be read and are of the step that the name says, oldest first."""
    found = {}
    for path in checkpoints(folder):
        try:
            counters = counters_of(path)
        except UserError:
            continue
        if counters.step == _step_of(path):
            found[path] = counters
    return found


def newest_sound(folder: Path, say: Callable[[str], None], *, up_to: int | None = None) -> Path | None:
    """The newest checkpoint that is what was written, of a step up to ``up_to``. None where there is no checkpoint.

    ``say`` is told of damaged ones that are newer. Raises UserError where there are checkpoints and all of them are damaged.
    """
    damaged: dict[Path, str] = {}
    sound = None
    for path in reversed(_numbered(folder)):
        if (up_to is not None and _step_of(path) > up_to) or not any(path.iterdir()):
            continue
        wrong = fault(path) or _contradiction(path)
        if wrong is None:
            sound = path
            break
        damaged[path] = wrong
    if sound is None:
        if damaged:
            raise UserError(
                f"a run continues from a checkpoint that is what was written; in {folder} there is none: "
                + "; ".join(f"{path.name}: {wrong}" for path, wrong in damaged.items())
                + ". Nothing was changed. Put the files back as they were, or choose another name= to begin anew."
            )
        return None
    for path, wrong in damaged.items():
        say(f"the checkpoint {path.name} is damaged: {wrong}. {sound.name} takes its place")
    if not digests.are_kept(sound):
        say(_unverified(sound))
    return sound


def set_aside(folder: Path, sound: Path | None, say: Callable[[str], None]) -> None:
    """Rename the checkpoints that are newer than the newest ``sound`` one, so that nothing takes them for whole."""
    for path in _numbered(folder):
        if sound is not None and _step_of(path) > _step_of(sound) and any(path.iterdir()):
            names = (f"{path.name}.damaged{suffix}" for suffix in ("", *(f"-{number}" for number in range(2, 1000))))
            kept = next(path.with_name(name) for name in names if not os.path.lexists(path.with_name(name)))
            os.replace(path, kept)
            say(f"{path.name} is kept as {kept}")


def verify(path: Path, say: Callable[[str], None], *, within: str | None = None) -> Counters:
    """The counters of a checkpoint that is what was written. Raises UserError, which names the damaged file.

    ``within`` names the folder in it that is to be read, where the rest does not matter.
    """
    counters = counters_of(path)
    wrong = fault(path, within=within) or _contradiction(path)
    if wrong is not None:
        raise UserError(
            f"a checkpoint must be what was written; {path} is damaged: {wrong}. Put the file back as it was, or name another "
            "checkpoint."
        )
    if not digests.are_kept(path):
        say(_unverified(path))
    return counters


def fault(path: Path, *, within: str | None = None) -> str | None:
    """What is wrong with a checkpoint, in words that begin with a file's name. None: nothing, as far as can be known."""
    try:
        counters_of(path)
        if digests.are_kept(path):
            return digests.fault(path, last=COUNTERS, within=within)
        return next((wrong for name in digests.files_in(path) if (wrong := _misshapen(path, name)) is not None), None)
    except UserError as error:
        return f"{COUNTERS}: {error.__cause__ or error}"
    except OSError as error:
        return f"{error.filename or path}: {error.strerror}"


def scratch_of(path: Path) -> Path:
    """The folder that a checkpoint is written to before it gets its name."""
    return path.with_name(f".{path.name}.partial")


def begin(path: Path) -> Path:
    """An empty scratch folder for ``path``; what an interrupted write left behind is removed."""
    scratch = scratch_of(path)
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    return scratch


def commit(path: Path, counters: Counters, sealed: Mapping[str, str] | None = None) -> None:
    """Give the scratch folder its name; from now on readers see it, whole, even after a power cut.

    ``sealed`` are the digests of files that whoever wrote them has put on the disk; the others are digested here.
    """
    scratch = scratch_of(path)
    (scratch / COUNTERS).write_text(json.dumps(asdict(counters), indent=1) + "\n")
    known = dict(sealed or {})
    known |= digests.sealed(scratch, [name for name in digests.files_in(scratch) if name not in known])
    digests.write(scratch, known, last=COUNTERS)
    if path.exists():
        remove(path)
    os.replace(scratch, path)
    digests.flush_folder(path.parent)


def abandon(path: Path, error: Exception) -> UserError:
    """Remove what was written of a checkpoint that could not be finished, and say so."""
    shutil.rmtree(scratch_of(path), ignore_errors=True)
    reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    began = f"the checkpoint {path} could not be written ({reason})"
    whole = "Nothing half-written was kept, and earlier checkpoints are whole."
    again = "and repeat the command: it continues from the last one."
    if isinstance(error, OSError) and error.errno in _DENIED:
        return UserError(f"{began}: {path.parent} may not be written. {whole} Make it writable {again}")
    try:
        free = f"{shutil.disk_usage(path.parent).free / 2**20:.0f} MiB are free there"
    except OSError as gone:
        return UserError(f"{began}: {path.parent} is not there any more ({gone.strerror}). Put it back {again}")
    return UserError(f"{began}; {free}. {whole} Free some space {again}")


def sweep(folder: Path) -> None:
    """Remove what interrupted writes left. Nobody may be writing."""
    for partial in folder.glob(f".{PREFIX}*"):
        if _LEFT.fullmatch(partial.name):
            shutil.rmtree(partial, ignore_errors=True)


def prune(folder: Path, *, keep: int, keep_best: int) -> None:
    """Remove all but the newest ``keep`` and the ``keep_best`` with the highest score, and what interrupted writes left.

    A checkpoint whose counters cannot be read neither counts nor goes.
    """
    found = readable(folder)
    scored = sorted((counters.score, counters.step, path) for path, counters in found.items() if counters.score is not None)
    best = [path for _, _, path in reversed(scored)]
    kept = {*list(found)[-keep:], *best[:keep_best]}
    for path in found:
        if path not in kept:
            remove(path)
    sweep(folder)


def remove(path: Path) -> None:
    """First the name, then the files: a reader never finds half a checkpoint under a checkpoint's name."""
    doomed = path.with_name(f".{path.name}.removed")
    shutil.rmtree(doomed, ignore_errors=True)
    os.replace(path, doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def counters_of(path: Path) -> Counters:
    """Raises UserError if the folder is no checkpoint."""
    try:
        if (path / COUNTERS).exists() and not (path / COUNTERS).is_file():
            raise ValueError("it is no file")  # reading might wait without end
        counters = Counters(**json.loads((path / COUNTERS).read_text()))
        _check(counters)
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise UserError(
            f"a checkpoint folder must hold a readable {COUNTERS}; {path} does not ({error}). Name a folder like "
            "runs/NAME/checkpoints/step_000012."
        ) from error
    return counters


def _check(counters: Counters) -> None:
    for name, count in (("step", counters.step), ("num_updates", counters.num_updates)):
        if type(count) is not int or count < 0:
            raise ValueError(f"{name} is {count!r}, which is no count")
    if counters.score is not None and (type(counters.score) not in (int, float) or not math.isfinite(counters.score)):
        raise ValueError(f"score is {counters.score!r}, which is no success")


def _contradiction(path: Path) -> str | None:
    """What is wrong with a folder that is called like the checkpoint of another step. Whoever trusts its name loses steps."""
    step, named = counters_of(path).step, step_in(path.name)
    return None if named in (step, None) else f"{COUNTERS} is of step {step}, and the folder's name says {named}"


def _numbered(folder: Path) -> list[Path]:
    """Folders with a checkpoint's name, by number."""
    if not folder.is_dir():
        return []
    named = [path for path in folder.iterdir() if step_in(path.name) is not None and path.is_dir()]
    return sorted(named, key=lambda path: (_step_of(path), path.name))


def _step_of(path: Path) -> int:
    step = step_in(path.name)
    assert step is not None, path
    return step


def _unverified(path: Path) -> str:
    return f"the checkpoint {path.name} has no {digests.FILE} (an earlier version wrote none), so its files were not verified"


def _misshapen(folder: Path, name: str) -> str | None:
    """What is wrong with a file of weights that nobody digested: its header says how long it must be."""
    if not name.endswith(".safetensors"):
        return None
    file = folder / name
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > file.stat().st_size:
                return f"{name} is cut off"
            header = json.loads(stream.read(length))
        ends = [entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return f"{name} has a header that cannot be read"
    return None if file.stat().st_size == 8 + length + max(ends, default=0) else f"{name} is cut off"
