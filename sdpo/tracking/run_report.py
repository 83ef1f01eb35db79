"""The Report of a training run: times its phases, gathers its numbers, passes them to the tracker and the terminal."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from sdpo import metrics
from sdpo.config import Truncated
from sdpo.guards.alarms import Alarm
from sdpo.guards.fold import Guards
from sdpo.protocols import Renderer, Watcher
from sdpo.run.watchdog import Progress
from sdpo.terminal.live import Terminal
from sdpo.terminal.stop_request import StopRequest
from sdpo.tracking import credit
from sdpo.tracking.tracker import Tracker, rounded
from sdpo.types import Completion, Draw, Evaluation, Group, Hint, Lift, Metrics, Prompt, Sample, TokenCredit

TIMED = {name.removeprefix("time/").removesuffix("_s") for name in metrics.METRICS if name.startswith("time/")}


@dataclass(slots=True)
class _PhaseClock:
    """Seconds spent in each phase."""

    seconds: dict[str, float] = field(default_factory=dict)
    _name: str | None = None
    _since: float = 0.0

    def enter(self, name: str | None) -> None:
        now = time.monotonic()
        if self._name is not None:
            self.seconds[self._name] = self.seconds.get(self._name, 0.0) + now - self._since
        self._name, self._since = name, now


class ProgressLog(Watcher):
    """The Watcher of a terminal."""

    def __init__(self, terminal: Terminal, progress: Progress | None = None) -> None:
        """``progress``: where it is noted; None: nobody watches."""
        self._terminal, self._progress = terminal, progress or Progress()

    def phase(self, name: str) -> None:
        self._terminal.phase(name)
        self._progress.begins(name)

    def watch(self, completions: Iterable[tuple[Prompt, Completion]], total: int) -> Iterator[tuple[Prompt, Completion]]:
        num_tokens = 0
        self._terminal.progress(0, total, 0)
        self._progress.completions(0, total)
        for done, (prompt, completion) in enumerate(completions, start=1):
            num_tokens += len(completion.token_ids)
            self._terminal.progress(done, total, num_tokens)
            self._progress.completions(done, total)
            yield prompt, completion


class _StepLog(ProgressLog):
    """The StepLog of one training step."""

    def __init__(self, step: int, terminal: Terminal, tracker: Tracker, progress: Progress, renderer: Renderer | None) -> None:
        super().__init__(terminal, progress)
        self._step, self._tracker, self._renderer = step, tracker, renderer
        self._draw: Draw | None = None
        self._groups_P: Sequence[Group] = ()
        self._hints_P_G: Sequence[Sequence[Hint | None]] = ()
        self.num_truncated = 0
        self.clock = _PhaseClock()
        self.values: dict[str, float] = {}
        self.updates: list[Metrics] = []
        self.generated_tokens = 0
        self.tokens_taken_over = 0
        """Those generated tokens that a killed run had sampled."""

    def phase(self, name: str) -> None:
        assert name in TIMED, f"phase {name!r} has no metric time/{name}_s"
        self.clock.enter(name)
        super().phase(name)

    def watch(self, completions: Iterable[tuple[Prompt, Completion]], total: int) -> Iterator[tuple[Prompt, Completion]]:
        for prompt, completion in super().watch(completions, total):
            self.generated_tokens += len(completion.token_ids)
            yield prompt, completion

    def taken_over(self, completions: Sequence[Completion], total: int) -> None:
        num_tokens = sum(completion.num_own_tokens for completion in completions)
        self.generated_tokens += num_tokens
        self.tokens_taken_over += num_tokens
        self._terminal.say(f"took over {len(completions)} of {total} attempts of step {self._step}")

    def judging(self, seconds: float) -> None:
        self.clock.seconds["verify"] = self.clock.seconds.get("verify", 0.0) + seconds

    def ahead(self, seconds: float) -> None:
        self.clock.seconds["ahead"] = seconds

    def drawn(self, draw: Draw) -> None:
        self._draw = draw
        self._tracker.tried(self._step, draw.tried)

    def groups(self, groups_P: Sequence[Group], hints_P_G: Sequence[Sequence[Hint | None]]) -> None:
        self._groups_P, self._hints_P_G = groups_P, hints_P_G
        self.values.update(metrics.of_groups(groups_P, hints_P_G))
        if self._draw is not None:
            self.values.update(metrics.of_draw(self._draw))
        self.values.update(metrics.of_versions(groups_P, self._step - 1))
        self.num_truncated = metrics.num_truncated(groups_P)
        self._terminal.attempts(self.values)
        self._tracker.rollouts(self._step, groups_P, hints_P_G)

    def update(self, metrics: Metrics) -> None:
        self.updates.append(metrics)
        self._progress.update()

    def credit(self, samples: Sequence[Sample], credits: Sequence[TokenCredit]) -> None:
        if self._renderer is not None:
            lines = credit.lines(self._step, self._groups_P, self._hints_P_G, samples, credits, self._renderer)
            self._tracker.credit(self._step, list(lines))


class RunReport:
    """Tells people how the run goes, and keeps it."""

    def __init__(
        self,
        terminal: Terminal,
        tracker: Tracker,
        stop: StopRequest,
        guards: Guards,
        progress: Progress | None = None,
        renderer: Renderer | None = None,
    ) -> None:
        """``guards`` are fed with what is recorded; ``progress`` is where it is noted, None: nobody watches. ``renderer`` spells
        the tokens of which credit is kept; None: of none."""
        self._renderer = renderer
        self._terminal, self._tracker, self._stop, self._guards = terminal, tracker, stop, guards
        self._progress = progress or Progress()
        self._save_s = 0.0
        self._evaluating_since = time.monotonic()

    @property
    def should_stop(self) -> bool:
        return self._stop.is_set or self._guards.stopped_by is not None

    @contextmanager
    def step(self, step: int) -> Iterator[_StepLog]:
        self._stop.can_wait = True
        began = time.monotonic()
        log = _StepLog(step, self._terminal, self._tracker, self._progress, self._renderer)
        self._terminal.step_begins(step)
        yield log
        log.clock.enter(None)
        of_updates = metrics.reduce(log.updates)
        record_s = of_updates.get("time/record_s", 0.0) + log.clock.seconds.get("record", 0.0)
        generation_s = log.clock.seconds.get("generate", 0.0) + log.clock.seconds.get("ahead", 0.0)
        row = {
            **log.values,
            **self._guards.numbers,
            **self._unlearned(log.num_truncated),
            **of_updates,
            "generated_tokens": float(log.generated_tokens),
            "tokens_per_s": (log.generated_tokens - log.tokens_taken_over) / max(generation_s, 1e-9),
            **{f"time/{name}_s": seconds for name, seconds in log.clock.seconds.items()},
            "time/record_s": record_s,
            "time/step_s": time.monotonic() - began,
            "time/save_s": self._save_s,
        }
        alarms = self._guards.step(step, rounded(row))
        self._alarm(alarms)
        self._tracker.step(step, {**row, "alarms": float(len(alarms))})
        self._terminal.step_ends(step, row)

    def _unlearned(self, num_truncated: int) -> dict[str, float]:
        """How many were not learned from because they were cut off; nothing where they are like others."""
        is_learned = self._guards.algorithm.truncated is Truncated.learn
        return {} if is_learned else {"truncated/unlearned": float(num_truncated)}

    @contextmanager
    def evaluating(self, step: int) -> Iterator[ProgressLog]:
        self._evaluating_since = time.monotonic()
        yield ProgressLog(self._terminal, self._progress)

    def evaluation(self, step: int, evaluation: Evaluation, lift: Lift | None) -> None:
        seconds = time.monotonic() - self._evaluating_since
        found = evaluation.metrics if lift is None else {**evaluation.metrics, **lift.metrics}
        alarms = self._guards.evaluation(step, rounded(found))
        self._alarm(alarms)
        self._tracker.evaluation(step, evaluation, lift, seconds=seconds, num_alarms=len(alarms))
        self._terminal.evaluation(step, found)

    def warn(self, sentence: str) -> None:
        self._terminal.warn(sentence)

    def _alarm(self, alarms: Sequence[Alarm]) -> None:
        for alarm in alarms:
            self._tracker.alarm(alarm)
            self._terminal.alarm(alarm)

    @contextmanager
    def saving(self, step: int) -> Iterator[None]:
        began = time.monotonic()
        self._terminal.phase("save")
        self._progress.begins("save")
        yield
        self._tracker.saved(step)
        self._save_s = time.monotonic() - began
