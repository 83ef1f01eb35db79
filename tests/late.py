"""Tasks that are made when a test first looks at them: collecting the tests should not wait for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

from sdpo.types import Task


class Late(Sequence[Task]):
    def __init__(self, make: Callable[[], Sequence[Task]]) -> None:
        self._make = make

    @cached_property
    def _tasks(self) -> Sequence[Task]:
        return self._make()

    def __len__(self) -> int:
        return len(self._tasks)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        return self._tasks[index]

    def __iter__(self) -> Iterator[Task]:
        return iter(self._tasks)
