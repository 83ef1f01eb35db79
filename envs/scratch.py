"""Where does a process put files that nobody needs after it, and who removes them when it was killed?

A folder is made under a random name, for this user alone, and locked as long as its owner lives: the kernel takes a lock away
from a process however that ends. Whoever makes the next one removes those that nobody holds.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from stat import S_ISDIR
from types import TracebackType

_PREFIX, _SUFFIX = "sdpo-", ".held"
_RANDOM = 8
"""Characters of a name that are drawn."""


def made_name(name: str) -> str:
    """A name as long as that of a folder which is made for ``name``."""
    return f"{_PREFIX}{name}-{'x' * _RANDOM}{_SUFFIX}"


class ScratchFolder:
    """A folder of this process. A context manager: at its end the folder is gone."""

    def __init__(self, name: str, base: Path | None = None) -> None:
        """``name`` says what it is for; ``base``: where, in place of the system's folder for such files."""
        base = base or Path(tempfile.gettempdir())
        remove_leftovers(base)
        self._lock = -1
        while self._lock < 0:  # another one may take it for a leftover before it is locked
            self.path = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{name}-", suffix=_SUFFIX, dir=base))
            self._lock = _locked(self.path)

    def __enter__(self) -> ScratchFolder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Remove it, also what of it cannot be removed at once: that is left to the next one. May be called twice."""
        if self._lock >= 0:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._lock)
            self._lock = -1


def _locked(folder: Path) -> int:
    """The descriptor that holds it, or -1 where it is gone by then."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return -1
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    if folder.exists():
        return descriptor
    os.close(descriptor)
    return -1


def remove_leftovers(base: Path) -> None:
    """Remove this user's folders under ``base`` whose owners are gone."""
    with suppress(OSError):
        for folder in base.glob(f"{_PREFIX}*{_SUFFIX}"):
            with suppress(OSError):
                _remove_unheld(folder)


def _remove_unheld(folder: Path) -> None:
    found = folder.lstat()
    if not S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises where it is held
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(descriptor)
