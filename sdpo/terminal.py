"""What the user sees: a live view where there is a terminal, one line a step where there is none, a table at the end."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sdpo.guards.alarms import Alarm
from sdpo.metrics import lift_in_words
from sdpo.printable import printable

PHASES = {
    "start": "starting Ray, vLLM and DeepSpeed",
    "generate": "generating and verifying",
    "hindsight": "choosing hints",
    "learn": "learning",
    "record": "writing what hindsight says of tokens",
    "sync": "sending weights to the engine",
    "evaluate": "evaluating held-out tasks",
    "lift": "evaluating the teacher on held-out tasks",
    "save": "saving a checkpoint",
    "rebuild": "rebuilding the learner from the last checkpoint",
}
_SHOWN = (
    ("success", "success rate", "{:.1%}"),
    ("reward", "reward", "{:.3f}"),
    ("hindsight", "with hindsight", "{:.1%}"),
    ("response_tokens", "response length", "{:.1f} tokens"),
    ("divergence", "student–teacher divergence", "{:.4f} nats"),
    ("entropy", "entropy", "{:.3f} nats"),
    ("loss", "loss", "{:+.4f}"),
    ("loss/supervised", "cross-entropy", "{:.4f} nats"),
    ("tokens_per_s", "generation", "{:.0f} tokens/s"),
)
STOPPING = "stopping after this step, with a checkpoint; once more to stop at once"
_BARS = "▁▂▃▄▅▆▇█"


class Terminal:
    """A view of the run, to be entered as a context; every method may be called at any time in it."""

    def __init__(self, console: Console, title: str, num_steps: int, *, quiet: bool = False) -> None:
        self._console, self._title, self._num_steps = console, title, num_steps
        self._step = 0
        self._phase, self._phase_since = "start", time.monotonic()
        self._done, self._total, self._tokens = 0, 0, 0
        self._history: dict[str, list[float]] = {}
        self._steps_s: list[float] = []
        self._step_since: float | None = None
        self._heldout: list[tuple[int, float]] = []
        self._lifts: list[tuple[int, str]] = []
        self._alarms: list[Alarm] = []
        self._is_stopping = False
        self._live: Live | None = None
        if console.is_terminal and not quiet:  # what is printed otherwise is chatter, and goes to the log
            self._live = Live(
                get_renderable=self._view,
                console=console,
                refresh_per_second=4,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )

    def __enter__(self) -> Terminal:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, sentence: str) -> None:
        """A line that stays on the screen."""
        with suppress(BrokenPipeError):  # whoever was reading has gone; the run has not
            self._console.print(escape(printable(sentence)), highlight=False, soft_wrap=True)

    def warn(self, sentence: str) -> None:
        """A line that stays on the screen and is hard to miss."""
        with suppress(BrokenPipeError):
            self._console.print(f"[bold red]warning:[/] {escape(printable(sentence))}", highlight=False, soft_wrap=True)

    def stop_was_asked(self) -> None:
        """Called by a signal handler, so a live view only notes it: printing might interrupt its own drawing."""
        self._is_stopping = True
        if self._live is None:
            self.say(STOPPING)

    def alarm(self, alarm: Alarm) -> None:
        """Said at once, and kept in the view."""
        self._alarms.append(alarm)
        with suppress(BrokenPipeError):
            self._console.print(alarm_line(alarm.step, alarm.guard.value, alarm.sentence), highlight=False, soft_wrap=True)

    def restore(self, rows: Sequence[Mapping[str, float]], alarms: Sequence[Alarm] = ()) -> None:
        """What an interrupted run had recorded, so that the curves go on; what was shown of later steps is forgotten."""
        last = rows[-1]["step"] if rows else -1  # before the first step nothing counts, not even a look at the model
        self._heldout = [(step, success) for step, success in self._heldout if step <= last]
        self._lifts = [(step, lift) for step, lift in self._lifts if step <= last]
        self._alarms = list(alarms)
        self._history.clear()
        self._step_since = None
        for row in rows:
            self._remember(row)

    def phase(self, name: str) -> None:
        self._phase, self._phase_since = name, time.monotonic()
        self._done, self._total, self._tokens = 0, 0, 0

    def progress(self, done: int, total: int, num_tokens: int) -> None:
        self._done, self._total, self._tokens = done, total, num_tokens

    def step_begins(self, step: int) -> None:
        self._step = step
        self._step_since = time.monotonic()

    def attempts(self, values: Mapping[str, float]) -> None:
        if values.get("set_aside"):
            self.say(f"step {self._step}: {values['set_aside']:.0f} attempts set aside, their verification broke")

    def step_ends(self, step: int, row: Mapping[str, float]) -> None:
        self._steps_s.append(row["time/step_s"])
        self._step_since = None
        self._remember(row)
        if row.get("updates", 0.0) == 0.0:
            self.say(f"step {step}: nothing to learn from (no hint and no advantage); the policy is unchanged")
        if self._live is None:
            self.say(
                f"step {step}/{self._num_steps}  success {row['success']:.1%}  reward {row['reward']:.3f}  hindsight "
                f"{row['hindsight']:.1%}  response {row['response_tokens']:.0f} tokens  {row['tokens_per_s']:.0f} tokens/s  "
                f"step {row['time/step_s']:.0f} s  ETA {_duration(self._eta_s())}"
            )

    def update_ends(self, update: int, row: Mapping[str, float]) -> None:
        """Of a command whose steps are single updates, with nothing sampled in between."""
        self._steps_s.append(row["time/step_s"])
        self._step_since = None
        self._remember(row)
        if self._live is None:
            self.say(
                f"update {update}/{self._num_steps}  cross-entropy {row['loss/supervised']:.3f}  divergence from the base "
                f"{row.get('divergence', 0.0):.4f}  gradient {row['grad_norm']:.2f}  {row['time/step_s']:.1f} s  "
                f"ETA {_duration(self._eta_s())}"
            )

    def evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        self._heldout.append((step, metrics["heldout/success"]))
        if self._live is None:
            self.say(
                f"held-out after step {step}: success {metrics['heldout/success']:.1%} ± {metrics['heldout/success_se']:.1%}"
            )
        if "lift/share" in metrics:
            self._lifts.append((step, lift_in_words(metrics)))
            if self._live is None:
                self.say(f"teacher lift {lift_in_words(metrics)}")

    def _remember(self, row: Mapping[str, float]) -> None:
        for name, _, _ in _SHOWN:
            if name in row:
                self._history.setdefault(name, []).append(row[name])

    def _eta_s(self) -> float | None:
        """From the mean of the last steps, less what the present one has taken; None before the first has ended."""
        recent = self._steps_s[-5:]
        if not recent:
            return None
        is_under_way = self._step_since is not None
        mean = sum(recent) / len(recent)
        spent = min(mean, time.monotonic() - self._step_since) if self._step_since is not None else 0.0
        return mean * (self._num_steps - self._step + is_under_way) - spent

    def _view(self) -> RenderableType:
        now = Table.grid(padding=(0, 2))
        now.add_row("step", f"{self._step}/{self._num_steps}", ProgressBar(self._num_steps, max(0, self._step - 1), width=24))
        seconds = time.monotonic() - self._phase_since
        doing = f"{PHASES[self._phase]} · {seconds:.0f} s"
        if self._total:
            doing += f" · {self._done}/{self._total} · {self._tokens / max(seconds, 1e-9):.0f} tokens/s"
        now.add_row("now", doing, ProgressBar(self._total or 1, self._done, width=24) if self._total else "")
        now.add_row("ETA", STOPPING if self._is_stopping else _duration(self._eta_s()), "")
        numbers = Table.grid(padding=(0, 2))
        for name, label, form in _SHOWN:
            values = self._history.get(name, [])
            if values:
                numbers.add_row(label, form.format(values[-1]), Text(sparkline(values), style="cyan"))
        for step, success in self._heldout:
            numbers.add_row(f"held-out, step {step}", f"{success:.1%}", "")
        for step, lift in self._lifts:
            numbers.add_row(f"teacher lift, step {step}", lift, "")
        for alarm in self._alarms[-3:]:
            numbers.add_row(f"alarm, step {alarm.step}", alarm.guard.value, "", style="bold red")
        width = min(self._console.width, 100)
        return Panel(Group(now, Text(), numbers), title=escape(self._title), width=width)


def sparkline(values: Sequence[float], width: int = 32) -> str:
    """The last ``width`` values as bars between their smallest and largest."""
    shown = values[-width:]
    low, high = min(shown), max(shown)
    if high == low:
        return _BARS[0] * len(shown)
    return "".join(_BARS[round((value - low) / (high - low) * (len(_BARS) - 1))] for value in shown)


def alarm_line(step: int, guard: str, sentence: str) -> Text:
    """What nobody shall overlook."""
    return Text.assemble((f"ALARM after step {step} · {guard}: ", "bold red"), printable(sentence))


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "after the first step"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def before_and_after(before: Mapping[str, object], after: Mapping[str, object]) -> Table:
    """Two evaluations side by side; keys as in ``evaluations.jsonl``."""
    table = Table(title=f"Held-out tasks, {after['k']} attempts each")
    table.add_column("")
    table.add_column(f"before (step {before['step']})", justify="right")
    table.add_column(f"after (step {after['step']})", justify="right")
    table.add_column("change", justify="right")
    for name, error, label, scale, unit in (
        ("heldout/success", "heldout/success_se", "success (avg@k)", 100.0, "%"),
        ("heldout/pass_at_k", None, "pass@k", 100.0, "%"),
        ("heldout/response_tokens", None, "response tokens", 1.0, ""),
        ("lift", "lift/se", "teacher lift", 100.0, "%"),
    ):
        if name not in before and name not in after:
            continue
        old, new = (_with_error(evaluation, name, error, scale, unit) for evaluation in (before, after))
        is_known = name in before and name in after
        change = f"{(_number(after[name]) - _number(before[name])) * scale:+.1f}{unit}" if is_known else ""
        table.add_row(label, old, new, change)
    return table


def _with_error(evaluation: Mapping[str, object], name: str, error: str | None, scale: float, unit: str) -> str:
    """Empty where the evaluation does not say."""
    if name not in evaluation:
        return ""
    spread = f" ± {_number(evaluation[error]) * scale:.1f}" if error is not None and error in evaluation else ""
    return f"{_number(evaluation[name]) * scale:.1f}{spread}{unit}"


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
    return Panel(body, title=escape(printable(str(attempt["task"]))), width=min(width, 100))


def _number(value: object) -> float:
    assert isinstance(value, int | float)
    return float(value)
