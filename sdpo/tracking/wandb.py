"""Weights & Biases, through its own client: a record is a row of the run's history, drawn over its ``step``."""

from __future__ import annotations

import os
import sys
import uuid
from pathlib import Path

from sdpo.config import WandbConfig
from sdpo.errors import without_credentials
from sdpo.tracking.identity import Identity
from sdpo.tracking.sink import About, Record


class Wandb:
    """One W&B run. W&B's own step, which must grow, is ``Record.row``."""

    def __init__(self, config: WandbConfig, about: About, folder: Path, identity: Path) -> None:
        """What W&B keeps on disk goes to ``folder/wandb/``. Raises what its client raises."""
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # the client's own faults would be sent to its makers
        import wandb

        self._identity = Identity(identity, f"{config.entity or ''}/{config.project}")
        if self._identity.run is None:
            self._identity.begins(uuid.uuid4().hex[:12])
        self._run = wandb.init(
            project=config.project,
            entity=config.entity,
            name=about.name,
            id=self._identity.run,
            resume="allow",
            tags=list(about.tags),
            config=about.config,
            allow_val_change=True,  # a continued run may have more steps, say
            dir=str(folder),
            mode=config.mode.value,
            settings=wandb.Settings(
                console="off",
                silent=True,
                save_code=False,
                disable_code=True,
                disable_git=True,
                x_disable_stats=True,
                x_disable_meta=any(without_credentials(word) != word for word in sys.argv),  # it holds the command's words
            ),
        )
        self._run.define_metric("*", step_metric="step")

    def go_back(self, step: int) -> None:
        """Nothing that was given can be taken back."""

    def record(self, record: Record) -> None:
        if self._identity.lacks(record):
            self._run.log({"step": record.step, **record.metrics}, step=record.row)
            self._identity.has(record)

    def close(self) -> None:
        self._run.finish()
