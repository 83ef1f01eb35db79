"""The folder that keeps what is made once for all runs of a user."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """``SDPO_CACHE``, else the user's cache folder."""
    chosen = os.environ.get("SDPO_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sdpo"
