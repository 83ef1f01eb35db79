"""Without a live view a command says what it is at, as seldom as every half minute, and not of what is over sooner."""

from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from sdpo.config import BudgetConfig
from sdpo.solving import workers
from sdpo.solving.view import SearchView
from sdpo.terminal import heartbeat
from sdpo.terminal.heartbeat import EVERY_S, Heartbeat
from sdpo.terminal.live import Terminal


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Watched:
    """A terminal without a live view on a clock of its own, whose heartbeat is looked at every second instead of by a thread."""

    def __init__(self, *, is_terminal: bool = False, quiet: bool = True) -> None:
        self.clock = Clock()
        self.screen = Console(file=io.StringIO(), force_terminal=is_terminal, width=200, color_system=None)
        self.terminal = Terminal(self.screen, "run", 3, quiet=quiet, clock=self.clock)

    def after(self, seconds: int) -> list[str]:
        """Lines that came in that time."""
        before = len(self.lines)
        for _ in range(seconds):
            self.clock.now += 1.0
            self.terminal._heartbeat.beat()
        return self.lines[before:]

    @property
    def lines(self) -> list[str]:
        assert isinstance(self.screen.file, io.StringIO)
        return self.screen.file.getvalue().splitlines()


@pytest.fixture
def watched() -> Watched:
    return Watched()


def test_an_evaluation_of_minutes_says_how_far_it_is_every_half_minute(watched: Watched) -> None:
    """The first evaluation of a run said nothing for four minutes."""
    watched.terminal.phase("evaluate")
    watched.terminal.progress(0, 192, 0)
    assert watched.after(29) == []
    watched.terminal.progress(17, 192, 300)
    assert watched.after(1) == ["evaluating held-out tasks: 17 of 192 attempts, 30 s"]
    watched.terminal.progress(34, 192, 600)
    assert watched.after(32) == ["evaluating held-out tasks: 34 of 192 attempts, 1 min 00 s"]


def test_a_start_says_who_is_waited_for(watched: Watched) -> None:
    watched.terminal.waits_for("the learner")
    assert watched.after(30) == ["starting Ray, vLLM and DeepSpeed: waiting for the learner, 30 s"]
    watched.terminal.waits_for("the engines")
    assert watched.after(30) == ["starting Ray, vLLM and DeepSpeed: waiting for the engines, 1 min 00 s"]
    watched.terminal.phase("evaluate")
    assert watched.after(30) == ["evaluating held-out tasks: 30 s"]


def test_short_phases_say_nothing(watched: Watched) -> None:
    for _ in range(10):
        for phase in ("generate", "hindsight", "learn", "sync", "save"):
            watched.terminal.phase(phase)
            assert watched.after(29) == []


def test_a_lift_goes_on_with_the_wait_for_its_evaluation(watched: Watched) -> None:
    """They are one evaluation to whoever waits: 25 s of the one and 25 s of the other are not 50 s of silence."""
    watched.terminal.phase("evaluate")
    assert watched.after(25) == []
    watched.terminal.phase("lift")
    watched.terminal.progress(3, 96, 50)
    assert watched.after(25) == ["evaluating the teacher on held-out tasks: 3 of 96 attempts, 5 s"]


def test_no_line_comes_within_half_a_minute_of_another(watched: Watched) -> None:
    watched.terminal.phase("generate")
    assert watched.after(29) == []
    watched.terminal.warn("an engine is lost")
    assert len(watched.after(29)) == 0
    assert len(watched.after(1)) == 1
    assert len(watched.after(10 * 30)) == 10


def test_a_live_view_has_no_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Heartbeat) -> Heartbeat:
        raise AssertionError("it was started")

    monkeypatch.setattr(Heartbeat, "__enter__", refuse)
    with Watched(is_terminal=True, quiet=False).terminal:
        pass
    for quiet, is_terminal in ((True, True), (False, False)):
        with pytest.raises(AssertionError, match="it was started"), Watched(is_terminal=is_terminal, quiet=quiet).terminal:
            pass


def test_the_thread_beats_while_the_command_waits_and_ends_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "_CHECKS_EVERY_S", 0.001)
    watched = Watched()
    with watched.terminal as terminal:
        terminal.phase("evaluate")
        watched.clock.now += EVERY_S
        deadline = time.monotonic() + 10.0
        while not watched.lines and time.monotonic() < deadline:
            time.sleep(0.001)
    assert watched.lines == ["evaluating held-out tasks: 30 s"]
    watched.clock.now += 10 * EVERY_S
    time.sleep(0.01)
    assert len(watched.lines) == 1


def test_a_full_disk_under_the_screen_does_not_end_the_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "_CHECKS_EVERY_S", 0.001)
    clock, tries = Clock(), []

    def refuse(sentence: str) -> None:
        tries.append(sentence)
        raise OSError(28, "No space left on device")

    with Heartbeat(lambda: "working", refuse, clock):
        clock.now += EVERY_S
        deadline = time.monotonic() + 10.0
        while len(tries) < 2 and time.monotonic() < deadline:
            time.sleep(0.001)
    assert len(tries) >= 2


def test_a_search_says_how_far_its_step_is() -> None:
    clock, screen = Clock(), Console(file=io.StringIO(), width=200)
    view = SearchView(screen, "sdpo solve", BudgetConfig(), quiet=True, clock=clock)
    view.waits_for("the engines")
    clock.now += EVERY_S
    view._heartbeat.beat()
    view.phase("generate")
    for _ in zip(view.watch([], 16), (), strict=False):
        pass
    clock.now += EVERY_S
    view._heartbeat.beat()
    assert isinstance(screen.file, io.StringIO)
    assert screen.file.getvalue().splitlines() == [
        "starting the engine, the learner and the verifiers: waiting for the engines, 30 s",
        "trying, and verifying: 0 of 16 attempts, 30 s",
    ]


def test_searches_of_several_workers_say_that_nothing_has_changed() -> None:
    clock, screen = Clock(), Console(file=io.StringIO(), width=200)
    said = workers._Said(screen, clock)
    for _ in range(65):
        said.say("0 of 4 searches are over")
        clock.now += 1.0
    said.say("1 of 4 searches are over")
    assert isinstance(screen.file, io.StringIO)
    assert screen.file.getvalue().splitlines() == [
        "0 of 4 searches are over",
        "0 of 4 searches are over (running for 30 s)",
        "0 of 4 searches are over (running for 1 min 00 s)",
        "1 of 4 searches are over",
    ]
