"""How is a file written so that nobody ever reads half of it, and where may none be written?"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sdpo.errors import UserError

_STEP = re.compile(r"step_([0-9]{1,18})")


def step_in(name: str, suffix: str = "") -> int | None:
    """The number in ``step_NNNNNN`` and ``suffix``. None for any other name, ``step_backup`` say."""
    match = _STEP.fullmatch(name.removesuffix(suffix)) if name.endswith(suffix) else None
    return None if match is None else int(match[1])


def refuse_unwritable(folder: Path) -> None:
    """Raises UserError where no such folder can be, nor anything in it."""
    there = next(path for path in (folder, *folder.absolute().parents) if os.path.exists(path))  # False where it may not be seen
    if not there.is_dir() or not os.access(there, os.W_OK):
        found = "may not be written" if there.is_dir() else "is no folder"
        raise UserError(f"runs_dir must be a folder that can be written; for {folder}, {there} {found}. Set another runs_dir.")


@contextmanager
def whole(file: Path) -> Iterator[Path]:
    """A path to write to, which becomes ``file`` in one rename at the end of the block, or goes where the block raises.

    A reader sees the old file or the new one, and of several writers the last one's.
    """
    scratch = file.with_name(f".{file.name}.{secrets.token_hex(4)}.partial")
    try:
        yield scratch
        os.replace(scratch, file)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def refuse_existing(folder: Path) -> None:
    """Raises UserError where ``folder``, which a command is to make, is there."""
    if folder.exists():
        raise UserError(f"to= must name a folder that is not there yet (nothing is overwritten); {folder} is. Choose another.")


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A path at which to make a folder, which becomes ``folder`` at the end of the block, or goes with its error."""
    scratch = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(scratch, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield scratch
        os.replace(scratch, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def write_whole(file: Path, text: str) -> None:
    """Write ``text``, in UTF-8, so that nobody ever reads half of it."""
    with whole(file) as scratch:
        scratch.write_text(text, encoding="utf-8")
