"""An update in a file, so that it can be looked at and taken again without the run that made it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from pickle import UnpicklingError

import torch

from sdpo.errors import UserError
from sdpo.run.files import whole
from sdpo.types import MicroBatch, Pack, Segment, Update


def save(path: Path, update: Update, *, step: int) -> None:
    """``step``: steps that were finished when it was made. Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as scratch:
        torch.save({"step": step, "update": asdict(update)}, scratch)


def load(path: Path) -> tuple[Update, int]:
    """The update and its step. Raises UserError for any other file; runs no code from it."""
    try:
        stored = torch.load(path, weights_only=True)
        fields = stored["update"]
        batches = tuple(tuple(_micro_batch(batch) for batch in of_rank) for of_rank in fields["micro_batches"])
        return Update(**{**fields, "micro_batches": batches}), int(stored["step"])
    except (OSError, UnpicklingError, RuntimeError, LookupError, TypeError, ValueError, EOFError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"batch= names an update that a run has saved (runs/NAME/skipped/*.pt); {path} is none ({reason})."
        ) from error


def _micro_batch(fields: dict) -> MicroBatch:  # type: ignore[type-arg]
    return MicroBatch(**{**fields, "student": _pack(fields["student"]), "teacher": _pack(fields["teacher"])})


def _pack(fields: dict) -> Pack:  # type: ignore[type-arg]
    return Pack(**{**fields, "segments": tuple(Segment(**segment) for segment in fields["segments"])})
