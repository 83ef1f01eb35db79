"""What is requested: the tools, the words for them, and what they are asked about, as ``requests.toml`` has them.

A parameter is the name of a pool there, of a made one here, or ``mentions``: a text that has to mention two things.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from sdpo.envs.tool_use import tools
from sdpo.envs.tool_use.tools import Tool

SPLITS = ("train", "heldout")
MENTIONS = "mentions"
THINGS = "thing"
"""The pool of what a text has to mention."""
_INTEGERS: Mapping[str, range] = {"number": range(2, 10), "degrees": range(15, 27), "minutes": range(3, 60)}
_TIMES = tuple(f"{hour:02}:{minute:02}" for hour in range(6, 23) for minute in range(0, 60, 5))
_SMALL = 12
"""Pools of more words are halved between the splits; numbers and times are not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A tool, and requests that it fulfils."""

    tool: str
    does: str
    parameters: tuple[tuple[str, str], ...]
    """Name and pool of each."""
    requests: tuple[str, ...]
    """With the parameters' names in braces; those that are to be mentioned with ``_1`` and ``_2``."""

    @property
    def documentation(self) -> str:
        """A line."""
        takes = ", ".join(f"{name}: {_type(pool)}" for name, pool in self.parameters)
        return f"{self.tool}({takes}) {self.does}"

    @property
    def as_tool(self) -> Tool:
        """For the critic that knows the documentation."""
        return Tool(
            name=self.tool,
            parameters=tuple(tools.Parameter(name=name, kind=_type(pool), is_required=True) for name, pool in self.parameters),
        )


@cache
def kinds() -> tuple[Kind, ...]:
    """All there are."""
    return tuple(
        Kind(tool=tool, does=entry["does"], parameters=tuple(entry["parameters"].items()), requests=tuple(entry["requests"]))
        for tool, entry in _file()["tools"].items()
    )


@cache
def values(pool: str, split: str) -> Sequence[str | int]:
    """What requests of a split may say."""
    if pool in _INTEGERS:
        return tuple(_INTEGERS[pool])
    if pool == "time":
        return _TIMES
    words = tuple(word.strip() for word in _file()["pools"][pool].split(","))
    return words if len(words) <= _SMALL else words[SPLITS.index(split) :: 2]


def _type(pool: str) -> str:
    return "integer" if pool in _INTEGERS else "string"


@cache
def _file() -> dict[str, dict[str, object]]:
    return tomllib.loads((files(__package__) / "requests.toml").read_text(encoding="utf-8"))
