"""Stacked bars on one scale, one above the other, as wide as the page. A bar's text keeps its size on a phone and on paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sdpo.report.markup import Markup, as_text, element, together

LABELLED = 0.07
"""Least share of the widest bar that a part needs for a number inside it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A piece of a bar."""

    style: str
    """Its class in the page's style sheet, which has the colour."""
    size: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A whole, in pieces."""

    label: str
    parts: tuple[Part, ...]

    @property
    def size(self) -> float:
        return sum(part.size for part in self.parts)


def stacked_bars(bars: Sequence[Bar], names: Mapping[str, str], *, unit: str) -> Markup:
    """All on the scale of the longest. ``names``: of the styles, in the order of the legend, which shows those that there are."""
    longest = max((bar.size for bar in bars), default=0.0) or 1.0
    used = {part.style for bar in bars for part in bar.parts}
    legend = [element("li", swatch(style), name) for style, name in names.items() if style in used]
    drawn = [element("div", _heading(bar, unit), _drawn(bar, names, longest, unit), class_="bar") for bar in bars]
    return element("div", element("ul", legend, class_="legend"), drawn, class_="bars")


def swatch(style: str) -> Markup:
    """A legend's square."""
    square = f'<rect class="{as_text(style)}" width="14" height="14" rx="3"></rect>'
    return Markup(f'<svg width="14" height="14" aria-hidden="true">{square}</svg>')


def _heading(bar: Bar, unit: str) -> Markup:
    return element("div", element("span", bar.label, class_="of"), element("span", f"{bar.size:.3g} {unit}", class_="total"))


def _drawn(bar: Bar, names: Mapping[str, str], longest: float, unit: str) -> Markup:
    pieces, at = [], 0.0
    for part in bar.parts:
        share = part.size / longest
        of_bar = part.size / (bar.size or 1.0)
        said = f"{names[part.style]}: {part.size:.3g} {unit}, {of_bar:.1%}"
        place = f'x="{at:.3%}" width="{share:.3%}" height="100%"'
        pieces.append(f'<rect class="{as_text(part.style)}" {place}><title>{as_text(said)}</title></rect>')
        if share >= LABELLED:
            pieces.append(f'<text x="{at + share / 2:.3%}" y="50%">{of_bar:.0%}</text>')
        at += share
    words = ", ".join(f"{names[part.style]} {part.size:.3g} {unit}" for part in bar.parts)
    label = as_text(f"{bar.label}: {words}")
    return together(Markup(f'<svg width="100%" height="30" role="img" aria-label="{label}">{"".join(pieces)}</svg>'))
