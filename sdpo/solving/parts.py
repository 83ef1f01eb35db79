"""What a search asks of machines beyond what a training run does, and whom it tells how it goes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sdpo.protocols import Learner, Sampler, Watcher
from sdpo.solving.search import Search


class SearchLearner(Learner, Protocol):
    """A learner that goes back to where it was, between tasks and after a kill."""

    def keep(self, path: Path) -> None:
        """Keep policy, teacher and optimizer as they are, whole or not at all."""
        ...

    def restore(self, path: Path) -> None:
        """Restore them as they were."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What searches are done with, one after the other."""

    sampler: Sampler
    learner: SearchLearner


class SearchLog(Watcher, Protocol):
    """What a search reports to."""

    def told(self, search: Search) -> None:
        """The state of ``search``, after a step and at its beginning."""
        ...

    def warn(self, sentence: str) -> None:
        """Something that the user should not miss."""
        ...
