"""Does a text give a right answer away? As it stands, in another case, letter by letter, or backwards."""

from __future__ import annotations

import re
from collections.abc import Iterator

MIN_DISTINCTIVE_CHARS = 5
"""A reference shorter than this ("12", "yes") stands in innocent feedback by chance."""
MIN_DISTINCTIVE_LINE_CHARS = 16


def leak_in(text: str, reference: str, known: str) -> str | None:
    """How ``text`` holds the reference or a line of it, as a few words; None where it does not, or ``known`` holds the same."""
    for secret in distinctive(reference):
        for how, found in _disguises(secret):
            if found.search(text) and not found.search(known):
                return how
    return None


def distinctive(reference: str) -> list[str]:
    """The reference without tags and fences, and its longer lines: what cannot stand in feedback by chance."""
    stripped = bare(reference)
    lines = [line.strip() for line in stripped.splitlines()]
    long = MIN_DISTINCTIVE_LINE_CHARS if len([line for line in lines if line]) > 1 else MIN_DISTINCTIVE_CHARS
    wholes = [whole for whole in (reference.strip(), stripped) if len(whole) >= MIN_DISTINCTIVE_CHARS]
    return list(dict.fromkeys([*wholes, *(line for line in lines if len(line) >= long)]))


def bare(reference: str) -> str:
    """The reference without tags, fences and other marks around it."""
    return re.sub(r"</?\w+>|```\w*|\\boxed|\*\*", "\n", reference).strip()


def _disguises(secret: str) -> Iterator[tuple[str, re.Pattern[str]]]:
    """The ways in which a secret is looked for, each with its words."""
    yield "", re.compile(re.escape(secret))
    yield " in another case", re.compile(re.escape(secret), re.IGNORECASE)
    if secret != secret[::-1]:
        yield " backwards", re.compile(re.escape(secret[::-1]), re.IGNORECASE)
    letters = [re.escape(char) for char in secret if char.isalnum()]
    if MIN_DISTINCTIVE_CHARS <= len(letters) <= _MOST_LETTERS:
        spaced = r"[\W_]{1,3}".join(letters)
        yield " letter by letter", re.compile(rf"(?<![^\W_]){spaced}(?![^\W_])", re.IGNORECASE)


_MOST_LETTERS = 500
