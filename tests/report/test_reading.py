"""A run folder reads as what was written, and as far as it goes where it is damaged, old or hostile."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest

from sdpo.errors import UserError
from sdpo.report.reading import Run, parsed
from sdpo.report.records import CreditRecord
from tests.report.runs import HOSTILE


def test_every_file_reads_as_it_was_written(folder: Path) -> None:
    run = Run(folder)
    assert [record.step for record in run.metrics()] == [1, 2, 3]
    assert [(record.step, record.num_attempts, len(record.attempts)) for record in run.evaluations()] == [(0, 4, 20)]
    assert run.alarms()[0].guard == "length"
    assert run.config()["name"] == "run"
    attempts = run.attempts(1)
    assert len(attempts) == 24
    assert [(one.task_index, one.attempt) for one in attempts[:7]] == [(0, n) for n in range(6)] + [(1, 0)]
    success = sum(one.is_solved for one in attempts) / 24
    assert success == pytest.approx(run.metrics()[0].values["success"], rel=1e-6)


def test_a_credit_record_belongs_to_the_attempt_at_its_places(folder: Path) -> None:
    run = Run(folder)
    for step in (1, 2):
        completions = {(one.task_index, one.attempt): one.completion for one in run.attempts(step)}
        credits = list(run.credits(step))
        assert credits
        for credit in credits:
            assert "".join(credit.tokens) == completions[credit.task_index, credit.attempt] + "<|im_end|>"


def test_the_hindsight_prompt_is_cut_at_its_marks_without_losing_a_character(folder: Path) -> None:
    for credit in Run(folder).credits(1):
        parts = credit.hindsight_parts()
        assert "".join(text for _, text in parts) == credit.hindsight_prompt
        assert {kind for kind, _ in parts} - {None} == set(credit.marks)


def test_marks_that_overlap_or_lie_outside_mark_nothing_twice(folder: Path) -> None:
    line = json.loads(gzip.decompress(Run(folder).files.credit_of(1).read_bytes()).splitlines()[0])
    line["marks"] = {"demonstration": [3, 9], "feedback": [5, 7], "other": [8, 10**9], "text": ["a", "b"]}
    credit = CreditRecord.of(line)
    assert credit is not None
    assert "".join(text for _, text in credit.hindsight_parts()) == credit.hindsight_prompt
    assert [kind for kind, _ in credit.hindsight_parts()] == [None, "demonstration", None]


def test_a_credit_record_whose_columns_disagree_is_no_record(folder: Path) -> None:
    line = json.loads(gzip.decompress(Run(folder).files.credit_of(1).read_bytes()).splitlines()[0])
    assert CreditRecord.of({**line, "teacher": line["teacher"][1:]}) is None
    assert CreditRecord.of({**line, "student_top": None}) is None
    assert CreditRecord.of({key: value for key, value in line.items() if key != "attempt"}) is None


@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.9])
def test_a_file_that_is_cut_off_reads_up_to_its_last_whole_line(folder: Path, part: float) -> None:
    run = Run(folder)
    whole = {"rollouts": run.attempts(1), "credit": list(run.credits(1)), "metrics": run.metrics()}
    for file in (run.files.rollouts_of(1), run.files.credit_of(1), run.files.metrics):
        content = file.read_bytes()
        file.write_bytes(content[: int(len(content) * part)])
    for name, found in {"rollouts": run.attempts(1), "credit": list(run.credits(1)), "metrics": run.metrics()}.items():
        assert list(found) == list(whole[name])[: len(found)]
        assert len(found) < len(whole[name])


def test_places_are_counted_where_an_older_version_left_them_out(folder: Path) -> None:
    run = Run(folder)
    written = run.attempts(2)
    file = run.files.rollouts_of(2)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    for line in lines:
        line.pop("task_index")
        line.pop("attempt", None)
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert run.attempts(2) == written
    assert any(one.attempt is None for one in written), "one of them is set aside, and not counted"


def test_completions_come_through_unchanged_whatever_they_hold(hostile: Path) -> None:
    attempts = Run(hostile).attempts(1)
    assert [one.completion for one in attempts] == [*HOSTILE, "x" * 1_000_000]


@pytest.mark.parametrize(
    "line",
    [b"", b"null\n", b"[1]\n", b'{"a": \n', b"\xff\xfe\n", b"[" * 100_000, b'"' + b"\xed\xa0"],
)
def test_what_is_no_object_is_no_record(line: bytes) -> None:
    assert parsed(line) is None


def test_numbers_that_are_none_become_nothing() -> None:
    assert parsed(b'{"a": NaN, "b": -Infinity, "c": 1e999, "d": 1.5}') == {"a": None, "b": None, "c": None, "d": 1.5}


def test_values_of_the_wrong_kind_are_as_if_missing(folder: Path) -> None:
    file = Run(folder).files.rollouts_of(1)
    file.write_text('{"step": "x", "task": 3, "completion": null, "reward": true, "num_tokens": 1e99, "turns": [1, {}]}\n')
    (attempt,) = Run(folder).attempts(1)
    assert (attempt.task, attempt.completion, attempt.reward, attempt.num_tokens, attempt.turns) == (
        "",
        "",
        None,
        None,
        (("", ""),),
    )


def test_links_out_of_the_run_are_not_followed(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "credit").mkdir(parents=True)
    (outside / "secret").write_text('{"step": 1, "task": "secret"}\n')
    run = Run(folder)
    run.files.rollouts_of(1).unlink()
    run.files.rollouts_of(1).symlink_to(outside / "secret")
    run.files.rollouts_of(2).unlink()
    run.files.rollouts_of(2).symlink_to(run.files.rollouts_of(2))
    run.files.config.unlink()
    run.files.config.symlink_to(outside / "secret")
    assert (run.attempts(1), run.attempts(2), run.config()) == ((), (), {})
    assert run.leads_out(run.files.config)


def test_a_link_within_the_run_and_to_the_run_is_followed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    Run(folder).files.rollouts_of(4).symlink_to(Run(folder).files.rollouts_of(1))
    assert Run(tmp_path / "link").attempts(4) == Run(folder).attempts(1)


@pytest.mark.parametrize("name", ["nothing", "empty", "file"])
def test_what_is_no_run_folder_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=r"a run folder holds metrics\.jsonl or rollouts/"):
        Run(tmp_path / name)


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(folder: Path) -> None:
    file = Run(folder).files.evaluations
    file.unlink()
    os.mkfifo(file)
    assert Run(folder).evaluations() == ()
