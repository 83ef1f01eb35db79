"""Sources of a hint's texts besides siblings and feedback. A source is a class with a heading and a text.

Its name stands in ``algorithm.hindsight.sources``: an installed package's, ``module:Class`` or ``path/to/file.py:Class``. Its
texts are shown after the others, marked in the viewer by its name, and measured by ``hindsight/NAME`` and ``lift/NAME``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Protocol, cast

from sdpo.plugins.seam import made, short
from sdpo.plugins.seams import HINT_SOURCES
from sdpo.types import Group, HintText


class HintSource(Protocol):
    """Privileged context for the teacher. It is made without arguments, once a process; it sees training and held-out tasks."""

    @property
    def heading(self) -> str:
        """What stands above the text in the teacher's message, ``"The house rules:"``; no text of the task may hold it."""
        ...

    def text(self, group: Group, index: int) -> str | None:
        """What the teacher is shown of attempt ``index`` of the group; None or blank: nothing."""
        ...


@cache
def source(name: str) -> HintSource:
    """The one of that name. Raises ValueError where there is none, or what is named is none."""
    make = HINT_SOURCES.load(name)
    found = made(make, f"hint source {name!r}")
    if not isinstance(getattr(found, "heading", None), str) or not callable(getattr(found, "text", None)):
        raise ValueError(
            "algorithm.hindsight.sources must name classes with a heading and a method text "
            f"(sdpo.hindsight.sources.HintSource); {name!r} is {make!r}"
        )
    return cast(HintSource, found)


def further_texts(names: Sequence[str], group: Group) -> tuple[tuple[HintText, ...], ...]:
    """[G] what the sources show of each attempt, in their order."""
    sources = [(short(name), source(name)) for name in names]
    return tuple(
        tuple(
            HintText(name=name, heading=f"{found.heading.strip()}\n", text=text)
            for name, found in sources
            if (text := found.text(group, index)) is not None and text.strip()
        )
        for index in range(len(group.attempts))
    )
