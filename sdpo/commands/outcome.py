"""What a run came to: success before and after, its alarms, and where one ended it, the checkpoint to go on from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from sdpo.commands.conclusion import conclusion
from sdpo.config import Config, Response
from sdpo.guards.fold import folded
from sdpo.learner import checkpoint
from sdpo.run.folder import RunFolder, records
from sdpo.terminal.tables import alarm_line, before_and_after, sample_attempt


def show(screen: Console, folder: RunFolder) -> None:
    """Held-out success before and after, what that means, two attempts with what was said of them, and every alarm."""
    evaluations = records(folder.evaluations)
    if len(evaluations) >= 2:
        before, after = evaluations[0], evaluations[-1]
        screen.print(before_and_after(before, after, screen.width))
        for sentence in conclusion(folder, before, after):
            screen.print(sentence, highlight=False, markup=False, soft_wrap=True)
        attempts = [attempt for attempt in after["attempts"] if "reward" in attempt]
        solved = next((attempt for attempt in attempts if attempt["reward"] >= 1.0), None)
        failed = next((attempt for attempt in attempts if attempt["reward"] < 1.0 and attempt["feedback"]), None)
        for attempt in (solved, failed):
            if attempt is not None:
                screen.print(sample_attempt(attempt, screen.width))
    for alarm in records(folder.alarms):
        screen.print(alarm_line(alarm["step"], alarm["guard"], alarm["sentence"]), highlight=False, soft_wrap=True)
    if (best := _best(folder)) is not None and len(evaluations) >= 2:
        screen.print(_of_the_best(best, evaluations[-1]), highlight=False, markup=False, soft_wrap=True)
    if len(evaluations) >= 2:
        screen.print(f"Everything of this run is in {folder.path}", highlight=False)


def ended_by_alarm(screen: Console, folder: RunFolder, config: Config) -> bool:
    """Whether what the run recorded ends it under this config; then says why and how to go on, and writes ``best.json``."""
    guards = folded(config, records(folder.metrics), records(folder.evaluations))
    alarm = guards.stopped_by
    if alarm is None:
        return False
    is_best = config.guards.response is Response.stop_at_best
    found = _best(folder) if is_best else _newest(folder)
    said = f"guards.response={config.guards.response.value} ended this run after step {alarm.step}, on the alarm "
    said += f"{alarm.guard.value}: {alarm.sentence}\n"
    if found is None:
        screen.print(said + f"{_NONE} {_GO_ON}.", highlight=False, markup=False, soft_wrap=True)
        return True
    counters = checkpoint.counters_of(found)
    if is_best:
        record = {"checkpoint": str(found), "step": counters.step, "heldout/success": counters.score}
        record |= {"alarm": {"guard": alarm.guard.value, "step": alarm.step, "sentence": alarm.sentence}}
        folder.best.write_text(json.dumps(record, indent=1) + "\n")
        said += f"Its best checkpoint is {found}, with a held-out success of {counters.score:.1%} after step {counters.step}."
    else:
        said += f"Its newest checkpoint from before the alarm is {found}."
    said += f" To begin anew from there: name=OTHER model.path={found / checkpoint.POLICY}. {_GO_ON}."
    screen.print(said, highlight=False, markup=False, soft_wrap=True)
    return True


_NONE = "No checkpoint from before it was kept: the model as the run began with it is the best there is."
_GO_ON = "To go on from the newest checkpoint all the same, repeat the command with guards.response=warn"


def _of_the_best(best: Path, last: Mapping[str, float]) -> str:
    counters = checkpoint.counters_of(best)
    assert counters.score is not None
    if counters.score <= last["heldout/success"]:
        if counters.step == last["step"]:
            return f"No evaluated checkpoint has a higher held-out success than the last one, {best}."
        return (
            f"Held-out success was highest at the end, {last['heldout/success']:.1%} after step {last['step']}, of which no "
            f"checkpoint was kept. The best that was, {counters.score:.1%} after step {counters.step}, is {best}"
        )
    return (
        f"The best checkpoint is not the last: after step {counters.step} held-out success was {counters.score:.1%}, after step "
        f"{last['step']} it is {last['heldout/success']:.1%}. It is kept: {best}"
    )


def _best(folder: RunFolder) -> Path | None:
    found = checkpoint.readable(folder.checkpoints)
    scored = [(counters.score, counters.step, path) for path, counters in found.items() if counters.score is not None]
    return max(scored)[2] if scored else None


def _newest(folder: RunFolder) -> Path | None:
    found = list(checkpoint.readable(folder.checkpoints))
    return found[-1] if found else None
