"""The live view draws at every moment of a run, on wide and narrow terminals, and model text never drives the terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from sdpo.config import Guard
from sdpo.guards.alarms import Alarm
from sdpo.terminal import Terminal, before_and_after, sample_attempt, sparkline

ROW = {
    "success": 0.25, "reward": 0.25, "hindsight": 0.9, "response_tokens": 61.0, "tokens_per_s": 300.0, "time/step_s": 50.0,
    "updates": 1.0,
}  # fmt: skip


def console(*, is_terminal: bool, width: int = 100) -> Console:
    return Console(file=io.StringIO(), force_terminal=is_terminal, width=width, color_system=None)


def shown(screen: Console) -> str:
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue()


@pytest.mark.parametrize("width", [40, 100, 200])
def test_the_live_view_draws_before_during_and_after_a_step(width: int) -> None:
    plain = console(is_terminal=False, width=width)
    with Terminal(console(is_terminal=True, width=width), "sdpo · [test]", 3) as terminal:
        plain.print(terminal._view())
        terminal.phase("generate")
        terminal.step_begins(1)
        terminal.progress(3, 48, 180)
        plain.print(terminal._view())
        terminal.step_ends(1, ROW)
        terminal.evaluation(1, {"heldout/success": 0.3, "heldout/success_se": 0.04})
        plain.print(terminal._view())
    text = shown(plain)
    assert "ETA" in text
    assert "sdpo · [test]" in text
    assert max(map(len, text.splitlines())) <= width


LOOK = {"heldout/success": 0.3, "heldout/success_se": 0.04, "heldout/pass_at_k": 0.5, "heldout/response_tokens": 61.0}
LIFT = {"lift": 0.125, "lift/se": 0.031, "lift/demonstration": 0.2, "lift/feedback": 0.03, "lift/share": 0.7}


def test_the_teachers_lift_stays_in_view_or_is_a_line() -> None:
    plain, screen = console(is_terminal=False), console(is_terminal=False)
    with Terminal(console(is_terminal=True), "sdpo", 3) as live:
        live.phase("lift")
        live.evaluation(0, {**LOOK, **LIFT})
        live.evaluation(3, {**LOOK, "lift/share": 0.0})
        plain.print(live._view())
    assert "teacher lift, step 0  +12.5% ± 3.1% (demonstration +20.0%, feedback +3.0%)" in shown(plain)
    assert "teacher lift, step 3  unknown" in shown(plain)
    with Terminal(screen, "sdpo", 3) as terminal:
        terminal.evaluation(0, {**LOOK, **LIFT})
        terminal.evaluation(1, LOOK)
    assert shown(screen).count("teacher lift +12.5% ± 3.1% (demonstration +20.0%, feedback +3.0%)\n") == 1


def test_a_warning_is_marked_as_one_and_its_text_is_text() -> None:
    screen = console(is_terminal=False)
    Terminal(screen, "sdpo", 3).warn("no [lift]")
    assert shown(screen) == "warning: no [lift]\n"


def test_the_lift_before_and_after_is_in_the_table_where_it_is_known() -> None:
    screen = console(is_terminal=False, width=120)
    before = {"step": 0, "k": 4, **LOOK, **LIFT}
    screen.print(before_and_after(before, {"step": 3, "k": 4, **LOOK, **LIFT, "lift": 0.1}))
    assert "12.5 ± 3.1%" in shown(screen)
    assert "-2.5%" in shown(screen)
    screen.print(before_and_after(before, {"step": 3, "k": 4, **LOOK}))
    assert shown(screen).count("teacher lift") == 2
    screen.print(before_and_after({"step": 0, "k": 4, **LOOK}, {"step": 3, "k": 4, **LOOK}))
    assert shown(screen).count("teacher lift") == 2


def test_without_a_terminal_there_is_one_line_a_step() -> None:
    screen = console(is_terminal=False, width=80)
    with Terminal(screen, "sdpo", 3) as terminal:
        terminal.step_begins(2)
        terminal.step_ends(2, ROW)
    lines = shown(screen).splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("step 2/3  success 25.0%")
    assert lines[0].endswith("ETA 0 min 50 s")


def test_an_asked_for_stop_is_shown_in_the_view_and_said_where_there_is_none() -> None:
    plain = console(is_terminal=False)
    with Terminal(console(is_terminal=True), "sdpo", 3) as live:
        live.stop_was_asked()
        plain.print(live._view())
    assert "stopping after this step" in shown(plain)
    screen = console(is_terminal=False)
    with Terminal(screen, "sdpo", 3) as terminal:
        terminal.stop_was_asked()
    assert shown(screen).startswith("stopping after this step")


def test_a_step_without_a_lesson_is_said() -> None:
    screen = console(is_terminal=False)
    with Terminal(screen, "sdpo", 3) as terminal:
        terminal.step_ends(1, {**ROW, "updates": 0.0})
    assert "nothing to learn from" in shown(screen)


@pytest.mark.parametrize("quiet", [True, False])
def test_an_alarm_is_said_at_once_and_stays_in_the_live_view(quiet: bool) -> None:
    alarm = Alarm(guard=Guard.heldout, step=3, sentence="held-out success [should] stay.\x1b[2J")
    screen = console(is_terminal=not quiet)
    plain = console(is_terminal=False)
    with Terminal(screen, "sdpo", 3, quiet=quiet) as terminal:
        terminal.restore([], [Alarm(guard=Guard.length, step=1, sentence="")])
        terminal.alarm(alarm)
        plain.print(terminal._view())
    assert "ALARM after step 3 · heldout: held-out success [should] stay." in shown(screen)
    assert "\x1b[2J" not in shown(screen)
    assert "alarm, step 1" in shown(plain)
    assert "alarm, step 3" in shown(plain)


def test_what_is_run_again_is_forgotten() -> None:
    """After a restore the view shows the steps that count, and each of them once."""
    plain = console(is_terminal=False)
    with Terminal(console(is_terminal=True), "sdpo", 3) as terminal:
        for step in (0, 1, 2):
            terminal.evaluation(step, LOOK)
            terminal.step_ends(step + 1, ROW)
        terminal.restore([{**ROW, "step": 1}])
        plain.print(terminal._view())
        assert terminal._history["success"] == [ROW["success"]]
        terminal.restore([])
        plain.print(terminal._view())
    assert shown(plain).count("held-out, step 0") == shown(plain).count("held-out, step 1") == 1
    assert "held-out, step 2" not in shown(plain)


def test_model_text_is_shown_as_text_and_control_characters_are_dropped() -> None:
    hostile = "[red]not markup[/red] \x1b[2J\x07 [/nope]"
    screen = console(is_terminal=False)
    screen.print(sample_attempt({"task": "[t]", "question": "q", "completion": hostile, "reward": 0.0, "feedback": hostile}, 100))
    text = shown(screen)
    assert "[red]not markup[/red]" in text
    assert "\x1b" not in text
    assert "\x07" not in text


def test_the_table_shows_both_evaluations_and_their_difference() -> None:
    before = {
        "step": 0,
        "k": 4,
        "heldout/success": 0.25,
        "heldout/success_se": 0.04,
        "heldout/pass_at_k": 0.5,
        "heldout/response_tokens": 60.0,
    }
    screen = console(is_terminal=False)
    screen.print(before_and_after(before, {**before, "step": 10, "heldout/success": 0.3}))
    assert "25.0 ± 4.0%" in shown(screen)
    assert "+5.0%" in shown(screen)


def test_a_sparkline_spans_its_lowest_and_highest_value() -> None:
    assert sparkline([0.0, 0.5, 1.0]) == "▁▅█"
    assert sparkline([2.0, 2.0]) == "▁▁"
