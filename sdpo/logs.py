"""Where chatter goes: libraries' output into a file of the run, so that the screen stays the user's."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def redirect_output(path: Path) -> None:
    """Send this process's standard output and error, those of C++ libraries and children included, to the end of ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def tail(path: Path, num_lines: int = 15) -> str:
    """The last lines of a log, or a word that there are none."""
    if not path.exists():
        return "(no log was written)"
    lines = path.read_text(errors="replace").splitlines()
    return "\n".join(lines[-num_lines:]) or "(the log is empty)"
