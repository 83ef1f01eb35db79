"""Which part of a completion is the code?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile

MAX_COMPLETION_CHARS = 1 << 16
_FENCE = "```"
_LANGUAGES = ("", "python", "python3", "py")
_FIRST_WORDS = ("def ", "import ", "from ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """What an answer asks to be run."""

    source: str
    """Not blank; its lines end in ``\\n``."""
    is_fenced: bool


def extract_code(completion: str) -> Code | None:
    """The first block fenced as Python or as nothing that is not blank, to the completion's end if it is not closed.

    Without such a block, the lines from the first that starts a definition or an import; None where there is none.
    Only the first ``MAX_COMPLETION_CHARS`` are read.
    """
    lines = completion[:MAX_COMPLETION_CHARS].replace("\r\n", "\n").replace("\r", "\n").split("\n")
    for language, block in _blocks(lines):
        if language in _LANGUAGES and (source := "\n".join(block) + "\n").strip():
            return Code(source=source, is_fenced=True)
    start = next((i for i, line in enumerate(lines) if line.startswith(_FIRST_WORDS)), None)
    if start is None:
        return None
    unfenced = takewhile(lambda line: _language(line) is None, lines[start:])
    return Code(source="\n".join(unfenced) + "\n", is_fenced=False)


def _blocks(lines: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Language and lines of each fenced block. Any fence ends a block; one that names a language starts the next."""
    start = 0
    while start < len(lines):
        language = _language(lines[start])
        if language is None:
            start += 1
            continue
        end = start + 1
        while end < len(lines) and _language(lines[end]) is None:
            end += 1
        yield language, lines[start + 1 : end]
        start = end if end < len(lines) and _language(lines[end]) else end + 1


def _language(line: str) -> str | None:
    """What a fence names, ``""`` if nothing; None for a line that is no fence."""
    line = line.strip()
    rest = line.removeprefix(_FENCE)
    if rest == line or "`" in rest:
        return None
    return rest.split()[0].lower() if rest.strip() else ""
