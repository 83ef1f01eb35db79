"""The index is what a fresh look at the folder would find, however the folder came to be."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest
import yaml

from sdpo.report import answers
from sdpo.report.index import RunIndex
from sdpo.report.reading import Run
from tests.report.runs import begun, write_step


def whole(folder: Path) -> RunIndex:
    index = RunIndex(Run(folder))
    while index.refresh(60.0):
        pass
    return index


def test_an_index_that_grew_is_the_index_of_the_grown_folder(tmp_path: Path) -> None:
    run, tracker = begun(tmp_path / "run")
    index = RunIndex(Run(run.path))
    draw = random.Random(0)
    for step in (1, 2, 3):
        write_step(tracker, step, 0.5, 4, draw)
        index.refresh(60.0)
        assert (
            answers.changes(index, 0, has_more=False)["changed"] == answers.changes(whole(run.path), 0, has_more=False)["changed"]
        )
    assert index.metrics.records == whole(run.path).metrics.records


def test_only_what_is_new_is_told_again(tmp_path: Path) -> None:
    run, tracker = begun(tmp_path / "run")
    draw = random.Random(0)
    write_step(tracker, 1, 0.5, 4, draw)
    index = whole(run.path)
    before = index.revision
    assert not index.refresh(60.0)
    assert index.revision == before
    write_step(tracker, 2, 0.5, 4, draw)
    index.refresh(60.0)
    news = answers.changes(index, before, has_more=False)
    assert [step["step"] for step in news["changed"]] == [2]
    assert news["evaluations"] is None


def test_a_run_that_went_back_to_a_checkpoint_is_read_anew(folder: Path) -> None:
    index = whole(folder)
    index.run.files.forget_after(1)
    index.refresh(60.0)
    assert list(index.steps) == [1]
    assert [record["step"] for record in index.metrics.records] == [1]


def test_a_line_that_was_cut_off_counts_once_it_is_whole(folder: Path) -> None:
    run = Run(folder)
    content = run.files.metrics.read_bytes()
    run.files.metrics.write_bytes(content[:-20])
    index = whole(folder)
    assert (len(index.metrics.records), index.metrics.is_cut) == (2, True)
    with run.files.metrics.open("ab") as file:
        file.write(content[-20:])
    index.refresh(60.0)
    assert (len(index.metrics.records), index.metrics.is_cut) == (3, False)


def test_however_short_the_time_an_index_comes_to_its_end(folder: Path) -> None:
    index = RunIndex(Run(folder))
    rounds = 0
    while index.refresh(0.0):
        rounds += 1
    assert rounds == 6  # three steps, two files each
    assert answers.changes(index, 0, has_more=False)["changed"] == answers.changes(whole(folder), 0, has_more=False)["changed"]


def test_an_attempt_and_its_credit_are_read_from_their_places(folder: Path) -> None:
    index, run = whole(folder), Run(folder)
    for step in run.rollout_files():
        of_places = {(credit.task_index, credit.attempt): credit for credit in run.credits(step)}
        for written in run.attempts(step):
            assert index.attempt(step, written.row) == written
            expected = None if written.attempt is None else of_places.get((written.task_index, written.attempt))
            assert index.credit(step, written.row) == expected


def test_places_outside_are_nothing(folder: Path) -> None:
    index = whole(folder)
    assert index.attempt(1, 10**6) is None
    assert index.attempt(99, 0) is None
    assert index.attempt(1, -1) is None


def test_a_search_finds_what_stands_there_and_nothing_else(folder: Path) -> None:
    index, run = whole(folder), Run(folder)
    for words in (
        "RETURN HIGH",
        "is not defined",
        "\n    count",
        'low, high):\n    return min("',
        "H₂SO₄",
        "−2 each",
        "oxidation/easy",
        "zzz",
        "\\",
        '"',
    ):
        expected = {
            step: rows
            for step in run.rollout_files()
            if (
                rows := [
                    one.row
                    for one in run.attempts(step)
                    if any(
                        words.lower() in (text or "").lower() for text in (one.task, one.question, one.completion, one.feedback)
                    )
                ]
            )
        }
        assert index.search(words) == expected, words


def test_whatever_a_completion_holds_the_answer_is_json_in_ascii(hostile: Path) -> None:
    index = whole(hostile)
    for value in (answers.changes(index, 0, has_more=False), *(answers.attempt(index, 1, row) for row in range(5))):
        text = answers.as_json(value)
        assert text.isascii()
        json.loads(text, parse_constant=lambda name: pytest.fail(f"JavaScript does not read {name}"))


@pytest.mark.parametrize(
    ("gone", "sentence"),
    [
        ("credit", "There are no credit records"),
        ("checkpoints", "There is no checkpoints"),
        ("evaluations.jsonl", "There is no evaluations.jsonl"),
        ("metrics.jsonl", "There is no metrics.jsonl"),
        ("config.yaml", "There is no config.yaml"),
        ("rollouts", "There is no rollouts"),
    ],
)
def test_what_is_missing_is_said_and_the_rest_is_shown(folder: Path, gone: str, sentence: str) -> None:
    path = folder / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    index = whole(folder)
    news = answers.changes(index, 0, has_more=False)
    assert any(text.startswith(sentence) for text in news["missing"])
    assert bool(index.steps) == (gone != "rollouts")


def test_nothing_is_missing_from_a_whole_run(folder: Path) -> None:
    assert answers.changes(whole(folder), 0, has_more=False)["missing"] == []


def test_damage_is_said(folder: Path) -> None:
    run = Run(folder)
    for file in (run.files.rollouts_of(1), run.files.credit_of(2)):
        file.write_bytes(file.read_bytes()[:-30])
    with run.files.metrics.open("a") as file:
        file.write("no json\n")
    said = " ".join(answers.changes(whole(folder), 0, has_more=False)["missing"])
    assert "rollouts/step_000001.jsonl is cut off" in said
    assert "credit/step_000002.jsonl.gz is cut off" in said
    assert "no JSON objects, and are left out: 1" in said


def test_a_config_may_hold_what_json_does_not_know(tmp_path: Path) -> None:
    """The page of a run without a clip was empty: its first answer could not be written."""
    run, _ = begun(tmp_path / "run")
    config = yaml.safe_load(run.config.read_text())
    config["learner"]["grad_clip"] = float("inf")
    run.config.write_text(yaml.safe_dump(config))
    told = json.loads(answers.as_json(answers.changes(whole(run.path), 0, has_more=False)))
    assert told["config"]["learner"]["grad_clip"] == "inf"
