"""The tables of a report: held-out success, alarms, differences between configs, and what is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from sdpo.report.groups import Difference, Estimate, RunGroup, after, before, differences, estimate, last_common_step
from sdpo.report.markup import Markup, cut, element, together
from sdpo.report.record import RunRecord
from sdpo.types import Metrics

MAX_VALUE = 300
"""Characters of a config value that are shown."""
MAX_ALARMS = 60
NOTHING = "–"


def table(head: Iterable[str], rows: Iterable[Iterable[str | Markup]], *, class_: str | None = None) -> Markup:
    """The first cell of a row is its heading. Wider than the screen it scrolls by itself."""
    body = [
        element("tr", [element("th", cell, scope="row") if place == 0 else element("td", cell) for place, cell in enumerate(row)])
        for row in rows
    ]
    top = element("tr", [element("th", cell, scope="col") for cell in head])
    return element("div", element("table", element("thead", top), element("tbody", body), class_=class_), class_="scroll")


def heldout_table(groups: Sequence[RunGroup]) -> Markup:
    """Before and after training, by group and within it by run."""
    rows = []
    for group in groups:
        rows.append([element("b", group.title), *_heldout_cells(group)])
        if len(group.runs) > 1:
            rows += [
                [element("span", run.name, class_="member"), *_heldout_cells(RunGroup(label=run.name, runs=(run,)))]
                for run in group.runs
            ]
    head = ("", "steps", "before", "after", "change", "pass@k", "teacher lift", "response tokens")
    return table(head, rows, class_="numbers")


def heldout_change(group: RunGroup) -> Estimate | None:
    """Change of success, over the runs that were evaluated at before and after; a lone run's error is not known."""
    later = after(group)

    def change(run: RunRecord) -> float | None:
        old, new = before(run) or {}, later(run) or {}
        return new["heldout/success"] - old["heldout/success"] if "heldout/success" in old and "heldout/success" in new else None

    return estimate(group, change, lambda run: None)


def at_evaluation(
    group: RunGroup, evaluation_of_run: Callable[[RunRecord], Metrics | None], name: str, error: str = ""
) -> Estimate | None:
    """A number of one of the runs' evaluations. ``error``: the name of the one that a lone run recorded."""
    return estimate(
        group, lambda run: (evaluation_of_run(run) or {}).get(name), lambda run: (evaluation_of_run(run) or {}).get(error)
    )


def percent(number: Estimate | None, *, is_signed: bool = False) -> str:
    """``62.5 ± 3.1 %``"""
    if number is None:
        return NOTHING
    error = "" if number.error is None else f" ± {number.error * 100:.1f}"
    return f"{number.mean * 100:+.1f}{error} %" if is_signed else f"{number.mean * 100:.1f}{error} %"


def alarms_table(groups: Sequence[RunGroup]) -> Markup:
    """The first of each run, in order of steps; how many more there are."""
    parts = []
    for group in groups:
        for run in group.runs:
            rows = [
                (run.name, str(alarm.step), cut(alarm.guard, 80), cut(alarm.sentence, 2000)) for alarm in run.alarms[:MAX_ALARMS]
            ]
            parts += rows
            if len(run.alarms) > MAX_ALARMS:
                parts.append((run.name, "", "", f"… and {len(run.alarms) - MAX_ALARMS:,} more in alarms.jsonl"))
    if not parts:
        return element("p", "No alarm was raised.")
    return table(("run", "step", "guard", "what was expected, what was found, what to do"), parts, class_="words")


def differences_tables(groups: Sequence[RunGroup]) -> Markup:
    """What is set differently, and apart from it what only some of them have at all."""
    known = [group for group in groups if group.config]
    if len(known) < 2:
        return element("p", "There is nothing to compare: one config.")
    found = differences(groups)
    shared, partial = [row for row in found if row.is_everywhere], [row for row in found if not row.is_everywhere]
    head = ("key", *(group.label for group in known))
    return together(
        table(head, map(_difference, shared), class_="words") if shared else element("p", "No key that all have differs."),
        element(
            "details",
            element("summary", f"{len(partial)} keys that only some of them have"),
            table(head, map(_difference, partial), class_="words"),
        )
        if partial
        else None,
    )


def missing_list(groups: Sequence[RunGroup]) -> Markup | None:
    """What the runs did not record, or lost."""
    said: Mapping[str, list[str]] = {run.name: _missing(run, group) for group in groups for run in group.runs}
    items = [element("li", element("b", name), ": ", "; ".join(what), ".") for name, what in said.items() if what]
    return element("aside", element("h2", "What is missing"), element("ul", items), class_="missing") if items else None


def _missing(run: RunRecord, group: RunGroup) -> list[str]:
    others = [other for other in group.runs if other is not run]
    same_seed = [other.name for other in others if other.config.get("seed") == run.config.get("seed")]
    shared = [f"it has the seed of {', '.join(same_seed)}, so their difference is no spread over seeds"] if same_seed else []
    most = max((len(other.steps) for other in others), default=0)
    short = [f"{len(run.steps)} of the {most} steps that another seed took; means end there"] if 0 < len(run.steps) < most else []
    return [*run.missing, *shared, *short]


def _heldout_cells(group: RunGroup) -> list[str]:
    """Success apart, the rest as ``before → after``."""
    evaluations, step = (before, after(group)), last_common_step(group)
    success = [at_evaluation(group, evaluation, "heldout/success", "heldout/success_se") for evaluation in evaluations]
    solved = [at_evaluation(group, evaluation, "heldout/pass_at_k") for evaluation in evaluations]
    lift = [at_evaluation(group, evaluation, "lift", "lift/se") for evaluation in evaluations]
    tokens = [at_evaluation(group, evaluation, "heldout/response_tokens") for evaluation in evaluations]
    return [
        NOTHING if step is None else f"{step:.0f}",
        *map(percent, success),
        percent(heldout_change(group), is_signed=True),
        _to([percent(number) for number in solved]),
        _to([percent(number, is_signed=True) for number in lift]),
        _to([NOTHING if number is None else f"{number.mean:.1f}" for number in tokens]),
    ]


def _to(two: Sequence[str]) -> str:
    return NOTHING if set(two) == {NOTHING} else " → ".join(two)


def _difference(row: Difference) -> list[Markup | str]:
    return [element("code", row.key), *(cut(_value(value), MAX_VALUE) for value in row.values)]


def _value(value: object) -> str:
    match value:
        case None:
            return "none"
        case bool():
            return str(value).lower()
        case _:
            return str(value)
