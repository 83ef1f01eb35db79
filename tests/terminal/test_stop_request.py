"""Who asks a command to end: a person who is impatient may ask twice, machines that repeat one another are one wish."""

from __future__ import annotations

import io
import signal
import time
from collections.abc import Iterator

import pytest
from rich.console import Console

from sdpo import cli
from sdpo.commands.table import BUILT_IN
from sdpo.envs.children import ASKS
from sdpo.errors import Stopped
from sdpo.terminal.live import Terminal
from sdpo.terminal.stop_request import ONE_REQUEST_S, StopRequest, stopping

ALL = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
WAITING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    around = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests themselves may run under nohup
    before = {number: signal.getsignal(number) for number in ALL}
    yield
    assert before == {number: signal.getsignal(number) for number in before}
    signal.signal(signal.SIGHUP, around)


def ask(number: signal.Signals) -> None:
    signal.raise_signal(number)
    time.sleep(0)  # the handler runs between two instructions


def ask_later(number: signal.Signals, stop: StopRequest) -> None:
    stop.since -= 2 * ONE_REQUEST_S
    ask(number)


@pytest.mark.parametrize("number", WAITING)
def test_the_first_wish_waits_for_the_step_and_is_told(number: signal.Signals) -> None:
    stop, screen = StopRequest(can_wait=True), io.StringIO()
    terminal = Terminal(Console(file=screen), "a run", 1, quiet=True)
    with stopping(stop, on_stop=terminal.stop_was_asked):
        ask(number)
    assert (stop.is_set, stop.signal_number) == (True, number)
    assert "stopping after this step" in screen.getvalue()


def test_nohup_means_it() -> None:
    """A run under nohup ended after the step in which the connection of its terminal broke."""
    stop = StopRequest(can_wait=True)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with stopping(stop):
        ask(signal.SIGHUP)
    signal.signal(signal.SIGHUP, before)
    assert not stop.is_set


@pytest.mark.parametrize(
    "numbers",
    [
        (signal.SIGTERM, signal.SIGTERM),  # timeout tells its child, then the child's group
        (signal.SIGINT, signal.SIGINT),  # timeout -s INT; Ctrl-C beneath timeout
        (signal.SIGHUP, signal.SIGHUP),  # a terminal that closes: the shell and the kernel
        (signal.SIGTERM, signal.SIGHUP),  # systemd with SendSIGHUP
    ],
)
def test_what_comes_at_the_same_moment_is_one_wish(numbers: tuple[signal.Signals, ...]) -> None:
    """A terminal that was closed ended the run at once, without its checkpoint, and so did ``timeout -s INT``."""
    stop = StopRequest(can_wait=True)
    with stopping(stop):
        for number in numbers:
            ask(number)
    assert stop.signal_number == numbers[0]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (first, second)
        for first in WAITING
        for second in (signal.SIGTERM, signal.SIGHUP)
        if (first, second) != (signal.SIGINT, signal.SIGTERM)
    ],
)
def test_a_machine_that_repeats_itself_does_not_cost_the_checkpoint(first: signal.Signals, second: signal.Signals) -> None:
    """Ray's job supervisor sends SIGTERM when a RayJob is deleted, and the end of its pod sends another. A laptop is closed after
    Ctrl-C."""
    stop = StopRequest(can_wait=True)
    with stopping(stop):
        ask(first)
        for _ in range(3):
            ask_later(second, stop)
    assert stop.signal_number == first


@pytest.mark.parametrize(
    ("first", "second"),
    [*((first, signal.SIGINT) for first in WAITING), (signal.SIGINT, signal.SIGTERM)],
)
def test_a_person_who_asks_again_need_not_wait(first: signal.Signals, second: signal.Signals) -> None:
    stop = StopRequest(can_wait=True)
    with stopping(stop):
        ask(first)
        with pytest.raises(Stopped) as stopped:
            ask_later(second, stop)
    assert stopped.value.signal_number == second


@pytest.mark.parametrize("before", [None, *WAITING])
def test_sigquit_waits_for_nothing(before: signal.Signals | None) -> None:
    """It killed the driver and dumped its memory."""
    with stopping(StopRequest(can_wait=True)):
        if before is not None:
            ask(before)
        with pytest.raises(Stopped):
            ask(signal.SIGQUIT)


@pytest.mark.parametrize("number", ALL)
def test_before_the_first_step_there_is_nothing_to_wait_for(number: signal.Signals) -> None:
    with pytest.raises(Stopped), stopping(StopRequest()):
        ask(number)


def test_a_wish_that_ended_a_block_is_not_heard_again_outside_of_it() -> None:
    """The second SIGTERM of ``timeout`` came while the first one's end was under way, and broke it off."""
    with stopping(StopRequest()):
        with pytest.raises(Stopped), stopping(StopRequest()):
            ask(signal.SIGTERM)
        ask(signal.SIGTERM)


def test_a_command_hears_what_it_was_started_deaf_to() -> None:
    """As Ray starts its jobs, and as our own fork servers start theirs."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ASKS)
    try:
        with pytest.raises(Stopped), stopping(StopRequest()):
            ask(signal.SIGINT)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@pytest.mark.parametrize("number", ALL)
@pytest.mark.parametrize("command", sorted(BUILT_IN))
def test_every_command_ends_with_a_sentence_and_the_signals_number(
    command: str, number: signal.Signals, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those without steps, and all while they started, were killed by anything but SIGINT: no word, and scratch files left."""
    monkeypatch.setattr(cli, "_run", lambda command, rest: ask(number))
    monkeypatch.setattr(cli, "_forks", lambda command, rest: False)
    assert cli.main([command]) == 128 + number
    assert f"error: stopped at once by {number.name}" in capsys.readouterr().err


@pytest.mark.parametrize("number", ALL)
def test_a_command_knows_its_signal_whatever_a_library_makes_of_it(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``ray.get`` raises a KeyboardInterrupt of its own in place of ours: a SIGHUP in an evaluation ended with 130."""

    def interrupted(command: str, rest: list[str]) -> int:
        with stopping(StopRequest()):
            try:
                ask(number)
            except Stopped:
                raise KeyboardInterrupt from None
        return 0

    monkeypatch.setattr(cli, "_run", interrupted)
    monkeypatch.setattr(cli, "_forks", lambda command, rest: False)
    assert cli.main(["train"]) == 128 + number
