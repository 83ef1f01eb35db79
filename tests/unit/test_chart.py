"""A chart is well-formed, shows what it is given, and cannot be broken by a label."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from sdpo.report.chart import HEIGHT, LEFT, RIGHT, WIDTH, Series, line_chart

SVG = "{http://www.w3.org/2000/svg}"


def lines(svg: str) -> list[list[tuple[float, float]]]:
    found = ElementTree.fromstring(svg).iter(f"{SVG}polyline")
    return [[tuple(map(float, point.split(","))) for point in line.attrib["points"].split()] for line in found]  # type: ignore[misc]


def test_a_curve_goes_from_its_first_to_its_last_point() -> None:
    one = Series(label="a", xs=(0.0, 50.0, 100.0), ys=(0.0, 1.0, 0.5), errors=(0.0, 0.0, 0.0))
    (line,) = lines(line_chart("t", [one], x_label="x", y_label="y"))
    assert line[0][0] == pytest.approx(LEFT)
    assert line[-1][0] == pytest.approx(WIDTH - RIGHT)
    assert line[1][1] < line[2][1] < line[0][1] < HEIGHT, "up is a smaller number"


def test_runs_become_their_mean_and_its_standard_error_and_one_that_ended_stays_where_it_was() -> None:
    series = Series.of_runs("a", [((0, 10), (0.0, 1.0)), ((0, 5), (0.0, 0.9))])
    assert series.xs == (0, 5, 10)
    assert series.ys == pytest.approx((0.0, 0.7, 0.95))
    assert series.errors == pytest.approx((0.0, 0.2, 0.05))


def test_labels_are_text_and_never_markup() -> None:
    svg = line_chart("<script>", [Series(label="a<b & c", xs=(0.0,), ys=(0.0,), errors=(0.0,))], x_label="</svg>", y_label='"')
    texts = [element.text for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]
    assert {"<script>", "a<b & c", "</svg>", '"'} <= set(texts)


@pytest.mark.parametrize("xs", [(), (3.0,), (0.0, 1e-6), (0.0, 1e9)])
def test_no_range_is_too_odd(xs: tuple[float, ...]) -> None:
    one = Series(label="a", xs=xs, ys=xs, errors=(0.0,) * len(xs))
    ElementTree.fromstring(line_chart("t", [one], x_label="x", y_label="y", y_range=None))
