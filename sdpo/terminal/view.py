"""What the live view shows of a run, line by line, on a terminal of any width. Pure: what is seen goes in, lines come out.

Nothing wraps: what has no room loses its curve first, then its long words, then its end. Under ``_FRAMED`` columns there is no
frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import TypeVar

from rich.cells import cell_len, set_cell_size
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.panel import Panel
from rich.text import Text

from sdpo.guards.alarms import Alarm
from sdpo.terminal.printable import printable

WIDEST = 100
"""Columns; more would only pull labels and numbers apart."""
_FRAMED, _WORDY, _LEAST_CURVE, _LONGEST_CURVE = 36, 64, 8, 32
PHASES = {
    "start": ("starting Ray, vLLM and DeepSpeed", "starting"),
    "generate": ("generating and verifying", "generating"),
    "hindsight": ("choosing hints", "hints"),
    "learn": ("learning", "learning"),
    "record": ("writing what hindsight says of tokens", "recording"),
    "sync": ("sending weights to the engine", "sync"),
    "evaluate": ("evaluating held-out tasks", "evaluating"),
    "lift": ("evaluating the teacher on held-out tasks", "the teacher"),
    "save": ("saving a checkpoint", "saving"),
    "rebuild": ("rebuilding the learner from the last checkpoint", "rebuilding"),
}
"""What a run does, at length and in short."""
SHOWN = (
    ("success", "success rate", "success", "{:.1%}"),
    ("reward", "reward", "reward", "{:.3f}"),
    ("hindsight", "with hindsight", "hindsight", "{:.1%}"),
    ("response_tokens", "response length", "length", "{:.1f} tokens"),
    ("divergence", "student–teacher divergence", "divergence", "{:.4f} nats"),
    ("entropy", "entropy", "entropy", "{:.3f} nats"),
    ("loss", "loss", "loss", "{:+.4f}"),
    ("loss/supervised", "cross-entropy", "cross-ent.", "{:.4f} nats"),
    ("tokens_per_s", "generation", "speed", "{:.0f} tokens/s"),
)
"""Metrics with a curve: name, label at length and in short, form of the last value."""
STOPPING = "stopping after this step, with a checkpoint; Ctrl-C once more stops at once"
_BARS = "▁▂▃▄▅▆▇█"
_T = TypeVar("_T")


@dataclass(slots=True, kw_only=True)
class Seen:
    """What there is to show."""

    title: str
    num_steps: int
    """0: a command without steps."""
    step: int = 0
    phase: str = "start"
    phase_s: float = 0.0
    """Seconds since the phase began."""
    waits_for: str = ""
    """What the phase cannot go on without; empty: there is nothing to say of it."""
    done: int = 0
    total: int = 0
    """How many the phase counts up to; 0: it counts nothing."""
    num_tokens: int = 0
    eta_s: float | None = None
    """None: not known yet."""
    is_stopping: bool = False
    history: dict[str, list[float]] = field(default_factory=dict)
    """A value a step, by metric."""
    heldout: list[tuple[int, float]] = field(default_factory=list)
    """Steps and success."""
    lifts: list[tuple[int, str]] = field(default_factory=list)
    """Steps and the teacher's lift in words."""
    alarms: Sequence[Alarm] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    label: str
    value: str
    curve: Sequence[float] = ()
    """Drawn where there is room."""
    share: float | None = None
    """Drawn as a bar where there is room."""
    style: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """The view as it was drawn."""

    view: RenderableType
    widths: Sequence[int]
    """Columns of its lines."""

    def num_rows(self, width: int) -> int:
        """The rows that it takes on a terminal that was made ``width`` columns wide since, and has wrapped it."""
        return sum(max(1, ceil(columns / max(width, 1))) for columns in self.widths)


def drawn(seen: Seen, width: int) -> Drawn:
    """The view, at most ``width`` columns wide, every line a line of the terminal."""
    width = min(max(width, 1), WIDEST)
    is_framed = width >= _FRAMED
    inner = width - 4 if is_framed else width
    is_wordy = inner >= _WORDY
    lines = [*_laid_out(_now(seen, is_wordy), inner), Text(), *_laid_out(_numbers(seen, is_wordy), inner)]
    title = one_line(seen.title)
    if is_framed:
        return Drawn(view=Panel(Group(*lines), title=escape(title), width=width), widths=[width] * (len(lines) + 2))
    lines.insert(0, _cut(Text(title, style="bold"), inner))
    return Drawn(view=Group(*lines), widths=[line.cell_len for line in lines])


def one_line(text: str) -> str:
    """The text in a single line, without control characters."""
    return " ".join(printable(text).split())


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def at_work(doing: str, seconds: float, *, waits_for: str = "", done: int = 0, total: int = 0, counted: str = "") -> str:
    """What is done, e.g. ``evaluating held-out tasks: 34 of 192 attempts, 1 min 02 s``. ``total`` 0: nothing is counted."""
    parts = [f"waiting for {waits_for}"] if waits_for else []
    parts += [f"{done} of {total} {counted}".rstrip()] if total else []
    return f"{doing}: {', '.join([*parts, duration(seconds)])}"


def eta(seconds: float | None, num_steps: int) -> str:
    """The remaining time in words; where it is not known, from when on it will be."""
    if seconds is None:
        return "after the first step" if num_steps else "after the first answers"
    return duration(seconds)


def sparkline(values: Sequence[float], width: int = _LONGEST_CURVE) -> str:
    """The last ``width`` values as bars between their smallest and largest; blank where one is not a finite number."""
    shown = values[-width:]
    finite = [value for value in shown if abs(value) < float("inf")]
    low, high = (min(finite), max(finite)) if finite else (0.0, 0.0)
    return "".join(_bar(value, low, high) if abs(value) < float("inf") else " " for value in shown)


def _bar(value: float, low: float, high: float) -> str:
    return _BARS[round((value - low) / (high - low) * (len(_BARS) - 1))] if high > low else _BARS[0]


def _now(seen: Seen, is_wordy: bool) -> list[_Line]:
    """Lines for the step, for what the run does, and for how long it will take."""
    lines = []
    if seen.num_steps:
        share = max(0, seen.step - 1) / seen.num_steps
        lines.append(_Line(label="step", value=f"{seen.step}/{seen.num_steps}", share=share))
    doing = [PHASES[seen.phase][0 if is_wordy else 1], f"{seen.phase_s:.0f} s"]
    if seen.waits_for and is_wordy:
        doing.append(f"waiting for {seen.waits_for}")
    if seen.total:
        doing += [f"{seen.done}/{seen.total}"]
        if seen.num_tokens and seen.phase_s >= 1.0:  # before, it would be any number
            doing += [f"{seen.num_tokens / seen.phase_s:.0f} tokens/s"]
    lines.append(_Line(label="now", value=" · ".join(doing), share=seen.done / seen.total if seen.total else None))
    stopping = STOPPING if is_wordy else STOPPING.partition(",")[0]
    lines.append(_Line(label="ETA", value=stopping if seen.is_stopping else eta(seen.eta_s, seen.num_steps)))
    return lines


def _numbers(seen: Seen, is_wordy: bool) -> list[_Line]:
    lines = []
    for name, label, short, form in SHOWN:
        values = seen.history.get(name, [])
        if any(values) or (values and name != "loss/supervised"):  # only of who supervises
            lines.append(_Line(label=label if is_wordy else short, value=form.format(values[-1]), curve=values))
    for step, success in _first_and_last(seen.heldout):
        lines.append(_Line(label=f"held-out, step {step}" if is_wordy else f"held-out {step}", value=f"{success:.1%}"))
    for step, lift in _first_and_last(seen.lifts):
        lines.append(_Line(label=f"teacher lift, step {step}" if is_wordy else f"lift {step}", value=lift))
    for alarm in seen.alarms[-3:]:
        label = f"alarm, step {alarm.step}" if is_wordy else f"ALARM {alarm.step}"
        lines.append(_Line(label=label, value=alarm.guard.value, style="bold red"))
    return lines


def _first_and_last(found: Sequence[tuple[int, _T]]) -> list[tuple[int, _T]]:
    """The first one and the last two: a long run has more than a screen has lines."""
    return [*found[:1], *found[1:][-2:]]


def _laid_out(lines: Sequence[_Line], width: int) -> list[Text]:
    """The lines with labels below one another, and values, and curves where they have room."""
    widest_label = max((cell_len(line.label) for line in lines), default=0)
    widest_value = max((cell_len(line.value) for line in lines if line.curve or line.share is not None), default=0)
    room = min(width - widest_label - widest_value - 4, _LONGEST_CURVE)
    laid_out = []
    for line in lines:
        text = Text(f"{set_cell_size(line.label, widest_label)}  ", style=line.style)
        tail = _tail(line, room)
        text.append(line.value if tail is None else f"{set_cell_size(line.value, widest_value)}  ")
        laid_out.append(_cut(text if tail is None else text.append_text(tail), width))
    return laid_out


def _tail(line: _Line, room: int) -> Text | None:
    if room < _LEAST_CURVE:
        return None
    if line.share is not None:
        num = round(min(max(line.share, 0.0), 1.0) * room)
        return Text.assemble(("━" * num, "green"), ("─" * (room - num), "bright_black"))
    return Text(sparkline(line.curve, room), style="cyan") if line.curve else None


def _cut(text: Text, width: int) -> Text:
    text.truncate(width, overflow="ellipsis")
    text.no_wrap = True
    return text
