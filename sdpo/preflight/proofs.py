"""What an earlier start has proved need not be proved again: that every prompt of these tasks fits, with this very model.

A proof is a file whose name is a hash of all that the claim depends on: tasks, limits, a tokenizer's files, our own code.
So it is never out of date; whatever changes has another name, and is checked anew. In it stands what was found: the tokenizer's
class, which saves the second start a search that imports torch. Proofs of a month ago are swept.
"""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Iterable
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

from sdpo.run.cache import cache_folder
from sdpo.run.files import write_whole
from sdpo.types import Task

_CODE = ("hindsight/rendering.py", "hindsight/hints.py", "preflight/checks.py", "preflight/model_traits.py")
"""What renders and checks, within this package."""
_KEPT_S = 30 * 86400.0


class Claim:
    """The claim that everything it was given goes together."""

    def __init__(self, *facts: object) -> None:
        """``facts``: whatever the check depends on, as ``repr`` writes it."""
        self._hash = blake2b(digest_size=16)
        root = Path(__file__).parent.parent
        for file in _CODE:
            self._hash.update((root / file).read_bytes())
        self._add("transformers", importlib.metadata.version("transformers"), *facts)

    def about_files(self, folder: Path) -> None:
        """Add a model's or tokenizer's files: names, sizes and times of change."""
        for file in sorted(folder.iterdir()):
            status = file.stat() if file.exists() else file.lstat()  # an editor's lock is a link to nothing
            self._add(str(file.resolve()), status.st_size, status.st_mtime_ns)

    def about_tasks(self, tasks: Iterable[Task]) -> None:
        for task in tasks:
            self._add(task.id, *((message.role.value, message.content) for message in task.messages))

    def tokenizer_class(self) -> str | None:
        """``module:Class`` of the tokenizer, where an earlier start found the claim to hold; else None."""
        with suppress(OSError):
            return self._file.read_text() or None
        return None

    def remember(self, tokenizer_class: str) -> None:
        """Keep that the claim was checked, and holds. A cache that cannot be written costs time, no more."""
        with suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            for old in self._file.parent.iterdir():
                if time.time() - old.stat().st_mtime > _KEPT_S:
                    old.unlink(missing_ok=True)
            write_whole(self._file, tokenizer_class)

    def _add(self, *facts: object) -> None:
        self._hash.update(repr(facts).encode())

    @property
    def _file(self) -> Path:
        return cache_folder() / "proofs" / self._hash.hexdigest()
