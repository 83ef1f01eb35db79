"""The live view's owner: notes what happens, says what shall stay on the screen, and draws where there is a terminal."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

from rich.console import Console, RenderableType
from rich.control import Control
from rich.segment import ControlType

from sdpo.guards.alarms import Alarm
from sdpo.metrics import lift_in_words
from sdpo.terminal.heartbeat import Clock
from sdpo.terminal.remaining import Part, Plan, Remaining
from sdpo.terminal.screen import Screen
from sdpo.terminal.tables import alarm_line
from sdpo.terminal.view import PHASES, SHOWN, STOPPING, Drawn, Seen, at_work, drawn, eta

_PARTS = {"evaluate": Part.evaluation, "lift": Part.lift, "save": Part.checkpoint}
"""Phases that are parts of a run beside its steps."""
_EVALUATING = ("evaluate", "lift")
"""Phases of one evaluation: the heartbeat counts from the begin of the first to the end of the second."""
_SAMPLING = ("generate", "evaluate", "lift")
"""Phases that count attempts."""


class Terminal(Screen):
    """A view of a command that computes."""

    def __init__(
        self,
        console: Console,
        title: str,
        num_steps: int,
        *,
        plan: Plan | None = None,
        quiet: bool = False,
        clock: Clock = time.monotonic,
    ) -> None:
        """``num_steps``: 0 for a command without steps; ``plan``: what is to be done, None: the steps and nothing else."""
        self._clock = clock
        self._seen = Seen(title=title, num_steps=num_steps)
        self._remaining = Remaining(plan or Plan(num_steps=num_steps))
        self._phase_since = clock()
        self._drawn: Drawn | None = None
        super().__init__(console, self._view, self._at_work, quiet=quiet, clock=clock)  # draws at once

    def stop_was_asked(self) -> None:
        """Called by a signal handler, so a live view only notes it: printing might interrupt its own drawing."""
        self._seen.is_stopping = True
        if self._live is None:
            self.say(STOPPING)

    def alarm(self, alarm: Alarm) -> None:
        """Print an alarm at once, and keep it in the view."""
        self._seen.alarms = [*self._seen.alarms, alarm]
        self._print(alarm_line(alarm.step, alarm.guard.value, alarm.sentence))

    def restore(
        self,
        rows: Sequence[Mapping[str, float]],
        alarms: Sequence[Alarm] = (),
        evaluations: Sequence[Mapping[str, float]] = (),
    ) -> None:
        """Show what an interrupted run had recorded, so that the curves go on; forget what was shown of later steps."""
        last = int(rows[-1]["step"]) if rows else -1  # before the first step nothing counts, not even an evaluation
        seen = self._seen
        seen.heldout = [(step, success) for step, success in seen.heldout if step <= last]
        seen.lifts = [(step, lift) for step, lift in seen.lifts if step <= last]
        seen.alarms = list(alarms)
        seen.history.clear()
        shown = {step for step, _ in seen.heldout}
        for found in evaluations:
            if found["step"] not in shown and found["step"] <= last:
                self._note_alarms(int(found["step"]), found)
        for row in rows:
            self._remember(row)
        self._remaining.go_back(max(last, 0), _took(rows, evaluations))

    def phase(self, name: str) -> None:
        if not (name == "lift" and self._seen.phase in _EVALUATING):
            self._heartbeat.begins()
        self._seen.phase, self._phase_since, self._seen.waits_for = name, self._clock(), ""
        self._seen.done = self._seen.total = self._seen.num_tokens = 0
        if name in _PARTS:
            self._remaining.begins(_PARTS[name], self._phase_since)

    def waits_for(self, what: str) -> None:
        """Note what the phase cannot go on without, e.g. ``the engines``."""
        self._seen.waits_for = what

    def progress(self, done: int, total: int, num_tokens: int) -> None:
        self._seen.done, self._seen.total, self._seen.num_tokens = done, total, num_tokens
        self._remaining.sampled(num_tokens)

    def step_begins(self, step: int) -> None:
        self._seen.step = step
        self._remaining.begins(Part.step, self._clock())

    def attempts(self, values: Mapping[str, float]) -> None:
        if values.get("set_aside"):
            self.say(f"step {self._seen.step}: {values['set_aside']:.0f} attempts set aside, their verification broke")

    def step_ends(self, step: int, row: Mapping[str, float]) -> None:
        self._remaining.ends(self._clock())
        self._remaining.speed(row.get("tokens_per_s", 0.0))
        self._remember(row)
        if row.get("updates", 0.0) == 0.0:
            self.say(f"step {step}: nothing to learn from (no hint and no advantage); the policy is unchanged")
        if self._live is None:
            self.say(
                f"step {step}/{self._seen.num_steps}  success {row['success']:.1%}  reward {row['reward']:.3f}  hindsight "
                f"{row['hindsight']:.1%}  response {row['response_tokens']:.0f} tokens  {row['tokens_per_s']:.0f} tokens/s  "
                f"step {row['time/step_s']:.0f} s  ETA {self._eta()}"
            )

    def update_ends(self, update: int, row: Mapping[str, float]) -> None:
        """End an update, in a command whose steps are single updates with nothing sampled in between."""
        self._remaining.ends(self._clock())
        self._remember(row)
        if self._live is None:
            self.say(
                f"update {update}/{self._seen.num_steps}  cross-entropy {row['loss/supervised']:.3f}  divergence from the base "
                f"{row.get('divergence', 0.0):.4f}  gradient {row['grad_norm']:.2f}  {row['time/step_s']:.1f} s  "
                f"ETA {self._eta()}"
            )

    def evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        self._remaining.ends(self._clock())
        self._note_alarms(step, metrics)
        if self._live is None:
            self.say(
                f"held-out after step {step}: success {metrics['heldout/success']:.1%} ± {metrics['heldout/success_se']:.1%}"
            )
            if "lift/share" in metrics:
                self.say(f"teacher lift {lift_in_words(metrics)}")

    def _note_alarms(self, step: int, metrics: Mapping[str, float]) -> None:
        self._seen.heldout.append((step, metrics["heldout/success"]))
        if "lift/share" in metrics:
            self._seen.lifts.append((step, lift_in_words(metrics)))

    def _remember(self, row: Mapping[str, float]) -> None:
        for name, *_ in SHOWN:
            if name in row:
                self._seen.history.setdefault(name, []).append(row[name])

    def _at_work(self) -> str:
        seen = self._seen
        counted = "attempts" if seen.phase in _SAMPLING else ""
        seconds = self._clock() - self._phase_since
        return at_work(
            PHASES[seen.phase][0], seconds, waits_for=seen.waits_for, done=seen.done, total=seen.total, counted=counted
        )

    def _eta_s(self) -> float | None:
        share = self._seen.done / self._seen.total if self._seen.total else 0.0
        return self._remaining.seconds(self._clock(), share)

    def _eta(self) -> str:
        return eta(self._eta_s(), self._seen.num_steps)

    def _view(self) -> RenderableType:
        before = self._console.width
        self._fit()
        if self._drawn is not None and self._console.width < before:
            self._console.control(_erased(self._drawn.num_rows(self._console.width) - self._drawn.num_rows(before)))
        self._seen.phase_s = self._clock() - self._phase_since
        self._seen.eta_s = self._eta_s()
        self._drawn = drawn(self._seen, self._console.width)
        return self._drawn.view

    def _fit(self) -> None:
        """Set the console's size to that of its own terminal, which the user may change at any time.

        rich would ask for that of the standard streams, which may be files.
        """
        with suppress(OSError, ValueError, AttributeError):  # it is no terminal
            size = os.get_terminal_size(self._console.file.fileno())
            if size.columns > 0:
                self._console.size = size


def _erased(num_rows: int) -> Control:
    """Erase ``num_rows`` rows at the end of what was drawn; rich erases the others, as many as it has drawn."""
    return Control(*[(ControlType.ERASE_IN_LINE, 2), (ControlType.CURSOR_UP, 1)] * num_rows)


def _took(rows: Sequence[Mapping[str, float]], evaluations: Sequence[Mapping[str, float]]) -> dict[Part, list[float]]:
    """Seconds of what was recorded. A lift is not timed by itself: it is what an evaluation with one takes longer."""
    plain = [found["time/evaluate_s"] for found in evaluations if "lift/share" not in found]
    lifted = [found["time/evaluate_s"] for found in evaluations if "lift/share" in found]
    return {
        Part.step: [row["time/step_s"] for row in rows if "time/step_s" in row],
        Part.checkpoint: [row["time/save_s"] for row in rows[1:] if "time/save_s" in row],
        Part.evaluation: plain or lifted,
        Part.lift: [max(0.0, seconds - sum(plain) / len(plain)) for seconds in lifted] if plain else [],
    }
