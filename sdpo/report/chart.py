"""Curves with bands as one SVG that needs nothing else, readable in light and dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 56, 150, 34, 44
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999")
"""Told apart by the colour-blind too (Okabe and Ito, https://jfly.uni-koeln.de/color/)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """A curve with the standard error around it; equally many of each."""

    label: str
    xs: tuple[float, ...]
    ys: tuple[float, ...]
    errors: tuple[float, ...]
    """0 where there is one run."""

    @staticmethod
    def of_runs(label: str, runs: Sequence[tuple[Sequence[float], Sequence[float]]]) -> Series:
        """Mean and standard error over runs, each the xs and ys it has looked at. A run that ended early stays at its last y."""
        xs = sorted({x for run_xs, _ in runs for x in run_xs})
        columns = [[_at(x, run_xs, run_ys) for run_xs, run_ys in runs] for x in xs]
        means = [sum(column) / len(column) for column in columns]
        errors = [
            math.sqrt(sum((y - mean) ** 2 for y in column) / (len(column) - 1) / len(column)) if len(column) > 1 else 0.0
            for column, mean in zip(columns, means, strict=True)
        ]
        return Series(label=label, xs=tuple(xs), ys=tuple(means), errors=tuple(errors))


def line_chart(
    title: str, series: Sequence[Series], *, x_label: str, y_label: str, y_range: tuple[float, float] | None = (0.0, 1.0)
) -> str:
    """The SVG's text. ``y_range``: None for that of the series."""
    high_x = max((x for one in series for x in one.xs), default=1.0) or 1.0
    low_x = min((x for one in series for x in one.xs), default=0.0)
    low_y, high_y = y_range or _range(series)

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - low_x) / ((high_x - low_x) or 1.0)
        up = (min(max(y, low_y), high_y) - low_y) / ((high_y - low_y) or 1.0)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12" '
        f'role="img" aria-label="{escape(title)}">',
        "<style>text{fill:#444}.grid{stroke:#8884}@media(prefers-color-scheme:dark){text{fill:#ccc}}</style>",
        f'<text x="{LEFT}" y="18" font-size="14">{escape(title)}</text>',
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x_label)}</text>',
        f'<text transform="translate(14 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)" text-anchor="middle">'
        f"{escape(y_label)}</text>",
    ]
    for y in _ticks(low_y, high_y):
        (x1, at), (x2, _) = place(low_x, y), place(high_x, y)
        parts.append(f'<line class="grid" x1="{x1:.1f}" x2="{x2:.1f}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text x="{x1 - 6:.1f}" y="{at + 4:.1f}" text-anchor="end">{y:g}</text>')
    for x in _ticks(low_x, high_x):
        at, below = place(x, low_y)
        parts.append(f'<text x="{at:.1f}" y="{below + 16:.1f}" text-anchor="middle">{x:g}</text>')
    for index, one in enumerate(series):
        colour = COLOURS[index % len(COLOURS)]
        upper = [place(x, y + e) for x, y, e in zip(one.xs, one.ys, one.errors, strict=True)]
        lower = [place(x, y - e) for x, y, e in zip(one.xs, one.ys, one.errors, strict=True)]
        if any(one.errors):
            parts.append(f'<polygon points="{_points([*upper, *reversed(lower)])}" fill="{colour}" opacity="0.2"/>')
        line = _points([place(x, y) for x, y in zip(one.xs, one.ys, strict=True)])
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        at = TOP + 14 + 18 * index
        parts.append(f'<rect x="{WIDTH - RIGHT + 10}" y="{at - 9}" width="12" height="4" fill="{colour}"/>')
        parts.append(f'<text x="{WIDTH - RIGHT + 28}" y="{at - 3}">{escape(one.label)}</text>')
    return "\n".join([*parts, "</svg>\n"])


def _at(x: float, xs: Sequence[float], ys: Sequence[float]) -> float:
    """Linear between neighbours, constant beyond the ends."""
    if x <= xs[0]:
        return ys[0]
    for place in range(1, len(xs)):
        if x <= xs[place]:
            share = (x - xs[place - 1]) / (xs[place] - xs[place - 1])
            return ys[place - 1] + share * (ys[place] - ys[place - 1])
    return ys[-1]


def _range(series: Sequence[Series]) -> tuple[float, float]:
    ends = [(y - e, y + e) for one in series for y, e in zip(one.ys, one.errors, strict=True)] or [(0.0, 1.0)]
    return min(low for low, _ in ends), max(high for _, high in ends)


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers in the range."""
    span = (high - low) or 1.0
    unit = 10.0 ** math.floor(math.log10(span / 5.0))
    step = next(unit * factor for factor in (1.0, 2.0, 5.0, 10.0) if span / (unit * factor) <= 6.0)
    first = math.ceil(low / step - 1e-9)
    return [round(place * step, 10) for place in range(first, math.floor(high / step + 1e-9) + 1)]


def _points(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
