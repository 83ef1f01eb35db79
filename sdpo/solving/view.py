"""What the user sees of a search: a live view where there is a terminal, one line a step where there is none."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sdpo.config import BudgetConfig
from sdpo.solving.budget import eta_s, share_spent
from sdpo.solving.parts import SearchLog
from sdpo.solving.search import Search
from sdpo.terminal.heartbeat import Clock
from sdpo.terminal.printable import printable
from sdpo.terminal.screen import Screen
from sdpo.terminal.view import at_work, duration
from sdpo.types import Completion, Prompt

PHASES = {
    "start": "starting the engine, the learner and the verifiers",
    "sync": "loading the search's weights",
    "generate": "trying, and verifying",
    "learn": "learning from the feedback",
}
MAX_SHOWN = 280
"""Characters of a feedback."""


class SearchView(Screen, SearchLog):
    """The SearchLog of the terminal."""

    def __init__(
        self, console: Console, title: str, budget: BudgetConfig, *, quiet: bool = False, clock: Clock = time.monotonic
    ) -> None:
        self._title, self._budget, self._clock = title, budget, clock
        self._search: Search | None = None
        self._warned: set[str] = set()
        self._phase, self._since, self._waits_for = "start", clock(), ""
        self._done, self._total, self._tokens = 0, 0, 0
        super().__init__(console, self._view, self._at_work, quiet=quiet, clock=clock)  # draws at once

    def begins(self, title: str) -> None:
        """Another search, of which nothing is known yet."""
        self._title, self._search = title, None
        self._warned.clear()

    def warn(self, sentence: str) -> None:
        """What is said again step after step is shown once."""
        reason = sentence.partition(": ")[2]
        if reason not in self._warned:
            self._warned.add(reason)
            super().warn(sentence)

    def phase(self, name: str) -> None:
        self._heartbeat.begins()
        self._phase, self._since, self._waits_for = name, self._clock(), ""
        self._done, self._total, self._tokens = 0, 0, 0

    def waits_for(self, what: str) -> None:
        """What the phase cannot go on without, e.g. ``the engines``."""
        self._waits_for = what

    def watch(self, completions: Iterable[tuple[Prompt, Completion]], total: int) -> Iterator[tuple[Prompt, Completion]]:
        self._done, self._total, self._tokens = 0, total, 0
        for prompt, completion in completions:
            self._done += 1
            self._tokens += completion.num_own_tokens
            yield prompt, completion

    def told(self, search: Search) -> None:
        is_begun = self._search is not None
        self._search = search
        if not is_begun and search.num_steps:
            self.say(f"{self._title}: continuing after {search.spent.attempts} attempts")
        elif is_begun and self._live is None:
            self.say(self._line(search))

    def _at_work(self) -> str:
        seconds = self._clock() - self._since
        doing = PHASES[self._phase]
        return at_work(doing, seconds, waits_for=self._waits_for, done=self._done, total=self._total, counted="attempts")

    def _line(self, search: Search) -> str:
        latest = f"  latest feedback: {_first_line(search.latest.feedback)}" if search.latest is not None else ""
        return (
            f"{self._title}: step {search.num_steps}  {_attempts(search, self._budget)} attempts  "
            f"{search.num_repeats} repeated  best {_best(search)}  {len(search.memory)} distinct failures  "
            f"{search.spent.tokens} tokens  {duration(search.spent.seconds)}  "
            f"ETA to the budget {_eta(search, self._budget)}{latest}"
        )

    def _view(self) -> RenderableType:
        search = self._search
        seconds = self._clock() - self._since
        now = f"{PHASES[self._phase]} · {seconds:.0f} s"
        if self._total:
            now += f" · {self._done}/{self._total} · {self._tokens / max(seconds, 1e-9):.0f} tokens/s"
        rows = Table.grid(padding=(0, 2))
        rows.add_row("now", now)
        if search is None:
            return Panel(rows, title=escape(printable(self._title)), width=min(self._console.width, 100))
        spent, share = search.spent, share_spent(self._budget, search.spent)
        rows.add_row("attempts", f"{_attempts(search, self._budget)}, {search.num_repeats} of them repeated")
        rows.add_row("best so far", _best(search))
        rows.add_row("distinct failures", str(len(search.memory)))
        rows.add_row("tokens", f"{spent.tokens:,}" + (f" of {self._budget.tokens:,}" if self._budget.tokens else ""))
        rows.add_row("learned from", f"{search.num_learned} attempts")
        rows.add_row("budget", ProgressBar(1000, round(1000 * share), width=32))
        rows.add_row("ETA to the budget", _eta(search, self._budget))
        parts: list[RenderableType] = [rows]
        if search.latest is not None:
            parts += [Text(), Text("latest feedback", style="dim"), Text(_shown(search.latest.feedback), style="yellow")]
        return Panel(Group(*parts), title=escape(printable(self._title)), width=min(self._console.width, 100))


def failures_table(search: Search) -> Table:
    """The five failures that happened most often."""
    table = Table(title="What was wrong with the attempts")
    table.add_column("times", justify="right")
    table.add_column("feedback")
    for failure in search.memory.failures[:5]:
        table.add_row(str(failure.times), Text(_shown(failure.feedback)))
    return table


def _attempts(search: Search, budget: BudgetConfig) -> str:
    return f"{search.spent.attempts}" + (f" of {budget.attempts}" if budget.attempts else "")


def _best(search: Search) -> str:
    if search.best is None:
        return "nothing verified yet"
    return "solved" if search.solution is not None else f"reward {search.best.reward:.2f}"


def _eta(search: Search, budget: BudgetConfig) -> str:
    left = eta_s(budget, search.spent)
    return "after the first step" if left is None else duration(left)


def _first_line(feedback: str | None) -> str:
    lines = printable(feedback or "").strip().splitlines()
    return lines[0][:120] if lines else ""


def _shown(feedback: str | None) -> str:
    text = printable((feedback or "")[: 4 * MAX_SHOWN]).strip()
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]} […]"
