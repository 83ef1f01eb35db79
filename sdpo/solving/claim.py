"""Whose folder is this? A search continues with the config it began with, but for what only decides how long and where."""

from __future__ import annotations

from pathlib import Path

import yaml

from sdpo.config import SearchConfig
from sdpo.errors import UserError
from sdpo.run.files import refuse_unwritable, write_whole
from sdpo.run.folder import differing, plain

CONFIG = "config.yaml"
_MAY_DIFFER = (
    "budget.", "runs_dir", "name", "quiet", "num_workers", "in_process", "keep_every", "stop_at_once", "cluster.", "sandbox.",
    "learner.timeout_s", "learner.num_threads", "learner.max_skipped_updates", "learner.max_restarts", "num_seeds",
    "rollout.verify_", "rollout.max_set_aside_share", "rollout.start_", "rollout.stall_", "rollout.silence_s",
    "rollout.num_", "rollout.bucket_mib", "rollout.restart_", "rollout.max_restarts",
    "rollout.gpu_memory_utilization", "rollout.kv_cache_gib",
    "tasks", "strategies",
)  # fmt: skip
"""Config keys that a command which continues may change."""


def claim(folder: Path, config: SearchConfig) -> None:
    """Make the folder this config's, or find that it is. Raises UserError where it belongs to another one."""
    refuse_unwritable(folder)
    file = folder / CONFIG
    if file.is_file():
        changed = [
            f"{key} was {old!r} and is now {new!r}"
            for key, old, new in differing(yaml.safe_load(file.read_text()), config)
            if not key.startswith(_MAY_DIFFER)
        ]
        if changed:
            raise UserError(
                f"a search continues with the config it began with; {folder} belongs to another one: "
                + "; ".join(changed[:6])
                + ". Choose another name=, or repeat the command with the old values."
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(file, yaml.safe_dump(plain(config), sort_keys=False))


def name_of(text: str) -> str:
    """A folder's name for a task's id: readable, and never two ids' the same but for what is left out."""
    return "".join(char if char.isalnum() or char in "-_." else "_" for char in text).lstrip(".")[:80]
