"""``sdpo envs rescore RUN``: stored attempts judged again, what changed told, and the run's folder left as it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from sdpo.cli import main
from sdpo.environments import rescore
from sdpo.preflight import checks

COUNTING = '''
from sdpo.types import Message, Role, Task, Verdict


class Counting:
    """Asks for a number, and rewards it from a threshold on."""

    name = "counting"

    def __init__(self, *, least: int = 5, verb: str = "Count") -> None:
        self.least, self.verb = least, verb

    def tasks(self, split, seed):
        if split not in ("train", "heldout"):
            raise ValueError("no such split")
        asked = [Message(role=Role.user, content=f"{self.verb} to {split} {seed} {n}.") for n in range(3)]
        return [Task(id=f"{split}/{n}", env="counting", messages=(one,), payload=n) for n, one in enumerate(asked)]

    def reply(self, task, transcript):
        return "more"

    def judge(self, task, transcript):
        print("judging")
        said = [message.content for message in transcript if message.role is Role.assistant]
        if said == ["broken"]:
            raise LookupError("no count")
        return Verdict(reward=float(sum(map(int, said)) >= self.least), feedback="Count on.")
'''


def line(split: str, number: int, seed: int, completion: str, reward: float | None, **more: object) -> dict[str, object]:
    """As the trainer writes it."""
    outcome = {"set_aside": "Traceback"} if reward is None else {"attempt": 0, "reward": reward, "feedback": None}
    question = f"Count to {split} {seed} {number}."
    return {"task": f"{split}/{number}", "question": question, "completion": completion, **outcome, **more}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with seed 7 of two steps and an evaluation, judged when ``least`` was 9."""
    (tmp_path / "counting.py").write_text(COUNTING)
    folder = tmp_path / "run"
    (folder / "rollouts").mkdir(parents=True)
    config = {
        "seed": 7,
        "env": {"name": f"{tmp_path}/counting.py:Counting", "options": {"least": 5}, "train_split": "train"},
        "sandbox": {"isolation": "auto", "allow_weak": False},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    two_turns = [
        {"role": "assistant", "content": "3"},
        {"role": "user", "content": "more"},
        {"role": "assistant", "content": "4"},
    ]
    write(folder / "rollouts/step_000001.jsonl", [line("train", 0, 7, "6", 0.0), line("train", 0, 7, "6", 0.0)], step=1)
    write(
        folder / "rollouts/step_000002.jsonl",
        [
            line("train", 1, 7, "9", 1.0),
            line("train", 2, 7, "3\n\n4", 0.0, turns=two_turns),
            line("train", 2, 7, "2", 0.0),
            line("train", 1, 7, "broken", 0.0),
            line("train", 1, 7, "8", None),
        ],
        step=2,
    )
    with (folder / "rollouts/step_000002.jsonl").open("a") as file:
        file.write('{"step": 2, "task": "train/1", "comple')  # a kill cut it off
    evaluation = {"step": 2, "k": 1, "attempts": [line("heldout", 1, 0, "7", 0.0), line("heldout", 2, 0, "1", 0.0)]}
    (folder / "evaluations.jsonl").write_text(json.dumps(evaluation) + "\n")
    return folder


def write(file: Path, lines: list[Mapping[str, object]], *, step: int) -> None:
    file.write_text("".join(json.dumps({"step": step, "task_index": 0, **one}) + "\n" for one in lines))


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {str(file): (file.read_bytes(), file.stat().st_mtime_ns) for file in sorted(folder.rglob("*")) if file.is_file()}


def rescored(capsys: pytest.CaptureFixture[str], run: Path, *words: str) -> dict[str, Any]:
    assert main(["envs", "rescore", str(run), *words, "json=true"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)  # what the environment prints is not in it
    return found


def test_every_attempt_is_judged_again_and_what_changed_is_listed(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(run)
    found = rescored(capsys, run)
    assert contents(run) == before
    assert (found["env"], found["tasks_gone"], found["questions_changed"]) == ("counting", 0, 0)
    changes = [(one["source"], one["step"], one["task"], one["before"], one["after"]) for one in found["changes"]]
    assert changes == [
        ("training", 1, "train/0", 0.0, 1.0),
        ("training", 1, "train/0", 0.0, 1.0),
        ("training", 2, "train/2", 0.0, 1.0),
        ("training", 2, "train/1", 0.0, None),
        ("training", 2, "train/1", None, 1.0),
        ("evaluation", 2, "heldout/1", 0.0, 1.0),
    ]
    training = found["training"]
    assert (training["attempts"], training["changed"]) == (7, 5)
    assert training["success_before"] == pytest.approx(1 / 6)
    assert training["success_after"] == pytest.approx(5 / 6)
    assert [(step["step"], step["success_before"], step["success_after"]) for step in training["steps"]] == [
        (1, 0.0, 1.0),
        (2, 0.25, 0.75),
    ]
    assert (found["evaluation"]["success_before"], found["evaluation"]["success_after"]) == (0.0, 0.5)
    assert [one["feedback"] for one in found["changes"] if one["after"] is None] == ["LookupError: no count"]


def test_several_turns_are_judged_as_several(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """3 and 4 are 7 in two turns, and 34 or no number in one."""
    found = rescored(capsys, run, "least=8")
    assert "train/2" not in {one["task"] for one in found["changes"]}
    assert "train/2" in {one["task"] for one in rescored(capsys, run, "least=7")["changes"]}


def test_options_of_the_command_go_before_those_of_the_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changed = {(one["task"], one["after"]) for one in rescored(capsys, run, "least=100")["changes"]}
    assert changed == {("train/1", 0.0), ("train/1", None)}


def test_attempts_whose_task_is_gone_or_asks_something_else_are_left_out_and_said(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(run / "rollouts/step_000003.jsonl", [line("train", 8, 7, "6", 0.0), line("heldout", 1, 7, "6", 0.0)], step=3)
    found = rescored(capsys, run)
    assert (found["tasks_gone"], found["training"]["attempts"]) == (2, 7)
    found = rescored(capsys, run, "verb=Add")
    assert (found["questions_changed"], found["training"]["attempts"], found["changes"]) == (9, 0, [])
    assert found["training"]["success_after"] is None
    assert main(["envs", "rescore", str(run), "verb=Add"]) == 0
    assert "9 attempts left out: their task asks something else today" in capsys.readouterr().out


def test_tables_show_tasks_steps_and_the_whole(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["envs", "rescore", str(run)]) == 0
    shown = capsys.readouterr().out
    for part in (
        "train/0",
        "set aside",
        "training: 5 of 7 verdicts changed; success 16.7% before, 83.3% now",
        "evaluation: 1 of 2 verdicts changed; success 0.0% before, 50.0% now",
        "was only read",
    ):
        assert part in shown


def test_what_is_no_run_is_refused(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refusal(folder: Path, *words: str) -> str:
        assert main(["envs", "rescore", str(folder), *words]) == 2
        said = capsys.readouterr().err
        assert "Traceback" not in said
        return " ".join(said.split())

    assert "rescore takes the folder of a run" in refusal(tmp_path / "nowhere")
    assert "rescore takes the folder of a run" in refusal(run / "config.yaml")
    assert "json must be true or false" in refusal(run, "json=yes")
    assert "takes only the options its constructor names; got 'color'" in refusal(run, "color=red")
    config = (run / "config.yaml").read_text()
    for text, says in (
        ("a: [", "rescore takes the folder of a run"),
        ("- 1", "it holds a list"),
        ("seed: 1", "must say under 'env' which environment"),
        (config.replace("counting.py:Counting", "gone.py:Counting"), "gone.py"),
        (
            config.replace("train_split: train", "train_split: missing"),
            "must still give the run's tasks; tasks('missing', 7) raised",
        ),
    ):
        (run / "config.yaml").write_text(text)
        assert says in refusal(run)
    (run / "config.yaml").write_text(config)
    (run / "rollouts/step_000001.jsonl").write_bytes(b"\xff\xfe\n")
    assert "must be a readable file of JSON lines" in refusal(run)
    for file in (run / "rollouts").iterdir():
        file.unlink()
    (run / "evaluations.jsonl").write_text("{}\n[]\n")
    assert "rescore judges stored attempts again" in refusal(run)


def test_heldout_tasks_are_those_that_training_holds_out() -> None:
    assert rescore.HELDOUT_SEED == checks.HELDOUT_SEED


def test_attempts_at_the_tasks_of_a_mix_are_judged_by_their_own_environments(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    counting = f"{run.parent}/counting.py:Counting"
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["env"]["name"] = "sdpo.envs.mix:Mix"
    config["env"]["options"] = {"members": {"few": {"name": counting}, "many": {"name": counting, "options": {"least": 8}}}}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    (run / "evaluations.jsonl").unlink()
    (run / "rollouts/step_000002.jsonl").unlink()
    attempts = [{**line("train", 1, 7, "6", 0.0), "task": f"{label}/train/1"} for label in ("few", "many", "gone")]
    write(run / "rollouts/step_000001.jsonl", attempts, step=1)
    found = rescored(capsys, run)
    assert (found["env"], found["tasks_gone"], found["questions_changed"]) == ("mix", 1, 0)
    assert [(one["task"], one["before"], one["after"]) for one in found["changes"]] == [("few/train/1", 0.0, 1.0)]
