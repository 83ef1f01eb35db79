"""How long are the sentences of the docs? Counted without code, tables, links' addresses and headings.

python -m tests.prose [PAGE …]    # every sentence above 30 words, with its page, and the counts
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
LONG, LONGEST = 30, 40
"""Words: at most one sentence in twenty has more than the first, none more than the second."""
LONG_SHARE = 0.05
_CODE = re.compile(r"^\s*(```|~~~).*?^\s*\1\s*$", re.DOTALL | re.MULTILINE)
_LEFT_OUT = re.compile(r"^\s*(\||#|<|!\[).*$", re.MULTILINE)
_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")
_ITEM = re.compile(r"^\s*(?:[-*]|\d+\.)\s+", re.MULTILINE)
_END = re.compile(r"(?<=[.!?])[*_\"')]*\s+(?=[A-ZΑ-Ω`*_\"'(\[0-9])")
_ABBREVIATION = re.compile(r"\b(e\.g|i\.e|vs|cf|etc|Fig|Eq|No)\.$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """The sentences of one page."""

    path: Path
    sentences: tuple[str, ...]

    def above(self, words: int) -> list[str]:
        return [sentence for sentence in self.sentences if num_words(sentence) > words]


def pages() -> list[Page]:
    """The README and every page of the docs."""
    return [page(path) for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))]


def page(path: Path) -> Page:
    return Page(path=path, sentences=tuple(sentences(path.read_text())))


def sentences(markdown: str) -> Iterator[str]:
    """Of paragraphs and list items; code in backticks counts as a word."""
    text = _LEFT_OUT.sub("\n", _CODE.sub("\n", markdown))
    text = re.sub(r"(`+)(.+?)\1", lambda found: found.group(2).replace(" ", "_").replace(".", "·"), text, flags=re.DOTALL)
    text = _LINK.sub(r"\1", text)
    for paragraph in re.split(r"\n\s*\n", _ITEM.sub("\n\n", text)):
        begun = ""
        for piece in _END.split(" ".join(paragraph.split())):
            begun = f"{begun} {piece}".strip()
            if begun and not _ABBREVIATION.search(begun):
                yield begun
                begun = ""
        if begun:
            yield begun


def num_words(sentence: str) -> int:
    """Dashes, signs and numbers alone are none."""
    return sum(any(letter.isalpha() for letter in word) for word in sentence.split())


def main(words: Sequence[str]) -> int:
    chosen = [page(Path(word)) for word in words] or pages()
    for one in chosen:
        for sentence in one.above(LONG):
            print(f"{one.path.name}, {num_words(sentence)} words: {sentence}")
    for one in chosen:
        counts = f"{len(one.above(LONG))} above {LONG}, {len(one.above(LONGEST))} above {LONGEST}"
        print(f"{one.path.name}: {len(one.sentences)} sentences, {counts}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
