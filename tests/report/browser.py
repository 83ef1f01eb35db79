"""``sdpo view`` as a process, and a real browser to look at it with."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = ["--no-sandbox"]  # as root, in a container, it has none


@contextmanager
def served(*runs: Path) -> Iterator[str]:
    """The address of a viewer of these runs, which ends with exit code 0."""
    command = [sys.executable, "-m", "sdpo.cli", "view", *map(str, runs), "port=0"]
    viewer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert viewer.stdout is not None
        found = re.search(r"http://\S+/", viewer.stdout.readline())
        assert found, "the command says its address first"
        yield found[0]
    finally:
        viewer.send_signal(signal.SIGINT)
        assert viewer.wait(timeout=30) == 0
