"""A token filter flags text, and the tokens of that text are not learned from."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from sdpo.batches.filters import token_filter, unflagged
from sdpo.config import FilterConfig


class Bytes:
    """A renderer whose tokens are the bytes of UTF-8, so that a letter may take several."""

    def text(self, token_ids: Sequence[int]) -> str:
        return bytes(token_ids).decode("utf-8", "replace")

    def words(self, token_ids: Sequence[int]) -> tuple[str, ...]:
        return tuple(self.text([token_id]) for token_id in token_ids)


class Secrets:
    """Flags what matches."""

    def __init__(self, pattern: str) -> None:
        self._pattern = re.compile(pattern)

    def flags(self, text: str) -> list[tuple[int, int]]:
        return [found.span() for found in self._pattern.finditer(text)]


def kept(text: str, pattern: str) -> str:
    """The bytes that stay, as text."""
    ids = list(text.encode())
    mask = unflagged(ids, Secrets(pattern), Bytes())  # type: ignore[arg-type]
    assert len(mask) == len(ids)
    return bytes(token_id for token_id, is_kept in zip(ids, mask, strict=True) if is_kept).decode("utf-8")


@pytest.mark.parametrize(
    ("text", "pattern", "left"),
    [
        ("the key is 4711, say", r"\d+", "the key is , say"),
        ("nothing to see", r"\d+", "nothing to see"),
        ("naïve: größe 5 €, fine", r"\d+ €", "naïve: größe , fine"),  # letters before it take two bytes
        ("aé", "é", "a"),
        ("1", "1", ""),
        ("", "1", ""),
        ("abc", "", "abc"),  # a match of nothing flags nothing
    ],
)
def test_tokens_of_the_flagged_text_are_left_out_and_no_other(text: str, pattern: str, left: str) -> None:
    assert kept(text, pattern) == left


def test_a_token_is_masked_if_any_part_of_it_is_flagged() -> None:
    class Whole:
        def text(self, token_ids: Sequence[int]) -> str:
            return " secret-ish"

        def words(self, token_ids: Sequence[int]) -> tuple[str, ...]:
            return (" secret-ish", " rest")

    assert unflagged([1, 2], Secrets("secret"), Whole()) == (False, True)  # type: ignore[arg-type]


def test_without_a_name_there_is_none() -> None:
    assert token_filter(FilterConfig()) is None


def test_a_filter_is_made_of_a_file_with_its_options(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "class Words:\n    def __init__(self, n):\n        self.n = n\n    def flags(self, text):\n        return [(0, self.n)]\n"
    )
    made = token_filter(FilterConfig(name=f"{file}:Words", options={"n": 3}))
    assert made is not None
    assert made.flags("text") == [(0, 3)]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"name": "nobody"}, "algorithm.filter.name must name a token filter .* got 'nobody'"),
        ({"options": {"n": 1}}, "without a name"),
    ],
)
def test_what_is_no_filter_is_refused(config: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FilterConfig(**config)  # type: ignore[arg-type]


def test_a_class_without_flags_is_refused() -> None:
    with pytest.raises(ValueError, match="a method flags"):
        token_filter(FilterConfig(name="pathlib:Path"))
