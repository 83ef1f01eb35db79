"""The report's section on time: a stacked bar a run, and the numbers beside it."""

from __future__ import annotations

from collections.abc import Sequence

from sdpo.metrics import METRICS
from sdpo.report.bars import Bar, Part, stacked_bars
from sdpo.report.chart import short
from sdpo.report.groups import RunGroup
from sdpo.report.markup import Markup, element, together
from sdpo.report.phases import Phase, StepTimes, step_times, typical
from sdpo.report.record import RunRecord
from sdpo.report.tables import NOTHING, table

MEMORY = "memory/"
"""What begins so in a step's metrics is shown, where a run recorded any."""


def timing(groups: Sequence[RunGroup]) -> Markup:
    """The times of the median step of each run, the first one aside."""
    named = [(_label(group, run), run, step_times(run.steps)) for group in groups for run in group.runs]
    timed = [(label, run, times) for label, run, times in named if times is not None]
    if not timed:
        return element("p", "No run recorded the times of its steps.")
    bars = [Bar(label=label, parts=_parts(times)) for label, _, times in timed]
    return together(
        stacked_bars(bars, {_style(phase): phase.value for phase in Phase}, unit="s"),
        _numbers(timed),
        _rates_and_memory(named),
    )


def rates(run: RunRecord) -> tuple[float | None, float | None]:
    """Tokens a second of generation and of learning, in the median step."""
    learned = [
        {"rate": step["learned_tokens"] / step["time/learn_s"]}
        for step in run.steps
        if step.get("time/learn_s", 0.0) > 0.0 and "learned_tokens" in step
    ]
    return typical(run.steps, "tokens_per_s"), typical(learned, "rate")


def _label(group: RunGroup, run: RunRecord) -> str:
    return run.name if group.label == run.name else f"{group.label} · {run.name}"


def _parts(times: StepTimes) -> tuple[Part, ...]:
    return tuple(Part(style=_style(phase), size=seconds) for phase, seconds in times.seconds.items() if seconds > 0.0)


def _style(phase: Phase) -> str:
    return f"phase-{phase.name}"


def _numbers(timed: Sequence[tuple[str, RunRecord, StepTimes]]) -> Markup:
    found = [phase for phase in Phase if any(phase in times.seconds for _, _, times in timed)]
    rows = []
    for label, _, times in timed:
        seconds = [_seconds(times.seconds.get(phase)) for phase in found]
        rows.append([label, str(times.num_steps), _seconds(times.total_s), *seconds])
    head = ("median seconds", "steps", "step", *(phase.value for phase in found))
    return table(head, rows, class_="numbers")


def _rates_and_memory(runs: Sequence[tuple[str, RunRecord, StepTimes | None]]) -> Markup:
    """Tokens a second of the median step, and the most memory that a run recorded."""
    names = sorted({name for _, run, _ in runs for step in run.steps for name in step if name.startswith(MEMORY)})
    rows = []
    for label, run, _ in runs:
        most = [max((step[name] for step in run.steps if name in step), default=None) for name in names]
        rows.append([label, *map(_rate, rates(run)), *(NOTHING if value is None else short(value) for value in most)])
    units = [f" ({METRICS[name].unit})" if name in METRICS else "" for name in names]
    memory = [f"most memory: {name.removeprefix(MEMORY)}{unit}" for name, unit in zip(names, units, strict=True)]
    return table(("", "sampled tokens/s", "learned tokens/s", *memory), rows, class_="numbers")


def _seconds(seconds: float | None) -> str:
    """As many digits as are of any use."""
    if seconds is None:
        return NOTHING
    return "< 0.01" if 0.0 < seconds < 0.01 else f"{seconds:.2f}" if seconds < 100.0 else f"{seconds:.0f}"


def _rate(rate: float | None) -> str:
    return NOTHING if rate is None else short(float(f"{rate:.3g}"))
