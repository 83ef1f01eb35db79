"""What changed between a run's verdicts and today's? Counts, means, and how they are shown."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from statistics import mean

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sdpo.terminal.printable import printable

MOST_LINES = 40
"""Most lines of a table; JSON has all of them."""


class Source(str, Enum):
    """Where an attempt was stored."""

    training = "training"
    evaluation = "evaluation"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rescored:
    """An attempt with both of its rewards. None stands for an attempt that is set aside, since its verification broke."""

    source: Source
    step: int
    task: str
    attempt: int | None
    before: float | None
    after: float | None
    feedback: str | None
    """What is said of it today, or the error."""

    @property
    def is_changed(self) -> bool:
        return self.before != self.after


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Some attempts, before and after. Means are over those that are not set aside; None where there are none."""

    attempts: int
    changed: int
    success_before: float | None
    success_after: float | None
    reward_before: float | None
    reward_after: float | None


def summary(rescored: Sequence[Rescored]) -> Summary:
    before = [one.before for one in rescored if one.before is not None]
    after = [one.after for one in rescored if one.after is not None]
    return Summary(
        attempts=len(rescored),
        changed=sum(one.is_changed for one in rescored),
        success_before=_mean([float(reward >= 1.0) for reward in before]),
        success_after=_mean([float(reward >= 1.0) for reward in after]),
        reward_before=_mean(before),
        reward_after=_mean(after),
    )


def _mean(numbers: Sequence[float]) -> float | None:
    return mean(numbers) if numbers else None


def _by_step(rescored: Sequence[Rescored], source: Source) -> dict[int, Summary]:
    steps = sorted({one.step for one in rescored if one.source is source})
    return {step: summary([one for one in rescored if one.source is source and one.step == step]) for step in steps}


def as_json(run: Path, env: str, rescored: Sequence[Rescored], *, gone: int, other: int) -> str:
    return json.dumps(
        {
            "run": str(run),
            "env": env,
            "tasks_gone": gone,
            "questions_changed": other,
            **{
                source.value: {
                    **asdict(summary([one for one in rescored if one.source is source])),
                    "steps": [{"step": step, **asdict(found)} for step, found in _by_step(rescored, source).items()],
                }
                for source in Source
            },
            "changes": [{**asdict(one), "source": one.source.value} for one in rescored if one.is_changed],
        },
        indent=1,
    )


def print_tables(run: Path, env: str, rescored: Sequence[Rescored], *, gone: int, other: int) -> None:
    console = Console(highlight=False)
    changes = Counter((one.task, one.before, one.after) for one in rescored if one.is_changed)
    if changes:
        table = Table("task", "before", "after", "attempts", title="verdicts that changed", title_justify="left")
        for (task, before, after), num in changes.most_common(MOST_LINES):
            table.add_row(escape(printable(task)), _reward(before), _reward(after), str(num))
        console.print(table)
        if len(changes) > MOST_LINES:
            console.print(f"and {len(changes) - MOST_LINES} more, which json=true has")
    for source in Source:
        steps = _by_step(rescored, source)
        shown = {step: found for step, found in steps.items() if found.changed}
        if shown:
            table = Table("step", "attempts", "changed", "success before", "after", title=source.value, title_justify="left")
            for step, found in list(shown.items())[:MOST_LINES]:
                table.add_row(str(step), str(found.attempts), str(found.changed), *_shares(found))
            console.print(table)
    for source in Source:
        of_source = [one for one in rescored if one.source is source]
        if of_source:
            found = summary(of_source)
            then, now = _shares(found)
            console.print(
                f"{source.value}: {found.changed} of {found.attempts} verdicts changed; success {then} before, {now} now"
            )
    if gone:
        console.print(f"{gone} attempts left out: the environment {escape(env)} does not have their task any more")
    if other:
        console.print(f"{other} attempts left out: their task asks something else today")
    console.print(f"{escape(str(run))} was only read", soft_wrap=True)


def _reward(reward: float | None) -> str:
    return "set aside" if reward is None else f"{reward:g}"


def _shares(found: Summary) -> tuple[str, str]:
    shown = [f"{share:.1%}" if share is not None else "-" for share in (found.success_before, found.success_after)]
    return shown[0], shown[1]
