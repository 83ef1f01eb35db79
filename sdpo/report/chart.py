"""Curves with bands as one SVG, by itself or as a part of a page.

By itself it is readable in light and dark. As a part of a page it takes the page's colours and legend. Curves are told apart by
their colour and by their dashes, so also by the colour-blind and on paper.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sdpo.report.markup import Markup, as_text

WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 56, 150, 34, 44
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999")
"""Told apart by the colour-blind too (Okabe and Ito, https://jfly.uni-koeln.de/color/)."""
DASHES = ("", "7 3", "2 3", "9 3 2 3", "4 2", "12 4", "1 2")
MAX_POINTS = 60
"""As many dots a curve has; with more they would hide it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """A curve with the standard error around it; equally many of each."""

    label: str
    xs: tuple[float, ...]
    ys: tuple[float, ...]
    errors: tuple[float, ...]
    """0 where there is one run."""
    runs: tuple[tuple[tuple[float, ...], tuple[float, ...]], ...] = ()
    """The xs and ys of single runs, to be drawn thinly beside their mean."""

    @staticmethod
    def of_runs(label: str, runs: Sequence[tuple[Sequence[float], Sequence[float]]]) -> Series:
        """Mean and standard error over runs, each the xs and ys it was looked at. A run that ended early stays at its last y."""
        return _averaged(label, runs, sorted({x for run_xs, _ in runs for x in run_xs}))

    @staticmethod
    def where_all_have_been(label: str, runs: Sequence[tuple[Sequence[float], Sequence[float]]]) -> Series:
        """The same from the last of the runs' beginnings to the first of their ends, each run beside it. None may be empty."""
        first, last = max(xs[0] for xs, _ in runs), min(xs[-1] for xs, _ in runs)
        mean = _averaged(label, runs, sorted({x for run_xs, _ in runs for x in run_xs if first <= x <= last}))
        singles = tuple((tuple(xs), tuple(ys)) for xs, ys in runs) if len(runs) > 1 else ()
        return Series(label=label, xs=mean.xs, ys=mean.ys, errors=mean.errors, runs=singles)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """How large a chart is and where its curves lie, pixels."""

    width: float = WIDTH
    height: float = HEIGHT
    left: float = LEFT
    right: float = RIGHT
    top: float = TOP
    bottom: float = BOTTOM
    is_part_of_a_page: bool = False
    """The page has the legend and the colours; a point says its numbers where the pointer rests on it."""


ALONE = Frame()
IN_PAGE = Frame(width=400, height=260, left=48, right=14, top=30, bottom=42, is_part_of_a_page=True)


def line_chart(
    title: str,
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    y_range: tuple[float, float] | None = (0.0, 1.0),
    frame: Frame = ALONE,
    y_text: Callable[[float], str] = "{:g}".format,
) -> Markup:
    """The SVG's text. ``y_range``: None for that of the series. ``y_text``: how a y is written."""
    axes = _Axes(series, y_range, frame)
    middle_x, middle_y = (frame.left + frame.width - frame.right) / 2, (frame.top + frame.height - frame.bottom) / 2
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {frame.width} {frame.height}" font-family="sans-serif" '
        f'font-size="12" role="img" aria-label="{as_text(title)}">',
        "" if frame.is_part_of_a_page else _STYLE,
        f'<text class="title" x="{0 if frame.is_part_of_a_page else frame.left}" y="18" font-size="14">{as_text(title)}</text>',
        f'<text x="{middle_x}" y="{frame.height - 8}" text-anchor="middle">{as_text(x_label)}</text>',
        f'<text transform="translate(12 {middle_y}) rotate(-90)" text-anchor="middle">{as_text(y_label)}</text>',
        *axes.grid(y_text),
    ]
    for index, one in enumerate(series):
        parts += _curve(one, index, axes)
        if frame.is_part_of_a_page:
            parts += _points_of(one, index, axes, x_label, y_text)
        else:
            parts += _legend(one, index, frame)
    return Markup("\n".join(part for part in [*parts, "</svg>\n"] if part))


def short(number: float) -> str:
    """A number in few characters: ``1.5M``, ``20k``, ``0.25``."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{number / size:.4g}{letter}"
    return f"{number:.4g}"


class _Axes:
    """The axes of a chart, which place a point in it, in pixels."""

    def __init__(self, series: Sequence[Series], y_range: tuple[float, float] | None, frame: Frame) -> None:
        xs = [x for one in series for x in (*one.xs, *(x for run_xs, _ in one.runs for x in run_xs))]
        self._frame = frame
        self._high_x = max(xs, default=1.0) or 1.0
        self._low_x = min([*xs, 0.0] if frame.is_part_of_a_page else xs, default=0.0)
        self._low_y, self._high_y = y_range or _range(series)

    def place(self, x: float, y: float) -> tuple[float, float]:
        frame = self._frame
        across = (x - self._low_x) / ((self._high_x - self._low_x) or 1.0)
        up = (min(max(y, self._low_y), self._high_y) - self._low_y) / ((self._high_y - self._low_y) or 1.0)
        return (
            frame.left + across * (frame.width - frame.left - frame.right),
            frame.height - frame.bottom - up * (frame.height - frame.top - frame.bottom),
        )

    def grid(self, y_text: Callable[[float], str]) -> list[str]:
        parts = []
        for y in _ticks(self._low_y, self._high_y):
            (x1, at), (x2, _) = self.place(self._low_x, y), self.place(self._high_x, y)
            parts.append(f'<line class="grid" x1="{x1:.1f}" x2="{x2:.1f}" y1="{at:.1f}" y2="{at:.1f}"/>')
            parts.append(f'<text x="{x1 - 6:.1f}" y="{at + 4:.1f}" text-anchor="end">{as_text(y_text(y))}</text>')
        for x in _ticks(self._low_x, self._high_x):
            at, below = self.place(x, self._low_y)
            parts.append(f'<text x="{at:.1f}" y="{below + 16:.1f}" text-anchor="middle">{short(x)}</text>')
        return parts


_STYLE = "<style>text{fill:#444}.grid{stroke:#8884}@media(prefers-color-scheme:dark){text{fill:#ccc}}</style>"


def _style(index: int) -> tuple[str, str]:
    """A curve's colour and dashes, as attributes."""
    dash = DASHES[index % len(DASHES)]
    return COLOURS[index % len(COLOURS)], f' stroke-dasharray="{dash}"' if dash else ""


def _curve(one: Series, index: int, axes: _Axes) -> list[str]:
    colour, dash = _style(index)
    named = f'class="curve{index % len(COLOURS)}"'
    parts = []
    for xs, ys in one.runs:
        thin = _points([axes.place(x, y) for x, y in zip(xs, ys, strict=True)])
        parts.append(f'<polyline {named} points="{thin}" fill="none" stroke="{colour}" stroke-width="1" opacity="0.35"/>')
    if any(one.errors):
        upper = [axes.place(x, y + e) for x, y, e in zip(one.xs, one.ys, one.errors, strict=True)]
        lower = [axes.place(x, y - e) for x, y, e in zip(one.xs, one.ys, one.errors, strict=True)]
        parts.append(f'<polygon {named} points="{_points([*upper, *reversed(lower)])}" fill="{colour}" opacity="0.2"/>')
    line = _points([axes.place(x, y) for x, y in zip(one.xs, one.ys, strict=True)])
    return [*parts, f'<polyline {named} points="{line}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>']


def _points_of(one: Series, index: int, axes: _Axes, x_label: str, y_text: Callable[[float], str]) -> list[str]:
    """A dot with its numbers, where they do not hide the curve."""
    if len(one.xs) > MAX_POINTS:
        return []
    colour, _ = _style(index)
    parts = []
    for x, y, error in zip(one.xs, one.ys, one.errors, strict=True):
        across, down = axes.place(x, y)
        said = f"{one.label}: {y_text(y)}" + (f" ± {y_text(error)}" if error else "") + f" at {short(x)} {x_label}"
        parts.append(
            f'<circle class="curve{index % len(COLOURS)}" cx="{across:.1f}" cy="{down:.1f}" r="2.5" fill="{colour}">'
            f"<title>{as_text(said)}</title></circle>"
        )
    return parts


def _legend(one: Series, index: int, frame: Frame) -> list[str]:
    colour, dash = _style(index)
    at, x = frame.top + 7 + 18 * index, frame.width - frame.right + 8
    return [
        f'<line x1="{x}" x2="{x + 18}" y1="{at}" y2="{at}" stroke="{colour}" stroke-width="3"{dash}/>',
        f'<text x="{x + 24}" y="{at + 4}">{as_text(one.label)}</text>',
    ]


def _averaged(label: str, runs: Sequence[tuple[Sequence[float], Sequence[float]]], xs: Sequence[float]) -> Series:
    columns = [[_at(x, run_xs, run_ys) for run_xs, run_ys in runs] for x in xs]
    means = [sum(column) / len(column) for column in columns]
    errors = [
        math.sqrt(sum((y - mean) ** 2 for y in column) / (len(column) - 1) / len(column)) if len(column) > 1 else 0.0
        for column, mean in zip(columns, means, strict=True)
    ]
    return Series(label=label, xs=tuple(xs), ys=tuple(means), errors=tuple(errors))


def _at(x: float, xs: Sequence[float], ys: Sequence[float]) -> float:
    """Linear between neighbours, constant beyond the ends."""
    if x <= xs[0]:
        return ys[0]
    place = bisect_left(xs, x)
    if place == len(xs):
        return ys[-1]
    share = (x - xs[place - 1]) / (xs[place] - xs[place - 1])
    return ys[place - 1] + share * (ys[place] - ys[place - 1])


def _range(series: Sequence[Series]) -> tuple[float, float]:
    means = [y + sign * e for one in series for y, e in zip(one.ys, one.errors, strict=True) for sign in (-1, 1)]
    ends = [*means, *(y for one in series for _, ys in one.runs for y in ys)] or [0.0, 1.0]
    low, high = min(ends), max(ends)
    return (low, high) if high > low else (low - (abs(low) or 1.0) / 2, high + (abs(high) or 1.0) / 2)


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers in the range."""
    span = (high - low) or 1.0
    unit = 10.0 ** math.floor(math.log10(span / 5.0))
    step = next(unit * factor for factor in (1.0, 2.0, 5.0, 10.0) if span / (unit * factor) <= 6.0)
    first = math.ceil(low / step - 1e-9)
    return [round(place * step, 10) for place in range(first, math.floor(high / step + 1e-9) + 1)]


def _points(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
