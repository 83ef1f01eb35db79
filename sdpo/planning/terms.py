"""One thing that takes memory: how much, where, and by which arithmetic."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

GIB = float(2**30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """A process's share of something."""

    name: str
    num_bytes: float
    arithmetic: str
    """How the bytes come about, with the numbers put in."""
    is_on_host: bool = False
    """In the host's memory, where the process has a GPU."""
    is_passing: bool = False
    """Held for a part of a step only; a torch process keeps what it once took from a GPU all the same."""

    @property
    def gib(self) -> float:
        return self.num_bytes / GIB


def total(terms: Iterable[Term], *, on_host: bool = False) -> float:
    """Bytes of those that lie there."""
    return sum(term.num_bytes for term in terms if term.is_on_host is on_host)


def counted(number: float) -> str:
    """``8.19 G``, ``134.5 M``, ``512``"""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if number >= size:
            return f"{number / (1e3 if unit == 'k' else size):.4g} {unit}"
    return f"{number:.4g}"


def product(*factors: tuple[float, str], over: int = 1) -> str:
    """``2 B x 8.19 G parameters / 4``: factors with their units, divided over so many."""
    told = " x ".join(f"{counted(number)} {unit}".strip() for number, unit in factors)
    return f"{told} / {over}" if over > 1 else told
