"""``sdpo profile RUN``: where did a step's time go, and what should be changed? Ends in a line of JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sdpo.errors import UserError
from sdpo.report.advice import Advice, advice
from sdpo.report.evidence import Evidence, Machine
from sdpo.report.phases import Phase, StepTimes, step_times, typical
from sdpo.report.record import RunRecord, run_record
from sdpo.report.timing import rates
from sdpo.terminal.printable import printable

BAR = 28
"""Characters of the widest bar."""


def run_profile(words: Sequence[str]) -> int:
    """The exit code. Raises UserError where there is no run, or none that recorded its times."""
    if len(words) != 1:
        raise UserError(f"sdpo profile takes one run folder, e.g. sdpo profile runs/one; got {' '.join(words)!r}.")
    run = run_record(Path(words[0]))
    times = step_times(run.steps)
    if times is None:
        raise UserError(
            f"a profile is made of the times that finished steps recorded (time/… in metrics.jsonl); {words[0]} has none yet."
        )
    given = advice(Evidence(times=times, rows=run.steps, evaluations=run.evaluations, config=run.config, machine=Machine.here()))
    screen = Console(highlight=False)
    screen.print(_table(run, times))
    for line in (*_rates(run), *_beside(run)):
        screen.print(printable(line), markup=False, soft_wrap=True)
    screen.print()
    for one in given:
        screen.print(Text.assemble(("→ ", "bold yellow"), printable(one.sentence)), soft_wrap=True)
    if not given:
        screen.print("Nothing stands out: no rule of sdpo/report/advice.py asks for a change.", markup=False, soft_wrap=True)
    print(json.dumps(_record(run, times, given)))
    return 0


def _table(run: RunRecord, times: StepTimes) -> Table:
    """The phases in the order of a step."""
    what = "its only step" if times.is_first_counted else f"median of {times.num_steps} steps after the first"
    table = Table(title=Text(printable(f"{run.name}: {what}")))
    table.add_column("phase", no_wrap=True)
    for name in ("seconds", "share"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True, min_width=BAR)
    widest = max((times.share(phase) for phase in times.seconds), default=0.0) or 1.0
    for phase, seconds in times.seconds.items():
        bar = "█" * round(BAR * times.share(phase) / widest)
        table.add_row(phase.value, f"{seconds:.3f}", f"{times.share(phase):.1%}", Text(bar, style=_COLOURS[phase]))
    table.add_section()
    table.add_row("step", f"{times.total_s:.3f}", "100.0%", "")
    return table


_COLOURS: Mapping[Phase, str] = {
    Phase.generate: "blue",
    Phase.verify: "bright_blue",
    Phase.hindsight: "yellow",
    Phase.teacher: "bright_yellow",
    Phase.student: "red",
    Phase.optimizer: "magenta",
    Phase.learn: "bright_red",
    Phase.sync: "green",
    Phase.record: "cyan",
    Phase.rest: "white",
}


def _rates(run: RunRecord) -> list[str]:
    generated, learned = rates(run)
    said = [f"generation: {generated:,.0f} sampled tokens/s"] if generated is not None else []
    return said + ([f"learning: {learned:,.0f} tokens/s, student and teacher together"] if learned is not None else [])


def _beside(run: RunRecord) -> list[str]:
    """Times that are no part of a step."""
    ahead, evaluate = (
        typical(run.steps, "time/ahead_s"),
        [evaluation.get("time/evaluate_s", 0.0) for evaluation in run.evaluations],
    )
    saved = sum(step.get("time/save_s", 0.0) for step in run.steps)
    return [
        *([f"generated ahead, beside earlier steps: {ahead:.2f} s a step"] if ahead else []),
        *([f"evaluations: {sum(evaluate):.1f} s in all, {len(evaluate)} of them"] if sum(evaluate) > 0.0 else []),
        *([f"checkpoints: {saved:.1f} s in all"] if saved > 0.0 else []),
    ]


def _record(run: RunRecord, times: StepTimes, given: Sequence[Advice]) -> dict[str, object]:
    generated, learned = rates(run)
    return {
        "run": run.name,
        "steps": times.num_steps,
        "step_s": round(times.total_s, 4),
        "seconds": {phase.name: round(seconds, 4) for phase, seconds in times.seconds.items()},
        "share": {phase.name: round(times.share(phase), 4) for phase in times.seconds},
        "generated_tokens_per_s": generated,
        "learned_tokens_per_s": learned,
        "advice": [
            {"rule": one.rule, "keys": list(one.keys), "found": round(one.found, 4), "limit": one.limit, "sentence": one.sentence}
            for one in given
        ],
        "missing": list(run.missing),
    }
