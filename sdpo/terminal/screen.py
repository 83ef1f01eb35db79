"""A screen with lines that stay: with a live view below them where there is a terminal, with a heartbeat where there is none."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.text import Text

from sdpo.terminal.heartbeat import Clock, Heartbeat
from sdpo.terminal.printable import printable


class Screen:
    """To be entered as a context; every method may be called at any time in it."""

    def __init__(
        self, console: Console, view: Callable[[], RenderableType], at_work: Callable[[], str], *, quiet: bool, clock: Clock
    ) -> None:
        """``view`` is drawn four times a second; ``at_work`` is a heartbeat's sentence. ``quiet``: no live view."""
        self._console = console
        self._heartbeat = Heartbeat(at_work, self.say, clock)
        self._live: Live | None = None
        if console.is_terminal and not quiet:  # what is printed otherwise is libraries' output, and goes to the log
            self._live = Live(
                get_renderable=view,
                console=console,
                refresh_per_second=4,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )

    def __enter__(self) -> Self:
        (self._live or self._heartbeat).__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        (self._live or self._heartbeat).__exit__(kind, error, trace)

    def say(self, sentence: str) -> None:
        """Print a line that stays on the screen."""
        self._print(escape(printable(sentence)))

    def warn(self, sentence: str) -> None:
        """Print a line that stays on the screen and is hard to miss."""
        self._print(f"[bold red]warning:[/] {escape(printable(sentence))}")

    def _print(self, line: str | Text) -> None:
        self._heartbeat.spoke()
        with suppress(BrokenPipeError):  # whoever was reading has gone; the work has not
            self._console.print(line, highlight=False, soft_wrap=True)
