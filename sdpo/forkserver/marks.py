"""When did which part of a start end? Serves ``benchmarks/startup.py``; elsewhere it costs a look at the environment."""

from __future__ import annotations

import json
import os
import time

MARKS = "SDPO_START_MARKS"
"""The environment variable that names the file."""


def mark(part: str) -> None:
    """Write down that ``part`` has ended now, if anybody wants to know."""
    file = os.environ.get(MARKS)
    if file:
        line = json.dumps({"part": part, "at": time.time(), "pid": os.getpid()}) + "\n"
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)
