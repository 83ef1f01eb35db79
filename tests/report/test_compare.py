"""``sdpo compare``: runs over seeds in one table, the best first; what is broken is named and shown with what it has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sdpo.cli import main
from sdpo.report.groups import grouped
from sdpo.report.record import run_record
from sdpo.report.standings import LAST_STEPS, Standing, standings
from tests.report.folders import config_of, evaluation_of, step_of, write_folder


def compared(capsys: pytest.CaptureFixture[str], *paths: Path) -> tuple[str, dict[str, Any]]:
    assert main(["compare", *map(str, paths)]) == 0
    text, _, last = capsys.readouterr().out.rstrip("\n").rpartition("\n")
    return text, json.loads(last)


def seeds_of(tmp_path: Path, algorithm: str, *ends: float, **others: object) -> list[Path]:
    """A run a seed, looked at after steps 0, 2 and 4; the best look is the middle one."""
    return [
        write_folder(
            tmp_path / f"{algorithm}-s{seed}",
            config=config_of(algorithm, seed, num_steps=4, **others),
            steps=[step_of(step, end, tokens_per_s=50.0) for step in (1, 2, 3, 4)],
            evaluations=[evaluation_of(0, 0.1, lift=0.2), evaluation_of(2, end + 0.1), evaluation_of(4, end, lift=0.1)],
        )
        for seed, end in enumerate(ends)
    ]


def rows_of(*paths: Path) -> tuple[Standing, ...]:
    return standings(grouped([run_record(path) for path in paths]))


def test_seeds_are_one_row_with_mean_and_standard_error_and_the_best_group_comes_first(tmp_path: Path) -> None:
    grpo, sdpo = seeds_of(tmp_path, "grpo", 0.2, 0.4), seeds_of(tmp_path, "sdpo", 0.5, 0.7, 0.6)
    first, second = rows_of(*grpo, *sdpo)
    assert [(row.group.label, row.num_seeds) for row in (first, second)] == [("SDPO", 3), ("GRPO", 2)]
    assert second.last is not None
    assert (second.last.mean, second.last.error) == (pytest.approx(0.3), pytest.approx(0.1))
    assert first.best is not None
    assert (first.best.mean, first.best_step, first.last_step) == (pytest.approx(0.7), 2.0, 4.0)
    assert first.first is not None
    assert first.first.mean == pytest.approx(0.1)
    assert first.generations is not None
    assert (first.generations.mean, first.generations.error) == (40.0, 0.0)
    assert first.hours is not None
    assert first.hours.mean == pytest.approx(8.0 / 3600.0)
    assert first.lift_first is not None and first.lift_last is not None  # noqa: PT018
    assert (first.lift_first.mean, first.lift_last.mean) == (pytest.approx(0.2), pytest.approx(0.1))


def test_the_best_is_a_step_of_all_seeds_and_not_a_mean_of_everybodys_luckiest(tmp_path: Path) -> None:
    ups_and_downs = ([0.9, 0.1], [0.1, 0.9])
    paths = [
        write_folder(
            tmp_path / f"s{seed}",
            config=config_of("sdpo", seed),
            steps=[step_of(1)],
            evaluations=[evaluation_of(place + 1, success) for place, success in enumerate(evaluations)],
        )
        for seed, evaluations in enumerate(ups_and_downs)
    ]
    (row,) = rows_of(*paths)
    assert row.best is not None
    assert row.best.mean == pytest.approx(0.5)


def test_training_success_is_that_of_the_last_steps(tmp_path: Path) -> None:
    steps = [step_of(step, 0.0) for step in range(1, 4)] + [step_of(step, 1.0) for step in range(4, 4 + LAST_STEPS)]
    (row,) = rows_of(write_folder(tmp_path / "run", config=config_of("sdpo"), steps=steps))
    assert row.training is not None
    assert (row.training.mean, row.training.error) == (1.0, None)


def test_a_lone_run_has_the_error_over_tasks_that_it_recorded(tmp_path: Path) -> None:
    (row,) = rows_of(*seeds_of(tmp_path, "sdpo", 0.5))
    assert row.last is not None
    assert row.last.error == 0.05


def test_what_differs_is_named_beside_the_label_and_in_the_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slow = seeds_of(tmp_path / "a", "sdpo", 0.5, 0.6, batch={"num_tasks": 4})
    quick = seeds_of(tmp_path / "b", "grpo", 0.3, 0.2, batch={"num_tasks": 8})
    text, record = compared(capsys, *slow, *quick)
    assert "batch.num_tasks=4" in text
    assert "batch.num_tasks=8" in text
    assert record["groups"][0]["differs"] == {"algorithm.name": "sdpo", "batch.num_tasks": 4}
    assert record["groups"][1]["heldout"]["last"]["mean"] == pytest.approx(0.25)


def test_broken_and_unfinished_runs_are_named_and_shown_with_what_they_have(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = seeds_of(tmp_path, "sdpo", 0.5)[0]
    killed = write_folder(tmp_path / "killed", config=config_of("grpo", num_steps=9), steps=[step_of(1), step_of(2)])
    with (killed / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "succ')
    lost = write_folder(tmp_path / "lost", config=None)
    (lost / "config.yaml").write_bytes(b"\xff\xfe: [")
    (tmp_path / "plain-folder").mkdir()
    text, record = compared(capsys, whole, killed, lost, tmp_path / "plain-folder", tmp_path / "nowhere")
    assert "2 of 9" in text
    assert "killed: 2 of 9 steps; metrics.jsonl is cut off" in text
    assert record["unfinished"] == {"killed": ["2 of 9 steps"]}
    assert "config.yaml cannot be read" in record["missing"]["lost"]
    assert record["left_out"] == [str(tmp_path / "plain-folder"), str(tmp_path / "nowhere")]
    assert [group["label"] for group in record["groups"]] == ["SDPO", "GRPO", "lost"]
    assert record["groups"][2]["steps"] == [0, 0]


def test_a_run_that_is_named_twice_counts_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run,) = seeds_of(tmp_path, "sdpo", 0.5)
    _, record = compared(capsys, run, run.parent / "." / run.name)
    assert record["groups"][0]["runs"] == ["sdpo-s0"]


def test_hostile_names_and_values_drive_no_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = write_folder(
        tmp_path / "\x1b]0;title\x07[red]x", config=config_of("\x1b[2J", batch={"k": "[bold]\u202e"}), steps=[step_of(1)]
    )
    plain = write_folder(tmp_path / "plain", config=config_of("grpo", batch={"k": "x" * 100_000}), steps=[step_of(1)])
    text, record = compared(capsys, odd, plain)
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "\u202e" not in text
    assert "[bold]" in text
    assert max(map(len, text.splitlines())) < 400
    assert len(record["groups"]) == 2


@pytest.mark.parametrize("words", [[], ["nowhere"], ["nowhere", "\0"]])
def test_where_nothing_is_a_run_the_command_says_so(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", *words]) == 2
    shown = capsys.readouterr()
    assert "sdpo compare takes run folders" in " ".join(shown.err.split())
    assert shown.out == ""
