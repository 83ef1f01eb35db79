"""Phases do not overlap, add up to the step, and what was not recorded stays with its whole."""

from __future__ import annotations

import pytest

from sdpo.report.phases import Phase, phases, step_times, typical

WHOLE = {
    "time/generate_s": 5.0, "time/verify_s": 1.0, "time/hindsight_s": 0.5, "time/learn_s": 4.0, "time/teacher_s": 1.0,
    "time/student_s": 2.0, "time/optimizer_s": 0.5, "time/sync_s": 0.5, "time/record_s": 0.25, "time/step_s": 10.5,
}  # fmt: skip


def test_parts_are_taken_out_of_their_wholes_and_the_rest_is_what_is_left() -> None:
    parts = phases(WHOLE)
    assert parts == {
        Phase.generate: 4.0, Phase.verify: 1.0, Phase.hindsight: 0.5, Phase.teacher: 1.0, Phase.student: 2.0,
        Phase.optimizer: 0.5, Phase.learn: 0.5, Phase.sync: 0.5, Phase.record: 0.25, Phase.rest: 0.25,
    }  # fmt: skip
    assert sum(parts.values()) == 10.5


def test_what_is_recorded_inside_the_updates_counts_once() -> None:
    parts = phases({"time/learn_s": 4.0, "time/student_s": 3.0, "time/record_s": 1.0, "time/step_s": 4.0})
    assert parts == {Phase.student: 3.0, Phase.learn: 0.0, Phase.record: 1.0, Phase.rest: 0.0}


def test_an_older_step_without_parts_has_the_wholes() -> None:
    parts = phases({"time/generate_s": 5.0, "time/learn_s": 4.0, "time/step_s": 10.0})
    assert parts == {Phase.generate: 5.0, Phase.learn: 4.0, Phase.rest: 1.0}
    assert phases({"time/generate_s": 5.0}) == {Phase.generate: 5.0}
    assert phases({"time/step_s": 5.0}) == {}
    assert phases({}) == {}


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), -1.0])
def test_a_time_that_is_none_is_no_time(odd: float) -> None:
    assert all(seconds >= 0.0 for seconds in phases({**WHOLE, "time/verify_s": odd, "time/step_s": odd}).values())


def test_the_first_step_is_no_measure_unless_it_is_the_only_one() -> None:
    first, later = {"time/generate_s": 100.0}, {"time/generate_s": 1.0}
    times = step_times([first, later, later])
    assert times is not None
    assert (times.num_steps, times.is_first_counted, times.total_s) == (2, False, 1.0)
    alone = step_times([first])
    assert alone is not None
    assert (alone.num_steps, alone.is_first_counted, alone.total_s) == (1, True, 100.0)
    assert step_times([]) is None
    assert step_times([{"success": 1.0}]) is None


def test_shares_are_of_the_medians_and_add_up() -> None:
    times = step_times([WHOLE, {**WHOLE, "time/generate_s": 90.0}, WHOLE, WHOLE])
    assert times is not None
    assert sum(times.share(phase) for phase in times.seconds) == pytest.approx(1.0)
    assert times.share(Phase.generate) == pytest.approx(4.0 / 10.5, rel=0.05)


def test_a_typical_number_leaves_out_the_first_and_what_is_none() -> None:
    rows = [{"x": 100.0}, {"x": 1.0}, {}, {"x": float("nan")}, {"x": 3.0}]
    assert typical(rows, "x") == 2.0
    assert typical(rows[:1], "x") == 100.0
    assert typical(rows, "y") is None
