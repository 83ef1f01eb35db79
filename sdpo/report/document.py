"""The report as one HTML page: no script, no network, nothing that needs another file.

Whatever stands in it went through ``markup.py``, so a completion is text. The content security policy allows one style sheet by
its hash and nothing else, and holds even if that were wrong.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path

from sdpo.report.chart import COLOURS, DASHES, IN_PAGE, Series, line_chart, short
from sdpo.report.curves import Axis, series, total_spent, unit
from sdpo.report.groups import RunGroup, after, before, estimate, last_common_step
from sdpo.report.markup import Markup, cut, element, together
from sdpo.report.samples import samples
from sdpo.report.tables import (
    alarms_table,
    at_evaluation,
    differences_tables,
    heldout_change,
    heldout_table,
    missing_list,
    percent,
)
from sdpo.report.timing import timing

STYLE = Path(__file__).with_name("report.css")
SUCCESS = (
    ("heldout/success", "Held-out success", True),
    ("success", "Success while training", False),
)
"""Over each axis."""
FURTHER = (
    ("reward", "Reward", "mean"),
    ("response_tokens", "Response length", "tokens"),
    ("entropy", "Entropy", "nats"),
    ("hindsight", "Attempts with hindsight", "share"),
    ("divergence", "Student to teacher", "nats"),
    ("credit", "Hindsight credit", "nats"),
    ("loss", "Loss", "nats"),
    ("grad_norm", "Norm of the gradient", ""),
    ("mismatch", "Engine to learner", "nats"),
)
"""Over generations alone: metric, title, unit."""


def report_page(groups: Sequence[RunGroup]) -> str:
    """The whole file."""
    style = STYLE.read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    title = " · ".join(cut(group.label, 60) for group in groups[:6]) + (" …" if len(groups) > 6 else "")
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=f"{_POLICY} style-src 'sha256-{digest}'"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="referrer", content="no-referrer"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", f"{title} – sdpo report"),
        element("style", Markup(style)),
    )
    return f"<!doctype html>\n{element('html', head, element('body', _body(groups, title)), lang='en')}\n"


_POLICY = "default-src 'none'; base-uri 'none'; form-action 'none';"


def _body(groups: Sequence[RunGroup], title: str) -> Markup:
    sections = (
        ("Held-out tasks", _HELDOUT, heldout_table(groups)),
        ("Learning", _BANDS, together(_legend(groups), _success(groups))),
        ("What went with it", None, together(_legend(groups), _further(groups))),
        ("Where the time went", _TIME, timing(groups)),
        ("Alarms", None, alarms_table(groups)),
        ("Differences between the configs", "Seed, name and place aside.", differences_tables(groups)),
        ("A few attempts", _ATTEMPTS, samples(groups)),
    )
    written = [
        element("section", element("h2", name), element("p", note, class_="note") if note else None, content)
        for name, note, content in sections
    ]
    return element(
        "main", element("header", element("h1", title), _subject(groups)), _tiles(groups), missing_list(groups), written
    )


_HELDOUT = (
    "avg@k, pass@k and the teacher's lift before training and at the last step after which all seeds were evaluated at. ± is one "
    "standard error: over seeds where there are several, else over tasks."
)
_BANDS = (
    "Of several seeds the thick line is the mean as far as all of them have been, the band one standard error, and each thin "
    "line one seed."
)
_TIME = (
    "The median of each phase over a run's steps, the first step aside. Every bar is on the same scale. Evaluations and "
    "checkpoints are not in it."
)
_ATTEMPTS = (
    "From the last step that recorded any. Control characters and the like are spelled out, long texts are cut; the run's folder "
    "has them whole."
)


def _subject(groups: Sequence[RunGroup]) -> Markup:
    """What all runs are about, as far as they agree."""
    said = []
    for key, word in (("env.name", "environment"), ("model.name", "model")):
        values = {cut(str(value), 120) for group in groups if (value := group.config.get(key)) is not None}
        if len(values) == 1:
            said.append(together(f"{word} ", element("code", *values)))
    num_runs = sum(len(group.runs) for group in groups)
    said.append(together(f"{num_runs} run{'s' if num_runs > 1 else ''}"))
    return element("p", [together(" · " if place else None, part) for place, part in enumerate(said)], class_="subject")


def _tiles(groups: Sequence[RunGroup]) -> Markup:
    """A group in four lines."""
    tiles = []
    for index, group in enumerate(groups):
        change = heldout_change(group)
        old, new = (percent(at_evaluation(group, evaluation, "heldout/success")) for evaluation in (before, after(group)))
        step = last_common_step(group)
        tiles.append(
            element(
                "div",
                element("h3", _sample_line(index), group.label),
                element("p", element("strong", percent(change, is_signed=True).replace("%", "points")), class_="change"),
                element("p", f"held-out success: {old} before, {new} after {'any step' if step is None else f'step {step:.0f}'}"),
                element("p", _extent(group), class_="note"),
                class_="tile",
            )
        )
    return element("div", tiles, class_="tiles")


def _extent(group: RunGroup) -> str:
    """How much was spent."""
    seeds = sorted({str(run.config.get("seed", "?")) for run in group.runs if run.config})
    said = [f"seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)}"] if seeds else []
    numbers = [estimate(group, lambda run, axis=axis: total_spent(run, axis), lambda run: None) for axis in Axis]  # type: ignore[misc]
    steps = sum(len(run.steps) for run in group.runs) / len(group.runs)
    said.append(f"{steps:g} steps")
    for number, axis in zip(numbers, Axis, strict=True):
        if number is not None:
            said.append(_duration(number.mean) if axis is Axis.time else f"{short(float(f'{number.mean:.3g}'))} {axis.name}")
    return " · ".join(said) + (" a run" if len(group.runs) > 1 else "")


def _duration(seconds: float) -> str:
    return (
        f"{seconds:.0f} s" if seconds < 180.0 else f"{seconds / 60:.0f} min" if seconds < 10_800.0 else f"{seconds / 3600:.1f} h"
    )


def _success(groups: Sequence[RunGroup]) -> Markup:
    """Two measures over three axes."""
    rows = []
    for metric, title, is_heldout in SUCCESS:
        charts = []
        for axis in Axis:
            scale = unit(axis, [run for group in groups for run in group.runs])
            curves = series(groups, metric, axis, scale.size, is_heldout=is_heldout)
            charts.append(_chart(f"{title}, over {axis.name}", curves, scale.label, "", is_share=True))
        rows.append(element("div", charts, class_="charts"))
    return together(rows)


def _further(groups: Sequence[RunGroup]) -> Markup:
    charts = []
    for metric, title, of in FURTHER:
        curves = series(groups, metric, Axis.generations, 1.0, is_heldout=False)
        if any(one.xs or one.runs for one in curves):
            charts.append(_chart(title, curves, Axis.generations.value, of, is_share=of == "share"))
    return element("div", charts, class_="charts") if charts else element("p", "No run recorded any of it.")


def _chart(title: str, curves: Sequence[Series], x_label: str, y_label: str, *, is_share: bool) -> Markup:
    if not any(one.xs or one.runs for one in curves):
        return element("figure", element("p", f"{title}: not recorded.", class_="note"))
    y_text = "{:.0%}".format if is_share else short
    y_range = (0.0, 1.0) if is_share else None
    picture = line_chart(title, curves, x_label=x_label, y_label=y_label, y_range=y_range, frame=IN_PAGE, y_text=y_text)
    return element("figure", picture)


def _legend(groups: Sequence[RunGroup]) -> Markup:
    entries = [element("li", _sample_line(index), group.title) for index, group in enumerate(groups)]
    return element("ul", entries, class_="legend")


def _sample_line(index: int) -> Markup:
    """A piece of a group's curve."""
    place, dash = index % len(COLOURS), DASHES[index % len(DASHES)]
    style = f'class="curve{place}" stroke="{COLOURS[place]}" stroke-width="3"' + (f' stroke-dasharray="{dash}"' if dash else "")
    line = f'<polyline {style} points="1,6 29,6" fill="none"></polyline>'
    return Markup(f'<svg width="30" height="12" aria-hidden="true">{line}</svg>')
