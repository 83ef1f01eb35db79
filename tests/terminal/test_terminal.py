"""The live view draws at every moment of a run, on wide and narrow terminals, and model text never drives the terminal."""

from __future__ import annotations

import io

import pytest
from rich.cells import cell_len
from rich.console import Console

from sdpo.config import Guard
from sdpo.guards.alarms import Alarm
from sdpo.terminal import heartbeat
from sdpo.terminal.live import Terminal
from sdpo.terminal.remaining import Plan
from sdpo.terminal.tables import before_and_after, sample_attempt
from sdpo.terminal.view import Seen, drawn, sparkline

ROW = {
    "success": 0.25, "reward": 0.25, "hindsight": 0.9, "response_tokens": 61.0, "tokens_per_s": 300.0, "time/step_s": 50.0,
    "updates": 1.0,
}  # fmt: skip


def console(*, is_terminal: bool, width: int = 100) -> Console:
    return Console(file=io.StringIO(), force_terminal=is_terminal, width=width, color_system=None)


def shown(screen: Console) -> str:
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue()


WIDTHS = [1, 2, 20, 35, 36, 40, 60, 79, 100, 200]
HOSTILE = "[red]x[/nope]\x1b[2J\x07\r\n\u202e\ud800" + "long " * 2000


@pytest.mark.parametrize("width", WIDTHS)
def test_no_line_of_the_live_view_is_longer_than_the_terminal_is_wide(width: int) -> None:
    """Nor does any wrap: the view has as many lines at 20 columns as at 200, but for its frame."""
    plain = console(is_terminal=False, width=width)
    with Terminal(console(is_terminal=True, width=width), f"sdpo · {HOSTILE}", 3) as terminal:
        heights = [drawn_on(plain, terminal)]
        terminal.phase("generate")
        terminal.step_begins(1)
        terminal.progress(3, 48, 180)
        heights.append(drawn_on(plain, terminal))
        terminal.step_ends(1, {**ROW, "entropy": float("nan"), "divergence": float("inf")})
        terminal.evaluation(1, {**EVALUATED, **LIFT})
        terminal.stop_was_asked()
        heights.append(drawn_on(plain, terminal))
    text = shown(plain)
    assert max(map(cell_len, text.splitlines())) <= width
    assert not any(character in text for character in "\x1b\x07\r\u202e\ud800")
    frame = 2 if width >= 36 else 1
    assert heights == [frame + 3 + 1, frame + 3 + 1, frame + 3 + 1 + 7 + 2]


def drawn_on(plain: Console, terminal: Terminal) -> int:
    before = shown(plain).count("\n")
    plain.print(terminal._view())
    return shown(plain).count("\n") - before


@pytest.mark.parametrize("width", [20, 40, 60, 100])
def test_the_step_the_phase_and_the_end_can_be_read_at_any_width(width: int) -> None:
    plain = console(is_terminal=False, width=width)
    with Terminal(console(is_terminal=True, width=width), "sdpo", 30) as terminal:
        terminal.phase("generate")
        terminal.step_begins(12)
        plain.print(terminal._view())
    assert "12/30" in shown(plain)
    assert "generating" in shown(plain)
    assert "after the fi" in shown(plain)


@pytest.mark.parametrize(("width", "narrower", "rows"), [(100, 99, 12), (100, 50, 12), (100, 40, 18), (60, 20, 18), (20, 7, 11)])
def test_what_a_narrower_terminal_makes_of_the_view_is_known(width: int, narrower: int, rows: int) -> None:
    """Else parts of it would stay on the screen: the frame's six lines have ``width`` columns each."""
    assert drawn(Seen(title="sdpo", num_steps=3), width).num_rows(narrower) == rows


def test_a_command_without_steps_shows_none_and_its_end_from_its_own_progress() -> None:
    clock, plain, plan = Clock(), console(is_terminal=False), Plan(num_steps=0, evaluations=(0,))
    with Terminal(console(is_terminal=True), "sdpo evaluate", 0, plan=plan, clock=clock) as terminal:
        terminal.phase("evaluate")
        plain.print(terminal._view())
        clock.now = 30.0
        terminal.progress(50, 200, 6000)
        plain.print(terminal._view())
    text = shown(plain)
    assert "step" not in text.replace("after the first", "")
    assert "ETA  after the first answers" in text
    assert "50/200 · 200 tokens/s" in text
    assert "ETA  1 min 30 s" in text


def test_of_many_evaluations_the_first_and_the_last_are_shown() -> None:
    plain = console(is_terminal=False)
    with Terminal(console(is_terminal=True), "sdpo", 90) as terminal:
        for step in range(0, 90, 3):
            terminal.evaluation(step, EVALUATED)
        plain.print(terminal._view())
    assert [step for step in range(90) if f"held-out, step {step} " in shown(plain)] == [0, 84, 87]


def test_a_continued_run_shows_what_it_had_found_on_heldout_tasks() -> None:
    plain = console(is_terminal=False)
    evaluations = [{**EVALUATED, **LIFT, "step": 0, "time/evaluate_s": 9.0}, {**EVALUATED, "step": 2, "time/evaluate_s": 5.0}]
    with Terminal(console(is_terminal=True), "sdpo", 9) as terminal:
        terminal.restore([{**ROW, "step": 1}, {**ROW, "step": 2}], (), evaluations)
        plain.print(terminal._view())
        terminal.restore([{**ROW, "step": 1}, {**ROW, "step": 2}], (), evaluations)
        assert terminal._seen.heldout == [(0, 0.3), (2, 0.3)]
    assert "teacher lift, step 0" in shown(plain)
    assert "ETA" in shown(plain)
    assert "5 min 50 s" in shown(plain)


EVALUATED = {"heldout/success": 0.3, "heldout/success_se": 0.04, "heldout/pass_at_k": 0.5, "heldout/response_tokens": 61.0}
LIFT = {"lift": 0.125, "lift/se": 0.031, "lift/demonstration": 0.2, "lift/feedback": 0.03, "lift/share": 0.7}


def test_the_teachers_lift_stays_in_view_or_is_a_line() -> None:
    plain, screen = console(is_terminal=False), console(is_terminal=False)
    with Terminal(console(is_terminal=True), "sdpo", 3) as live:
        live.phase("lift")
        live.evaluation(0, {**EVALUATED, **LIFT})
        live.evaluation(3, {**EVALUATED, "lift/share": 0.0})
        plain.print(live._view())
    assert "teacher lift, step 0  +12.5% ± 3.1% (demonstration +20.0%, feedback +3.0%)" in shown(plain)
    assert "teacher lift, step 3  unknown" in shown(plain)
    with Terminal(screen, "sdpo", 3) as terminal:
        terminal.evaluation(0, {**EVALUATED, **LIFT})
        terminal.evaluation(1, EVALUATED)
    assert shown(screen).count("teacher lift +12.5% ± 3.1% (demonstration +20.0%, feedback +3.0%)\n") == 1


def test_a_warning_is_marked_as_one_and_its_text_is_text() -> None:
    screen = console(is_terminal=False)
    Terminal(screen, "sdpo", 3).warn("no [lift]")
    assert shown(screen) == "warning: no [lift]\n"


def test_the_lift_before_and_after_is_in_the_table_where_it_is_known() -> None:
    screen = console(is_terminal=False, width=120)
    before = {"step": 0, "k": 4, **EVALUATED, **LIFT}
    screen.print(before_and_after(before, {"step": 3, "k": 4, **EVALUATED, **LIFT, "lift": 0.1}))
    assert "12.5 ± 3.1%" in shown(screen)
    assert "-2.5%" in shown(screen)
    screen.print(before_and_after(before, {"step": 3, "k": 4, **EVALUATED}))
    assert shown(screen).count("teacher lift") == 2
    screen.print(before_and_after({"step": 0, "k": 4, **EVALUATED}, {"step": 3, "k": 4, **EVALUATED}))
    assert shown(screen).count("teacher lift") == 2


class Clock:
    """Stands still unless it is told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_without_a_terminal_there_is_one_line_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "_CHECKS_EVERY_S", 3600.0)  # which says more, and has tests of its own
    clock, screen = Clock(), console(is_terminal=False, width=80)
    plan = Plan(num_steps=3, evaluations=(0, 3), checkpoints=(3,))
    with Terminal(screen, "sdpo", 3, plan=plan, clock=clock) as terminal:
        terminal.restore([])
        terminal.phase("evaluate")
        clock.now = 200.0
        for step in (1, 2):
            terminal.step_begins(step)
            terminal.phase("generate")
            clock.now += 50.0
            terminal.step_ends(step, ROW)
    lines = shown(screen).splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("step 2/3  success 25.0%")
    assert lines[1].endswith("ETA 4 min 10 s")


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
            terminal.evaluation(step, EVALUATED)
            terminal.step_ends(step + 1, ROW)
        terminal.restore([{**ROW, "step": 1}])
        plain.print(terminal._view())
        assert terminal._seen.history["success"] == [ROW["success"]]
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


def test_a_sparkline_of_what_is_no_number_has_gaps() -> None:
    assert sparkline([0.0, float("nan"), float("inf"), 1.0]) == "▁  █"
    assert sparkline([float("nan")]) == " "


@pytest.mark.parametrize("width", [20, 40, 60, 71, 72, 100])
def test_the_table_at_the_end_fits_and_says_the_same_on_a_narrow_terminal(width: int) -> None:
    screen = console(is_terminal=False, width=width)
    screen.print(before_and_after({"step": 0, "k": 4, **EVALUATED, **LIFT}, {"step": 120, "k": 4, **EVALUATED}, width))
    lines = shown(screen).splitlines()
    assert max(map(cell_len, lines)) <= width
    assert "30.0 ± 4.0%" in " ".join(shown(screen).split())
    assert "+0.0" in shown(screen)
    assert len(lines) <= 15
