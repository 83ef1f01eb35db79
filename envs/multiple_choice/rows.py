"""What does a row of a multiple-choice file say, and what is refused?

A file is JSON lines, as the authors of SDPO ship SciKnowEval. A row has ``idx``, ``kind`` ("mcq"), ``dataset``, ``answer`` (a
letter), ``prompt`` (question and options) and, where there is one, ``system``. Other keys (``elo``, ``description``, ``tests``,
``embedding``) are left unread.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

MAX_LINE_CHARACTERS = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One question: the payload of its task."""

    place: str
    """``"train.json:3"``, for messages."""
    idx: str
    """Unique in its file and dataset."""
    dataset: str
    system: str
    """Says the format of an answer; empty: there is none."""
    prompt: str
    """The question and its options, as the student sees them."""
    answer: str
    """The right letter, in upper case. Never shown."""

    @property
    def question(self) -> str:
        """What makes two rows the same question: the prompt, but for spaces and case."""
        return " ".join(self.prompt.lower().split())


def read_rows(path: Path) -> tuple[Row, ...]:
    """The rows of a file in its order. Raises ValueError with file, line and rule for the first that breaks one."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # splitlines would cut at U+2028, which JSON leaves alone
    except OSError as error:
        raise ValueError(
            f"multiple_choice needs a readable file of JSON lines; {path}: {error.strerror}: correct the path"
        ) from error
    except UnicodeDecodeError as error:
        raise ValueError(f"multiple_choice reads UTF-8; {path} is not, at byte {error.start}: convert the file") from error
    rows = tuple(read_row(line, f"{path}:{number}") for number, line in enumerate(lines, start=1) if line.strip())
    place_of: dict[tuple[str, str], str] = {}
    for row in rows:
        first = place_of.setdefault((row.dataset, row.idx), row.place)
        if first != row.place:
            raise ValueError(f"{row.place}: idx must be unique within its dataset; {row.idx} stands at {first} too: renumber one")
    return rows


def read_row(line: str, place: str) -> Row:
    """Raises ValueError with ``place`` and the rule that it breaks."""
    if len(line) > MAX_LINE_CHARACTERS:
        raise ValueError(f"{place}: a row must have at most {MAX_LINE_CHARACTERS} characters; got {len(line)}: shorten it")
    try:
        row: object = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{place}: a line must be one JSON object; {error}: write one row a line") from error
    if not isinstance(row, dict):
        raise ValueError(f"{place}: a row must be a JSON object; got a {type(row).__name__}: write the keys of a row")
    kind = _text(row, "kind", place)
    if kind != "mcq":
        raise ValueError(f'{place}: kind must be "mcq" (nothing else can be judged by a letter); got {kind!r}: leave the row out')
    answer = _text(row, "answer", place).strip().upper()
    if not (len(answer) == 1 and "A" <= answer <= "Z"):
        raise ValueError(
            f"{place}: answer must be one letter from A to Z; got {answer[:20]!r}: write the letter of the right option"
        )
    idx = row.get("idx")
    if not isinstance(idx, int | str) or isinstance(idx, bool) or not str(idx).strip():
        raise ValueError(f"{place}: idx must be a whole number or a text; got {idx!r:.40}: number the rows")
    return Row(
        place=place,
        idx=str(idx),
        dataset=_text(row, "dataset", place),
        system=_text(row, "system", place) if row.get("system") else "",
        prompt=_text(row, "prompt", place),
        answer=answer,
    )


def _text(row: Mapping[str, object], key: str, place: str) -> str:
    """A text that is not blank and that can be encoded, so that it can be a prompt."""
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{place}: {key} must be a text that is not blank; got {value!r:.40}: fill it in")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{place}: {key} must be valid Unicode; it holds half of a surrogate pair: correct it") from None
    return value
