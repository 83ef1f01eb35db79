"""Stacked bars: on one scale, well-formed, and deaf to what their labels say."""

from __future__ import annotations

import pytest

from sdpo.report.bars import Bar, Part, stacked_bars
from tests.report.html import Page


def bar(label: str, *sizes: float) -> Bar:
    return Bar(label=label, parts=tuple(Part(style=f"style{place}", size=size) for place, size in enumerate(sizes)))


NAMES = {"style0": "one", "style1": "two", "style2": "three"}


def rects(page: Page) -> list[tuple[float, float]]:
    """Left edge and width of each piece, per cent."""
    found = [given for tag, given in page.elements if tag == "rect" and given["width"].endswith("%")]
    return [(float(given["x"].rstrip("%")), float(given["width"].rstrip("%"))) for given in found]


def test_bars_share_the_scale_of_the_longest_and_their_pieces_follow_each_other() -> None:
    page = Page(stacked_bars([bar("a", 1.0, 3.0), bar("b", 1.0, 1.0)], NAMES, unit="s"))
    assert rects(page) == [(0.0, 25.0), (25.0, 75.0), (0.0, 25.0), (25.0, 25.0)]


def test_the_legend_has_what_is_drawn_and_nothing_else() -> None:
    page = Page(stacked_bars([bar("a", 1.0, 3.0)], NAMES, unit="s"))
    assert "two" in page.text
    assert "three" not in page.text


@pytest.mark.parametrize("bars", [[], [bar("a")], [bar("a", 0.0, 0.0)], [bar("<b>&\x1b\ud800", 1e-300, 1e300)]])
def test_no_bar_is_too_odd(bars: list[Bar]) -> None:
    page = Page(stacked_bars(bars, NAMES, unit="s"))
    assert all(0.0 <= x <= 100.0 and 0.0 <= width <= 100.0 for x, width in rects(page))
