"""What does the model do without hindsight and with it, on tasks it never learned from?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from rich.table import Table

from sdpo.attempts.survey import Survey
from sdpo.config import HindsightConfig, HintChoice
from sdpo.evaluation.heldout import evaluate
from sdpo.evaluation.lift import teacher_lift
from sdpo.protocols import Watcher

Measured = Mapping[str, float]
"""``plain``, and of each kind of hint ``KIND/lift``, ``KIND/plain``, ``KIND/hindsight``; ``.../se`` are standard errors over
tasks. A number without data is missing."""

KINDS = {"demonstration": HintChoice.demonstration_only, "feedback": HintChoice.feedback_only}


def measure(survey: Survey, hindsight: HindsightConfig, log: Watcher) -> Measured:
    """With the engine's present weights; nothing where there are no held-out tasks to ask."""
    if not survey.tasks_P:
        return {}
    plain = evaluate(survey, log)
    found = {"plain": plain.metrics["heldout/success"], "plain/se": plain.metrics["heldout/success_se"]}
    for kind, choice in KINDS.items():
        # The buffer plays no part in a lift.
        lift = teacher_lift(survey, plain, replace(hindsight, choice=choice, success_buffer=0), log).metrics
        kept = {"lift": "lift", "lift/se": "lift/se", "lift/plain": "plain", "lift/hindsight": "hindsight"}
        found |= {f"{kind}/{name}": lift[key] for key, name in kept.items() if key in lift}
    return found


def in_words(measured: Measured) -> str:
    """In a line, e.g. ``success 29.2% ± 4.5%, lift of demonstration +3.1% ± 4.0%, of feedback -1.0% ± 2.0%``."""
    if not measured:
        return "nothing is measured (evaluation.num_tasks=0)"
    lifts = ", ".join(f"of {kind} {_cell(measured, f'{kind}/lift')}" for kind in KINDS)
    return f"success {_cell(measured, 'plain')}, lift {lifts}"


def table(before: Measured, after: Measured, num_attempts: int) -> Table:
    """Side by side, in per cent."""
    shown = Table(title=f"Held-out tasks, {num_attempts} attempts each")
    for name in ("", "before", "after", "change"):
        shown.add_column(name, justify="left" if not name else "right")
    shown.add_row("success without hindsight", *_cells(before, after, "plain"))
    for kind in KINDS:
        shown.add_row(f"success after {kind}", *_cells(before, after, f"{kind}/hindsight"))
        shown.add_row("  teacher lift of it (± se)", *_cells(before, after, f"{kind}/lift"))
    return shown


def _cells(before: Measured, after: Measured, name: str) -> tuple[str, str, str]:
    change = f"{after[name] - before[name]:+.1%}" if name in before and name in after else ""
    return _cell(before, name), _cell(after, name), change


def _cell(measured: Measured, name: str) -> str:
    if name not in measured:
        return "-"
    error = measured.get(f"{name}/se")
    form = "+.1%" if name.endswith("/lift") else ".1%"
    return f"{measured[name]:{form}}" + ("" if error is None else f" ± {error:.1%}")
