"""TensorBoard, in the run's folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sdpo.tracking.sink import Record

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TensorBoard:
    """Event files; of steps that are repeated TensorBoard shows what was written last."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._first_step: int | None = None
        self._writer: SummaryWriter | None = None

    def go_back(self, step: int) -> None:
        self.close()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._first_step = step + 1

    def record(self, record: Record) -> None:
        assert self._first_step is not None, "go_back() comes before the first record"
        if self._writer is None:  # now, so that the first prompts do not wait while torch is imported
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._folder), purge_step=self._first_step)
        for name, value in record.metrics.items():
            self._writer.add_scalar(name, value, record.step)
        self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
