"""The docs can be read: no sentence is longer than 40 words, and fewer than one in twenty is longer than 30."""

from __future__ import annotations

import pytest

from tests.prose import LONG, LONG_SHARE, LONGEST, Page, num_words, pages, sentences


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.path.stem)
def test_no_sentence_is_too_long(page: Page) -> None:
    assert page.above(LONGEST) == []


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.path.stem)
def test_few_sentences_are_long(page: Page) -> None:
    """On ten pages sentences had 17 to 31 words on average, and on two more than a third had above 30."""
    assert len(page.above(LONG)) <= max(1, LONG_SHARE * len(page.sentences)), page.above(LONG)


def test_what_is_no_prose_is_not_counted() -> None:
    text = "# A head. And more\n\nOne `two. Three` four.\n\n```\ncode. Code\n```\n\n| a. B | c |\n\n"
    text += "- Five [six](seven.html). Eight,\n  e.g. Nine.\n"
    assert list(sentences(text)) == ["One two·_Three four.", "Five six.", "Eight, e.g. Nine."]


def test_numbers_and_dashes_are_no_words() -> None:
    assert num_words("It takes 12 ± 3 s – at most") == 5
