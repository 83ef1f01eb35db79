"""Who asks a run to end: a person who is impatient may ask twice, machines that repeat one another are one wish."""

from __future__ import annotations

import io
import signal
import time
from collections.abc import Iterator

import pytest
from rich.console import Console

from sdpo.terminal.foreground import StopRequest, stopping
from sdpo.terminal.live import Terminal


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    around = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests themselves may run under nohup
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield Terminal(Console(file=io.StringIO()), "a run", 1, quiet=True)
    assert before == {number: signal.getsignal(number) for number in before}
    signal.signal(signal.SIGHUP, around)


def ask(number: signal.Signals) -> None:
    signal.raise_signal(number)
    time.sleep(0)  # the handler runs between two instructions


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_wish_waits_for_the_step(number: signal.Signals, terminal: Terminal) -> None:
    stop = StopRequest(can_wait=True)
    with stopping(stop, terminal):
        ask(number)
    assert (stop.is_set, stop.signal_number) == (True, number)


def test_nohup_means_it(terminal: Terminal) -> None:
    """A run under nohup ended after the step in which the connection of its terminal broke."""
    stop = StopRequest(can_wait=True)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with stopping(stop, terminal):
        ask(signal.SIGHUP)
    signal.signal(signal.SIGHUP, before)
    assert not stop.is_set


def test_a_machine_that_repeats_itself_does_not_cost_the_checkpoint(terminal: Terminal) -> None:
    """Ray's job supervisor sends SIGTERM when a RayJob is deleted, and the end of its pod sends another."""
    stop = StopRequest(can_wait=True)
    with stopping(stop, terminal):
        for _ in range(3):
            ask(signal.SIGTERM)
    assert stop.signal_number == signal.SIGTERM


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_person_who_asks_again_need_not_wait(first: signal.Signals, terminal: Terminal) -> None:
    with stopping(StopRequest(can_wait=True), terminal):
        ask(first)
        with pytest.raises(KeyboardInterrupt):
            ask(signal.SIGINT)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_before_the_first_step_there_is_nothing_to_wait_for(number: signal.Signals, terminal: Terminal) -> None:
    with pytest.raises(KeyboardInterrupt), stopping(StopRequest(), terminal):
        ask(number)
