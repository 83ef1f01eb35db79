"""What a run came to, as tables and boxes for its end; on a narrow terminal with fewer words."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from sdpo.terminal.printable import printable
from sdpo.terminal.view import WIDEST

_ROWS = (
    ("heldout/success", "heldout/success_se", "success (avg@k)", "success", 100.0, "%"),
    ("heldout/pass_at_k", None, "pass@k", "pass@k", 100.0, "%"),
    ("heldout/constant", None, "best constant answer", "constant", 100.0, "%"),
    ("heldout/constant_by_kind", None, "best constant of a kind", "of a kind", 100.0, "%"),
    ("heldout/distinct", None, "different answers of a task", "distinct", 100.0, "%"),
    ("heldout/response_tokens", None, "response tokens", "tokens", 1.0, ""),
    ("lift", "lift/se", "teacher lift", "lift", 100.0, "%"),
)
"""Rows for an evaluation: key, key of its standard error, label at length and in short, scale, unit."""
_FULL, _PLAIN = 72, 40
"""Columns from which the table has its words and its lines, and from which it is a table."""


def before_and_after(before: Mapping[str, object], after: Mapping[str, object], width: int = WIDEST) -> RenderableType:
    """Two evaluations side by side, or where there is no room for that, line by line; keys as in ``evaluations.jsonl``."""
    found = [
        (label if width >= _FULL else short, *_compared(before, after, name, error, scale, unit))
        for name, error, label, short, scale, unit in _ROWS
        if name in before or name in after
    ]
    title = f"Held-out tasks, {after['k']} attempts each"
    if width < _PLAIN:
        lines = [f"{label}: {old or '-'} → {new or '-'}{f' ({change})' if change else ''}" for label, old, new, change in found]
        return Group(*(Text(line) for line in (title, *lines)))
    is_full = width >= _FULL
    table = Table(title=title) if is_full else Table.grid(padding=(0, 1))
    heads = ("before (step {})", "after (step {})") if is_full else ("step {}", "step {}")
    table.add_column("")
    for head, evaluation in zip(heads, (before, after), strict=True):
        table.add_column(head.format(evaluation["step"]), justify="right", no_wrap=True)
    table.add_column("change", justify="right", no_wrap=True)
    if not is_full:
        table.add_row("", *(f"step {evaluation['step']}" for evaluation in (before, after)), "change")
    for row in found:
        table.add_row(*row)
    return table if is_full else Group(Text(title), table)


def sample_attempt(attempt: Mapping[str, object], width: int) -> Panel:
    """One attempt with what the environment said of it; model text is shown as text, never as markup."""
    solved = _number(attempt["reward"]) >= 1.0
    body = Text()
    body.append(printable(f"{attempt['question']}\n\n"), style="dim")
    body.append(printable(str(attempt["completion"])).strip() + "\n\n")
    body.append(
        "solved" if solved else f"feedback: {printable(str(attempt['feedback']))}",
        style="green" if solved else "yellow",
    )
    return Panel(body, title=escape(printable(str(attempt["task"]))), width=min(width, WIDEST))


def alarm_line(step: int, guard: str, sentence: str) -> Text:
    """An alarm in a line, in red so that nobody overlooks it."""
    return Text.assemble((f"ALARM after step {step} · {guard}: ", "bold red"), printable(sentence))


def _compared(
    before: Mapping[str, object], after: Mapping[str, object], name: str, error: str | None, scale: float, unit: str
) -> tuple[str, str, str]:
    old, new = (_with_error(evaluation, name, error, scale, unit) for evaluation in (before, after))
    is_known = name in before and name in after
    return old, new, f"{(_number(after[name]) - _number(before[name])) * scale:+.1f}{unit}" if is_known else ""


def _with_error(evaluation: Mapping[str, object], name: str, error: str | None, scale: float, unit: str) -> str:
    """A value with its standard error and unit; empty where the evaluation does not say."""
    if name not in evaluation:
        return ""
    spread = f" ± {_number(evaluation[error]) * scale:.1f}" if error is not None and error in evaluation else ""
    return f"{_number(evaluation[name]) * scale:.1f}{spread}{unit}"


def _number(value: object) -> float:
    assert isinstance(value, int | float)
    return float(value)
