"""A chart is well-formed, shows what it is given, and cannot be broken by a label."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from sdpo.report.chart import COLOURS, HEIGHT, IN_PAGE, LEFT, MAX_POINTS, RIGHT, WIDTH, Series, line_chart, short

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


def test_a_chart_of_a_page_starts_at_nothing_spent_and_its_points_say_their_numbers() -> None:
    one = Series(label="<a>", xs=(1000.0, 2000.0), ys=(0.25, 0.5), errors=(0.1, 0.0))
    svg = line_chart("t", [one], x_label="tokens", y_label="", frame=IN_PAGE, y_text="{:.0%}".format)
    (line,) = lines(svg)
    assert line[0][0] == pytest.approx((IN_PAGE.left + line[1][0]) / 2, abs=0.1)
    said = [element.text for element in ElementTree.fromstring(svg).iter(f"{SVG}title")]
    assert said == ["<a>: 25% ± 10% at 1k tokens", "<a>: 50% at 2k tokens"]
    assert "<style>" not in svg


def test_points_do_not_hide_a_long_curve() -> None:
    many = tuple(map(float, range(MAX_POINTS + 1)))
    one = Series(label="a", xs=many, ys=many, errors=(0.0,) * len(many))
    assert "<circle" not in line_chart("t", [one], x_label="x", y_label="y", y_range=None, frame=IN_PAGE)


def test_curves_differ_in_colour_and_in_dashes() -> None:
    series = [Series(label=str(index), xs=(0.0, 1.0), ys=(0.0, 1.0), errors=(0.0, 0.0)) for index in range(len(COLOURS))]
    found = list(ElementTree.fromstring(line_chart("t", series, x_label="x", y_label="y")).iter(f"{SVG}polyline"))
    assert len({line.get("stroke") for line in found}) == len({line.get("stroke-dasharray") for line in found}) == len(COLOURS)


def test_single_runs_are_thin_lines_beside_their_mean_and_within_the_frame() -> None:
    one = Series.where_all_have_been("a", [((0.0, 1.0), (0.0, 0.4)), ((0.0, 2.0), (0.2, 9.0))])
    assert (one.xs, len(one.runs)) == ((0.0, 1.0), 2)
    svg = line_chart("t", [one], x_label="x", y_label="y", y_range=None, frame=IN_PAGE)
    widths = [line.get("stroke-width") for line in ElementTree.fromstring(svg).iter(f"{SVG}polyline")]
    assert widths == ["1", "1", "2"]
    assert all(IN_PAGE.top <= y <= IN_PAGE.height - IN_PAGE.bottom for line in lines(svg) for _, y in line)


def test_runs_that_never_were_at_the_same_place_have_no_mean() -> None:
    one = Series.where_all_have_been("a", [((0.0, 1.0), (0.0, 0.4)), ((5.0, 6.0), (0.2, 0.3))])
    assert one.xs == ()
    ElementTree.fromstring(line_chart("t", [one], x_label="x", y_label="y", frame=IN_PAGE))


@pytest.mark.parametrize(("number", "text"), [(0.25, "0.25"), (20_000, "20k"), (1_500_000, "1.5M"), (-2e12, "-2T"), (0.0, "0")])
def test_numbers_are_short(number: float, text: str) -> None:
    assert short(number) == text
