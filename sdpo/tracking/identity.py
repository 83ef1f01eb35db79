"""Which of a tracker's runs is this run, and what does it have already?

The answer is kept in the run's folder. So a run that is continued, by whatever process, is one run to its tracker, and nothing is
counted twice there. Neither W&B nor MLflow can take a number back. So the first record of a step stands where it is repeated
after a kill or a lost learner. (Repeated steps come out the same, but for what the clock says: ``docs/reliability.md``.)
"""

from __future__ import annotations

import json
from pathlib import Path

from sdpo.errors import without_credentials
from sdpo.run.files import write_whole
from sdpo.tracking.sink import Record


class Identity:
    """One run in one place of one tracker."""

    def __init__(self, file: Path, where: str) -> None:
        """``where``: which project or experiment; a run that is told of elsewhere is a new one there.

        It is the same place whoever logs in.
        """
        self._file, self._where = file, without_credentials(where)
        self.run: str | None = None
        """The tracker's id of it; None: it has none yet."""
        self._last_row = -1
        try:
            kept = json.loads(file.read_text())
            if without_credentials(str(kept["where"])) == self._where:
                self.run, self._last_row = str(kept["run"]), int(kept["last_row"])
        except (OSError, ValueError, KeyError, TypeError):
            """Nothing was kept, or nothing that can be read."""

    def begins(self, run: str) -> None:
        self.run, self._last_row = run, -1
        self._write()

    def lacks(self, record: Record) -> bool:
        """Whether the tracker has not been given it yet."""
        return record.row > self._last_row

    def has(self, record: Record) -> None:
        """It has been given it now."""
        self._last_row = record.row
        self._write()

    def _write(self) -> None:
        write_whole(self._file, json.dumps({"where": self._where, "run": self.run, "last_row": self._last_row}) + "\n")
