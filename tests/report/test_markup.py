"""Text stays text, whatever it holds, and what cannot be seen is spelled out."""

from __future__ import annotations

import pytest

from sdpo.report.markup import Markup, cut, element, spelled, together
from tests.report.html import Page


@pytest.mark.parametrize("text", ["<script>", "</p><b>", "&lt;", '" onload="x', "' onload='x", "<!-- ", "]]>", "<![CDATA["])
def test_a_string_is_never_markup_neither_as_content_nor_as_attribute(text: str) -> None:
    page = Page(element("p", text, title=text))
    assert page.text == text
    assert page.elements == [("p", {"title": text})]


def test_markup_is_built_of_markup_and_lists_and_nothing() -> None:
    assert element("p", element("b", "x"), ["y", None, ("<", Markup("<br>"))], None) == "<p><b>x</b>y&lt;<br></p>"
    assert element("td", "1", class_="a", aria_label="b", scope=None) == '<td class="a" aria-label="b">1</td>'


def test_a_piece_of_markup_is_a_string_again() -> None:
    """So that no slice or replacement is taken for whole elements."""
    assert together(element("b", "x")[1:]) == "b&gt;x&lt;/b&gt;"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("a\r\nb\tc", "a\\r\nb\tc"),
        ("\u202eabc\u200b", "\\u202eabc\\u200b"),
        ("\ud800", "\\ud800"),
        ("\x00", "\\x00"),
        ("naïve – 漢字 🙂\xa0\u3000", "naïve – 漢字 🙂\xa0\u3000"),
    ],
)
def test_what_drives_a_terminal_or_turns_a_line_around_is_spelled_out(text: str, expected: str) -> None:
    assert spelled(text) == expected
    spelled(text).encode()


def test_a_megabyte_is_cut_and_says_so() -> None:
    assert cut("x" * 1_000_000, 10) == "xxxxxxxxxx … and 999,990 more characters"
    assert cut("short", 10) == "short"
