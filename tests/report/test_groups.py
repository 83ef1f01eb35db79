"""Seeds become one group with a mean and its standard error; what else differs between runs is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdpo.report.curves import MAX_POINTS, Axis, heldout_curve, series, spent, training_curve, unit
from sdpo.report.groups import ABSENT, after, before, differences, estimate, grouped, last_common_step
from sdpo.report.record import RunRecord, run_record
from tests.report.folders import config_of, evaluation_of, step_of, write_folder


def runs_of(tmp_path: Path, *configs: dict[str, object] | None) -> list[RunRecord]:
    return [
        run_record(write_folder(tmp_path / f"run{place}", config=config, steps=[step_of(1)]))
        for place, config in enumerate(configs)
    ]


def test_runs_that_differ_in_seed_name_and_place_are_one_group(tmp_path: Path) -> None:
    runs = runs_of(tmp_path, config_of("sdpo", 0, runs_dir="a"), config_of("grpo", 0), config_of("sdpo", 1, runs_dir="b"))
    groups = grouped(runs)
    assert [(group.label, [run.name for run in group.runs]) for group in groups] == [
        ("SDPO", ["run0", "run2"]),
        ("GRPO", ["run1"]),
    ]


def test_runs_whose_config_is_lost_are_alone(tmp_path: Path) -> None:
    assert [group.label for group in grouped(runs_of(tmp_path, None, None))] == ["run0", "run1"]


def test_groups_of_one_algorithm_are_told_apart_by_what_differs(tmp_path: Path) -> None:
    configs = [config_of("sdpo", learner={"lr": rate}) for rate in (0.1, 0.2)]
    assert [group.label for group in grouped(runs_of(tmp_path, *configs))] == ["SDPO learner.lr=0.1", "SDPO learner.lr=0.2"]


def test_where_too_much_differs_runs_are_told_apart_by_their_names_and_no_label_comes_twice(tmp_path: Path) -> None:
    many = [config_of("sdpo", learner={f"key{key}": place for key in range(9)}) for place in range(2)]
    assert [group.label for group in grouped(runs_of(tmp_path, *many))] == ["SDPO run0", "SDPO run1"]
    namesakes = [
        run_record(write_folder(tmp_path / place / "same", config=None, steps=[step_of(1)])) for place in ("one", "other")
    ]
    assert [group.label for group in grouped(namesakes)] == ["same (1)", "same (2)"]


def test_differences_are_the_keys_that_differ_seed_and_name_aside(tmp_path: Path) -> None:
    sdpo = config_of("sdpo", 3, learner={"lr": 0.1, "beta1": 0.9})
    sdpo["algorithm"] = {"name": "sdpo", "jsd_beta": 0.5}
    rows = differences(grouped(runs_of(tmp_path, sdpo, config_of("grpo", 4, learner={"lr": 0.2, "beta1": 0.9}), None)))
    assert [(row.key, row.values, row.is_everywhere) for row in rows] == [
        ("algorithm.jsd_beta", (0.5, ABSENT), False),
        ("algorithm.name", ("sdpo", "grpo"), True),
        ("learner.lr", (0.1, 0.2), True),
    ]


def test_a_value_that_cannot_be_compared_with_its_like_is_no_trap(tmp_path: Path) -> None:
    rows = differences(
        grouped(runs_of(tmp_path, config_of("a", odd=[1, {}]), config_of("b", odd={"x": None}), config_of("c", odd="–")))
    )
    assert {"odd", "odd.x"} <= {row.key for row in rows}


def test_the_error_of_seeds_is_theirs_and_that_of_a_lone_run_the_one_it_recorded(tmp_path: Path) -> None:
    looked = [
        write_folder(
            tmp_path / f"s{seed}",
            config=config_of("sdpo", seed),
            steps=[step_of(1)],
            evaluations=[evaluation_of(0, 0.1), evaluation_of(1, end)],
        )
        for seed, end in enumerate((0.2, 0.4))
    ]
    (group,) = grouped([run_record(path) for path in looked])
    both = estimate(group, lambda run: (after(group)(run) or {}).get("heldout/success"), lambda run: None)
    assert both is not None
    assert (both.mean, both.error, both.num_runs) == (pytest.approx(0.3), pytest.approx(0.1), 2)
    (alone,) = grouped([run_record(looked[0])])
    one = estimate(alone, lambda run: (before(run) or {}).get("heldout/success"), lambda run: 0.05)
    assert one is not None
    assert (one.mean, one.error, one.num_runs) == (0.1, 0.05, 1)
    assert estimate(alone, lambda run: None, lambda run: 0.05) is None


def test_seeds_are_compared_where_all_had_learned_equally_long(tmp_path: Path) -> None:
    """A seed that was killed after step 4 of 8 would else bring the mean down as if it had learned less."""
    evaluations = (
        [evaluation_of(0, 0.1), evaluation_of(4, 0.2)],
        [evaluation_of(0, 0.1), evaluation_of(4, 0.3), evaluation_of(8, 0.9)],
        [evaluation_of(0, 0.1)],
    )
    runs = [
        run_record(write_folder(tmp_path / f"s{seed}", config=config_of("sdpo", seed), steps=[step_of(1)], evaluations=seen))
        for seed, seen in enumerate(evaluations)
    ]
    (group,) = grouped(runs)
    assert last_common_step(group) == 4.0
    assert [(after(group)(run) or {}).get("heldout/success") for run in runs] == [0.2, 0.3, None]
    assert last_common_step(grouped(runs[2:])[0]) is None


def test_each_axis_counts_what_was_spent_until_a_step(tmp_path: Path) -> None:
    run = run_record(
        write_folder(
            tmp_path / "run",
            config=config_of("sdpo"),
            steps=[step_of(1, 0.1), step_of(2, 0.2), step_of(3, 0.3)],
            evaluations=[evaluation_of(0, 0.1), evaluation_of(2, 0.4), evaluation_of(9, 0.9)],
        )
    )
    assert training_curve(run, "success", Axis.generations) == ((10.0, 20.0, 30.0), (0.1, 0.2, 0.3))
    assert training_curve(run, "success", Axis.tokens)[0] == (100.0, 200.0, 300.0)
    assert training_curve(run, "success", Axis.time)[0] == (2.0, 4.0, 6.0)
    assert heldout_curve(run, "heldout/success", Axis.tokens) == ((0.0, 200.0), (0.1, 0.4)), "step 9 was not recorded"


def test_a_step_without_its_cost_leaves_an_axis_out_and_the_others_in(tmp_path: Path) -> None:
    bare = {"step": 2, "success": 0.5, "attempts": 4}
    run = run_record(write_folder(tmp_path / "run", steps=[step_of(1), bare]))
    assert spent(run.steps, Axis.generations) == [10.0, 14.0]
    assert spent(run.steps, Axis.tokens) == spent(run.steps, Axis.time) == []
    assert training_curve(run, "success", Axis.time) == ((), ())


@pytest.mark.parametrize(("seconds", "label"), [(1.0, "s"), (20.0, "min"), (1000.0, "h")])
def test_time_has_the_unit_of_the_longest_run(tmp_path: Path, seconds: float, label: str) -> None:
    steps = [step_of(step, **{"time/step_s": seconds}) for step in range(1, 21)]
    assert unit(Axis.time, [run_record(write_folder(tmp_path / "run", steps=steps))]).label == f"{label} of training"
    assert unit(Axis.time, []).label == "s of training"


def test_a_mean_goes_as_far_as_all_seeds_have_been_and_each_seed_as_far_as_it_was(tmp_path: Path) -> None:
    runs = [
        run_record(
            write_folder(
                tmp_path / f"s{seed}",
                config=config_of("sdpo", seed),
                steps=[step_of(step, success) for step in range(1, last + 1)],
            )
        )
        for seed, (last, success) in enumerate(((2, 0.4), (4, 0.6)))
    ]
    (one,) = series(grouped(runs), "success", Axis.generations, 1.0, is_heldout=False)
    assert (one.xs, one.ys) == ((10.0, 20.0), (0.5, 0.5))
    assert one.errors == pytest.approx((0.1, 0.1))
    assert [xs[-1] for xs, _ in one.runs] == [20.0, 40.0]


def test_a_group_without_a_metric_keeps_its_place_among_the_curves(tmp_path: Path) -> None:
    groups = grouped(runs_of(tmp_path, config_of("grpo"), config_of("sdpo")))
    assert [one.label for one in series(groups, "divergence", Axis.generations, 1.0, is_heldout=False)] == ["GRPO", "SDPO"]


def test_a_long_run_is_drawn_through_the_means_of_neighbours(tmp_path: Path) -> None:
    run = run_record(write_folder(tmp_path / "run", steps=[step_of(step, step % 2) for step in range(1, 2001)]))
    xs, ys = training_curve(run, "success", Axis.generations)
    assert len(xs) <= MAX_POINTS
    assert xs[-1] == 20_000.0
    assert all(0.3 < y < 0.7 for y in ys)
