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

_LONGEST = 255
"""Bytes that a name may have in the usual file systems."""
_STEP = re.compile(r"step_([0-9]{1,18})")


def step_in(name: str, suffix: str = "") -> int | None:
    """The number in ``step_NNNNNN`` and ``suffix``. None for any other name, ``step_backup`` say."""
    match = _STEP.fullmatch(name.removesuffix(suffix)) if name.endswith(suffix) else None
    return None if match is None else int(match[1])


def refuse_unwritable(folder: Path, key: str = "runs_dir") -> None:
    """Raises UserError where no such folder can be, nor anything in it. ``key`` is the word that names it."""
    folder = folder.absolute()
    there = next(path for path in (folder, *folder.parents) if os.path.exists(path))  # False where it may not be seen
    found = _against(there, folder)
    if found:
        raise UserError(f"{key} must be a folder that can be written; for {folder}, {found}. Set another {key}.")


def _against(there: Path, folder: Path) -> str:
    """What is against ``folder``, of which ``there`` is the part that exists; empty: nothing is."""
    long = next((part for part in folder.parts if len(os.fsencode(part)) > _LONGEST), None)
    if long is not None:
        return f"the name {long[:40] + '…'!r} has more than {_LONGEST} bytes"
    if not there.is_dir():
        return f"{there} is no folder"
    if not os.access(there, os.W_OK | os.X_OK):
        return f"{there} may not be written"
    if there.stat().st_dev in _kernel_devices():  # root may write there, as far as the mode says
        return f"{there} is the kernel's"
    return ""


def _kernel_devices() -> frozenset[int]:
    return frozenset(os.stat(path).st_dev for path in ("/proc", "/sys") if os.path.isdir(path))


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
    """Raises UserError where ``folder``, which a command is to make, is there, or cannot be made."""
    if os.path.lexists(folder):
        raise UserError(f"to= must name a folder that is not there yet (nothing is overwritten); {folder} is. Choose another.")
    refuse_unwritable(folder, "to")


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
