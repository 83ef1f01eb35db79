"""What becomes of a published row? A row to keep, or a reason why it is none of ours; a broken one is a ValueError."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sdpo.envs.code.formats.rows import Row

TRAIN, HELDOUT = "train", "heldout"
_SPLITS = {"train": TRAIN, "test": HELDOUT}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A task."""

    question: str
    """What makes two rows the same question."""
    values: Mapping[str, object]
    """As its environment reads them."""
    split: str | None = None
    """None: not divided where it comes from, so it is drawn by a hash of the question."""
    whole: Mapping[str, object] | None = None
    """The same task with all its tests, where ``values`` have a part of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Passed:
    """A sound row that is not wanted."""

    reason: str
    """The same words for the same reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A row where it was found."""

    file: Path
    row: Row

    @property
    def split(self) -> str | None:
        """As the authors of SDPO call their files: ``train.json``, ``test.json``."""
        return _SPLITS.get(self.file.stem)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How one set of tasks is prepared."""

    environment: str
    """The installed environment that reads it."""
    hub: str | None
    """The dataset's id on the hub; None: it is not there."""
    patterns: tuple[tuple[str, ...], ...]
    """Names of the files that hold it, on the hub and in a folder. The first alternative of which there is a file counts."""
    convert: Callable[[Published], Kept | Passed]

    @property
    def files(self) -> str:
        """The files' names, in words."""
        return ", or ".join(" and ".join(alternative) for alternative in self.patterns)


def plain(text: str) -> str:
    """``text`` less white space and case, in which copies differ."""
    return " ".join(text.lower().split())
