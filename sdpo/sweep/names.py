"""What is each point of a sweep called?

The name is that of its run's folder, so no two are alike. It is readable, so only what sets the point apart is added.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from sdpo.errors import without_credentials

IN_NAME = frozenset({"algorithm", "env", "model", "seed"})
"""Keys that a run's own name speaks of, where none was given."""
LONGEST = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One run of a sweep."""

    name: str
    words: tuple[str, ...]
    """What is given to ``sdpo train``."""


def points(words_of_points: Sequence[tuple[str, ...]], names: Sequence[str]) -> list[Point]:
    """The points, each with a name of its own; ``names`` are those that the runs would have by themselves."""
    found = list(names)
    if len(set(names)) < len(names):
        differing = [index for index, words in enumerate(zip(*words_of_points, strict=True)) if len(set(words)) > 1]
        is_given = any(word.startswith("name=") for word in words_of_points[0])
        found = [
            _named(name, [words[index] for index in differing], spoken_of=frozenset() if is_given else IN_NAME)
            for name, words in zip(names, words_of_points, strict=True)
        ]
    return [
        Point(name=name, words=(*(word for word in words if not word.startswith("name=")), f"name={name}"))
        for name, words in zip(_numbered(found), words_of_points, strict=True)
    ]


def _named(name: str, words: Sequence[str], spoken_of: frozenset[str]) -> str:
    split = [without_credentials(word).lstrip("+").partition("=") for word in words]
    shorts = {key: key.rpartition(".")[2] for key, _, _ in split}
    last = Counter(shorts.values())
    parts = [f"{shorts[key] if last[shorts[key]] == 1 else key}={value}" for key, _, value in split if key not in spoken_of]
    return re.sub(r"[^\w=.,+-]+", "_", "-".join([name, *parts]))[:LONGEST]


def _numbered(names: Sequence[str]) -> list[str]:
    """The names; a second one of the same name gets a number."""
    seen: Counter[str] = Counter()
    found = []
    for name in names:
        seen[name] += 1
        found.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return found
