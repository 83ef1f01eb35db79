"""``sdpo envs prepare``: files in their published form, built here, become what the environments read; broken ones do not."""

from __future__ import annotations

import base64
import hashlib
import json
import pickle
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants

from sdpo.cli import main
from sdpo.config.compose import train_config
from sdpo.environments.preparing.command import recipes
from sdpo.envs import registry
from sdpo.envs.base import Environment
from sdpo.envs.code.trials import FunctionTests, ProgramTests

Rows = list[dict[str, Any]]


def written(file: Path, rows: Sequence[object]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def prepared(name: str, *words: str) -> int:
    return main(["envs", "prepare", name, *words])


def lines_of(file: Path) -> Rows:
    return [json.loads(line) for line in file.read_text().splitlines()]


def environment_of(name: str, folder: Path) -> Environment:
    """As ``experiment=paper/NAME_sdpo`` makes it, but for the folder."""
    env = train_config([f"experiment=paper/{name}_sdpo"]).env
    places = {key: str(folder / Path(str(env.options[key])).name) for key in ("path", "heldout_path")}
    return registry.make(env.name, {**env.options, **places})


def refusal(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().err.split())


# Science: the hub's form, and that of the authors of SDPO.


def hub_row(number: int, *, domain: str = "Chemistry", level: str = "L3", kind: str = "mcq-4-choices") -> dict[str, Any]:
    return {
        "question": f"How many atoms has molecule {number}?",
        "answer": "",
        "answerKey": "ABCD"[number % 4],
        "choices": {"text": [str(number + k) for k in range(4)], "label": ["A", "B", "C", "D"]},
        "prompt": {"default": "Choose."},
        "type": kind,
        "domain": domain,
        "details": {"level": level, "task": "counting", "subtask": "atoms", "source": "made up"},
    }


HUB_ROWS = [hub_row(number) for number in range(60)]


def test_science_questions_of_the_hub(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    others = [hub_row(70, domain="Physics"), hub_row(71, level="L1"), hub_row(72, kind="open-ended-qa"), hub_row(3)]
    written(tmp_path / "hub" / "data" / "chemistry.jsonl", [*HUB_ROWS, *others])
    folder = tmp_path / "tasks"
    assert prepared("chemistry", f"from={tmp_path / 'hub'}", f"to={folder}") == 0
    told = capsys.readouterr().out
    train, heldout = (lines_of(folder / f"{split}.jsonl") for split in ("train", "heldout"))
    assert len(train) + len(heldout) == 60
    assert 0 < len(heldout) < 15
    for reason in ("of another subject", "not of level L3", "no multiple-choice question", "the same question stood before it"):
        assert f"1 rows, because {reason}" in told.replace("because it is ", "because ")
    for split, rows in (("train", train), ("heldout", heldout)):
        digest = hashlib.sha256((folder / f"{split}.jsonl").read_bytes()).hexdigest()
        assert f"{split}.jsonl: {len(rows)} tasks, SHA-256 {digest}" in told
    environment = environment_of("chemistry", folder)
    by_prompt = {row["question"]: row for row in HUB_ROWS}
    for task in [*environment.tasks("train", 0), *environment.tasks("heldout", 0)]:
        system, user = task.messages
        row = by_prompt[user.content.partition("\n")[0]]
        assert all(f"{letter}: {text}" in user.content for letter, text in zip("ABCD", row["choices"]["text"], strict=True))
        assert "<answer>" in system.content
        assert environment.verify(task, f"<answer>{row['answerKey']}</answer>").reward == 1.0
        assert environment.verify(task, "<answer>Z</answer>").reward == 0.0


def test_the_same_files_are_prepared_alike_wherever_a_row_stands(tmp_path: Path) -> None:
    """A held-out question stays one when rows come or go."""
    written(tmp_path / "a" / "x.jsonl", HUB_ROWS)
    written(tmp_path / "b" / "x.jsonl", HUB_ROWS[5:][::-1])
    for name in ("a", "b", "again"):
        source = tmp_path / ("a" if name == "again" else name)
        assert prepared("chemistry", f"from={source}", f"to={tmp_path / 'to' / name}") == 0
    first, fewer, again = (
        {row["prompt"] for row in lines_of(tmp_path / "to" / name / "heldout.jsonl")} for name in ("a", "b", "again")
    )
    left = {row["prompt"] for split in ("train", "heldout") for row in lines_of(tmp_path / "to" / "b" / f"{split}.jsonl")}
    assert first == again
    assert fewer == first & left
    assert (tmp_path / "to/a/train.jsonl").read_bytes() == (tmp_path / "to/again/train.jsonl").read_bytes()


def shipped(number: int) -> dict[str, Any]:
    prompt = f"Which is {number}?\n\nA: {number}\nB: {number + 1}\nPlease reason."
    row = {"idx": number, "kind": "mcq", "dataset": "sciknoweval", "answer": "A", "prompt": prompt, "system": "\nChoose.\n"}
    return {**row, "elo": 1500, "tests": "-", "description": "-", "embedding": []}


def test_the_authors_own_division_is_kept(tmp_path: Path) -> None:
    written(tmp_path / "own" / "train.json", [shipped(number) for number in range(5)])
    written(tmp_path / "own" / "test.json", [shipped(number) for number in range(5, 7)])  # both count from where they like
    (tmp_path / "own" / "train.parquet").write_bytes(b"made of the JSON, for another trainer")
    folder = tmp_path / "tasks"
    assert prepared("physics", f"from={tmp_path / 'own'}", f"to={folder}") == 0
    assert [row["prompt"] for row in lines_of(folder / "heldout.jsonl")] == [shipped(number)["prompt"] for number in (5, 6)]
    assert len(environment_of("physics", folder).tasks("train", 0)) == 5


def without(row: dict[str, Any], key: str) -> dict[str, Any]:
    return {other: value for other, value in row.items() if other != key}


BROKEN_SCIENCE: list[tuple[object, str]] = [
    ({**hub_row(99), "answerKey": "E"}, "'answerKey' must be one of the labels A, B, C, D; got 'E'"),
    ({**hub_row(99), "answerKey": ""}, "'answerKey' must be a text that is not blank"),
    ({**hub_row(99), "question": "  "}, "'question' must be a text that is not blank"),
    ({**hub_row(99), "question": "half \ud800"}, "'question' must be Unicode"),
    ({**hub_row(99), "choices": {"text": ["1", "2"], "label": ["A"]}}, "must have a label for each"),
    ({**hub_row(99), "choices": {"text": ["1"], "label": ["A"]}}, "at least 2 texts"),
    ({**hub_row(99), "choices": {"text": ["1", "2"], "label": ["A", "a"]}}, "different letters"),
    ({**hub_row(99), "choices": {"text": ["1", "2"], "label": ["A", "10"]}}, "different letters"),
    ({**hub_row(99), "choices": {"text": ["1", "\t"], "label": ["A", "B"]}}, "not blank"),
    ({**hub_row(99), "choices": {"text": ["so", " So "], "label": ["A", "B"]}}, "'choices' must be different"),
    ({**hub_row(99), "choices": None}, "'choices' must be a JSON object"),
    ({**hub_row(99), "details": "L3"}, "'details' must be a JSON object"),
    (without(hub_row(99), "domain"), "'domain' must be a text"),
    ({**hub_row(1), "answerKey": "A"}, "a question must have one answer; at"),
    ({"text": "?"}, "a row must be SciKnowEval's"),
    ([1], "a row must be a JSON object"),
    ({**hub_row(99), "question": "x" * 1_100_000}, "at most 1000000 characters"),
]


@pytest.mark.parametrize(("row", "rule"), BROKEN_SCIENCE, ids=[rule for _, rule in BROKEN_SCIENCE])
def test_a_broken_question_is_refused_with_its_line(
    row: object, rule: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path / "hub" / "x.jsonl", [*HUB_ROWS[:40], row, *HUB_ROWS[40:]])
    assert prepared("chemistry", f"from={tmp_path / 'hub'}", f"to={tmp_path / 'tasks'}") == 2
    said = refusal(capsys)
    assert f"{file.name}, line 41: " in said
    assert rule in said
    assert [entry.name for entry in tmp_path.iterdir()] == ["hub"]


def test_broken_questions_may_be_left_out_and_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = {**hub_row(99), "answerKey": "\x1b[31m[bold]E"}
    written(tmp_path / "hub" / "x.jsonl", [*HUB_ROWS, {**hub_row(98), "answerKey": "E"}, hostile])
    assert prepared("chemistry", f"from={tmp_path / 'hub'}", f"to={tmp_path / 'tasks'}", "broken=leave_out") == 0
    told = capsys.readouterr().out
    assert "broken and left out: 2 rows" in told
    assert "line 61: 'answerKey' must be one of" in told
    assert "\x1b[31m" not in told
    assert sum(len(lines_of(tmp_path / "tasks" / f"{split}.jsonl")) for split in ("train", "heldout")) == 60


@pytest.mark.parametrize("end", ['{"question": "cut o', "NaN {", "\x00", '"' + "[" * 100_000])
def test_a_file_that_was_cut_off_is_refused_even_so(end: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Who knows what else is missing."""
    file = written(tmp_path / "hub" / "x.jsonl", HUB_ROWS)
    file.write_text(file.read_text() + end)
    assert prepared("chemistry", f"from={tmp_path / 'hub'}", f"to={tmp_path / 'tasks'}", "broken=leave_out") == 2
    assert "x.jsonl, line 61: must be JSON" in refusal(capsys)
    assert not (tmp_path / "tasks").exists()


# Tool use.

TOOLS = 'Documentation:\nsearch: Look.\nParameters: {"color": "Required. string. One of: [red, blue]. It."}\n'


def tool_row(number: int, answer: object = None) -> dict[str, Any]:
    calls = [{"Action": "search", "Action_Input": json.dumps({"color": "red", "page": number})}]
    asked = f"{TOOLS}Begin!\nQuestion: picture {number}?"
    answer = json.dumps(calls) if answer is None else answer
    return {"prompt": asked, "idx": number, "system": None, "answer": answer, "tests": None, "kind": "tooluse", "elo": 1500}


def test_tool_use_of_the_authors(tmp_path: Path) -> None:
    written(tmp_path / "own" / "train.json", [tool_row(number) for number in range(6)])
    written(tmp_path / "own" / "test.json", [tool_row(6)])
    folder = tmp_path / "tasks"
    assert prepared("tool_use", f"from={tmp_path / 'own'}", f"to={folder}") == 0
    environment = environment_of("tool_use", folder)
    (task,) = environment.tasks("heldout", 0)
    right = 'Thought: a\nAction: search\nAction Input: {"color": "red", "page": 6}'
    assert environment.verify(task, right).reward == 1.0
    wrong = environment.verify(task, right.replace("6", "5"))
    assert wrong.reward == 0.0
    assert "6" not in (wrong.feedback or "")
    assert lines_of(folder / "train.jsonl")[0]["answer"] == [{"Action": "search", "Action_Input": {"color": "red", "page": 0}}]


@pytest.mark.parametrize(
    ("answer", "rule"),
    [
        ("[]", "at least one call"),
        ("[{", "'answer' must hold the right calls"),
        ([{"Action": "search"}], "Action and Action_Input"),
        ([{"Action": "search", "Action_Input": "no"}], "'answer' must hold the right calls"),
        ([{"Action": "search", "Action_Input": {"x": float("nan")}}], "numbers must be JSON's"),
        ("[" * 100_000, "'answer' must hold the right calls"),
        (7, "'answer' must hold the right calls"),
    ],
)
def test_calls_that_cannot_be_read_are_refused(
    answer: object, rule: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written(tmp_path / "own" / "train.json", [tool_row(0), tool_row(1, answer)])
    written(tmp_path / "own" / "test.json", [tool_row(6)])
    assert prepared("tool_use", f"from={tmp_path / 'own'}", f"to={tmp_path / 'tasks'}") == 2
    said = refusal(capsys)
    assert rule in said
    assert "train.json, line 2" in said


def test_a_question_on_both_sides_is_refused_and_can_be_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(tmp_path / "own" / "train.json", [tool_row(number) for number in range(4)])
    written(tmp_path / "own" / "test.json", [tool_row(6), {**tool_row(2), "prompt": tool_row(2)["prompt"].upper()}])
    assert prepared("tool_use", f"from={tmp_path / 'own'}", f"to={tmp_path / 'tasks'}") == 2
    assert "must not be trained on and held out" in refusal(capsys)
    assert prepared("tool_use", f"from={tmp_path / 'own'}", f"to={tmp_path / 'tasks'}", "broken=leave_out") == 0
    train, heldout = (lines_of(tmp_path / "tasks" / f"{split}.jsonl") for split in ("train", "heldout"))
    assert (len(train), len(heldout)) == (3, 2)


def test_tool_use_needs_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepared("tool_use", f"to={tmp_path / 'tasks'}") == 2
    assert "tool_use is not on the hub; give from=FOLDER with train.json and test.json" in refusal(capsys)


# LiveCodeBench.


def packed(tests: object) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(tests)))).decode()


def contest_row(number: int, day: str, *, private: object = None, starter: str = "") -> dict[str, Any]:
    kind = "functional" if starter else "stdin"
    tests = [{"input": str(k), "output": str(k + number), "testtype": kind} for k in range(11)]
    return {
        "question_title": f"Sum {number}",
        "question_content": f"Print n plus {number}.",
        "platform": "atcoder",
        "question_id": f"abc{number}",
        "contest_id": "abc",
        "contest_date": f"{day}T00:00:00",
        "starter_code": starter,
        "difficulty": "hard",
        "public_test_cases": json.dumps(tests[:1]),
        "private_test_cases": packed(tests[1:]) if private is None else private,
        "metadata": json.dumps({"func_name": "add"} if starter else {}),
    }


DAYS = ["2025-01-31", "2025-02-01", "2025-03-15", "2025-04-30", "2025-05-01"]


def test_contests_of_the_papers_months_are_trained_on_with_half_of_their_tests(tmp_path: Path) -> None:
    rows = [contest_row(number, day) for number, day in enumerate(DAYS)]
    rows.append(contest_row(7, "2025-02-02", starter="class Solution:\n    def add(self, n):\n        "))
    written(tmp_path / "hub" / "test6.jsonl", rows)
    written(tmp_path / "hub" / "test5.jsonl", [{"not": "read"}])
    folder = tmp_path / "tasks"
    assert prepared("livecodebench", f"from={tmp_path / 'hub'}", f"to={folder}") == 0
    files = {split: lines_of(folder / f"{split}.jsonl") for split in ("train", "heldout", "train_all_tests")}
    assert [row["question_id"] for row in files["train"]] == ["abc1", "abc2", "abc3", "abc7"]
    assert [row["question_id"] for row in files["heldout"]] == ["abc0", "abc4"]
    for half, whole in zip(files["train"], files["train_all_tests"], strict=True):
        some, every = (json.loads(row["private_test_cases"]) for row in (half, whole))
        assert (len(some), len(every)) == (5, 10)
        assert [test for test in every if test in some] == some
        assert {**half, "private_test_cases": ""} == {**whole, "private_test_cases": ""}
    tasks = {task.id: task for task in environment_of("livecodebench", folder).tasks("train", 0)}
    program, function = tasks["code_file/abc1"].payload, tasks["code_file/abc7"].payload
    assert isinstance(program, ProgramTests)
    assert isinstance(function, FunctionTests)
    assert (len(program.visible), len(program.hidden), len(function.hidden)) == (1, 5, 5)


class Runs:
    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return (exec, ("raise SystemExit('it was run')",))


BROKEN_CONTESTS: list[tuple[dict[str, Any], str]] = [
    (contest_row(9, "2025-02-02", private="%%%"), "'private_test_cases' must be base64"),
    (contest_row(9, "2025-02-02", private=base64.b64encode(zlib.compress(pickle.dumps(Runs()))).decode()), "pickle of one text"),
    (contest_row(9, "2025-02-02", private=packed([{"input": "1"}])), "must have input, output and testtype"),
    (contest_row(9, "2025-02-02", private='[{"input": 1'), "must be JSON"),
    (contest_row(9, "some day"), "'contest_date' must be a date"),
    ({**contest_row(9, "2025-02-02"), "question_id": " "}, "'question_id' must be a text"),
    (without(contest_row(9, "2025-02-02"), "public_test_cases"), "must have public_test_cases"),
    (contest_row(9, "2025-02-02", starter="def add") | {"metadata": "{}"}, "'metadata' must name the function"),
]


@pytest.mark.parametrize(("row", "rule"), BROKEN_CONTESTS, ids=[rule for _, rule in BROKEN_CONTESTS])
def test_a_broken_contest_is_refused_and_nothing_in_it_is_run(
    row: dict[str, Any], rule: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written(tmp_path / "hub" / "test6.jsonl", [*(contest_row(number, day) for number, day in enumerate(DAYS)), row])
    assert prepared("livecodebench", f"from={tmp_path / 'hub'}", f"to={tmp_path / 'tasks'}") == 2
    said = refusal(capsys)
    assert rule in said
    assert "test6.jsonl, line 6" in said


# The command.


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (["alchemy", "to=x"], "must be one of biology, chemistry"),
        (["chemistry"], "to= must name the folder to make"),
        (["chemistry", "to="], "to= must name the folder to make"),
        (["chemistry", "to=x", "broken=maybe"], "broken must be refuse or leave_out"),
        (["chemistry", "to=x", "colour=red"], "takes to=, from=, level=, broken="),
        (["chemistry", "to=x", "from=../nowhere"], "from= must be a folder with the published files, or a dataset's id"),
        (["chemistry", "to=x", "from=a/b/c"], "from= must be a folder"),
        (["chemistry", "to=x", "from=."], "prepared from files called"),
        (["livecodebench", "to=x", "from=."], "prepared from files called test6.jsonl"),
        (["chemistry", "to=there"], "to= must be a new folder; there is there already"),
    ],
)
def test_what_cannot_be_prepared_is_refused(
    words: list[str], rule: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    assert prepared(*words) == 2
    assert rule in refusal(capsys)
    assert [entry.name for entry in tmp_path.iterdir()] == ["there"]


def test_a_split_without_tasks_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(tmp_path / "own" / "train.json", [tool_row(0)])
    assert prepared("tool_use", f"from={tmp_path / 'own'}", f"to={tmp_path / 'tasks'}") == 2
    assert "both splits need tasks" in refusal(capsys)
    assert prepared("chemistry", f"from={tmp_path / 'own'}", f"to={tmp_path / 'tasks'}") == 2
    assert "a set needs a task" in refusal(capsys)


def test_without_a_network_the_way_out_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    assert prepared("chemistry", f"to={tmp_path / 'tasks'}") == 2
    said = refusal(capsys)
    assert "the dataset hicai-zju/SciKnowEval must be fetched from the hub; that failed" in said
    assert "give from=FOLDER" in said


def test_the_hub_is_asked_for_the_files_that_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def snapshot(dataset: str, *, repo_type: str, allow_patterns: list[str]) -> str:
        asked.extend([dataset, repo_type, allow_patterns])
        return str(tmp_path / "hub")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    written(tmp_path / "hub" / "test6.jsonl", [contest_row(number, day) for number, day in enumerate(DAYS)])
    assert prepared("livecodebench", f"to={tmp_path / 'tasks'}") == 0
    assert asked == ["livecodebench/code_generation_lite", "dataset", ["test6.jsonl", "**/test6.jsonl"]]


def test_every_experiment_of_the_paper_has_a_recipe() -> None:
    experiments = Path(__file__).parent.parent.parent / "conf" / "experiment" / "paper"
    assert {file.stem.rpartition("_")[0] for file in experiments.glob("*.yaml")} == set(recipes("L3"))
