"""Tasks that the user brings: a goal with bounds, a file with a problem."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from sdpo.envs.base import ReadsFiles
from sdpo.envs.chemistry import Chemistry
from sdpo.envs.code import Code


def goal(tmp_path: Path, record: object) -> str:
    file = tmp_path / "goal.json"
    file.write_text(record if isinstance(record, str) else json.dumps(record))
    return str(file)


def test_a_goal_is_a_task_that_its_environment_judges(tmp_path: Path) -> None:
    path = goal(tmp_path, {"goal": "A small solvent.", "bounds": {"weight": [None, 60], "heavy_atoms": [3, 3], "rings": [0, 0]}})
    environment = Chemistry()
    assert isinstance(environment, ReadsFiles)
    (task,) = environment.from_file(path)
    text = task.messages[-1].content
    assert "A small solvent." in text
    assert "molecular weight in g/mol: at most 60" in text
    assert "number of rings: exactly 0" in text
    task = pickle.loads(pickle.dumps(task))
    assert environment.verify(task, "<answer>CCO</answer>").is_solved
    verdict = environment.verify(task, "<answer>c1ccccc1</answer>")
    assert (verdict.reward, "above 60" in str(verdict.feedback)) == (0.0, True)


def test_a_goal_counts_the_rings_of_a_bridged_molecule_as_a_chemist_does(tmp_path: Path) -> None:
    """RDKit's set of rings holds three of this one."""
    (task,) = Chemistry().from_file(goal(tmp_path, {"bounds": {"rings": [2, 2]}}))
    assert Chemistry().verify(task, "<answer>**C1CC2CC1C2**</answer>").is_solved
    assert not Chemistry().verify(task, "<think><answer>C1CC2CC1C2</answer></think>").is_solved


@pytest.mark.parametrize(
    "record",
    [
        "", "{", "[]", "\x00", {"bounds": {}}, {"bounds": []}, {"bounds": {"colour": [1, 2]}}, {"bounds": {"rings": [2, 1]}},
        {"bounds": {"rings": [None, None]}}, {"bounds": {"rings": 1}}, {"bounds": {"rings": [1]}},
        {"bounds": {"rings": ["1", 2]}},
        {"bounds": {"rings": [True, 2]}}, {"bounds": {"rings": [float("nan"), 2]}}, {"goal": 1, "bounds": {"rings": [1, 2]}},
    ],
)  # fmt: skip
def test_what_is_no_goal_is_refused(record: object, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"goal\.json"):
        Chemistry().from_file(goal(tmp_path, record))


def test_a_problem_of_a_file_is_judged_by_its_own_tests(tmp_path: Path) -> None:
    file = tmp_path / "problem.jsonl"
    row = {"task_id": 7, "text": "Write a function to double a number.", "code": "", "test_list": ["assert double(2) == 4"] * 2}
    file.write_text(json.dumps(row) + "\n")
    environment = Code()
    (task,) = environment.from_file(str(file))
    assert task.env == "code"
    assert environment.verify(task, "```python\ndef double(x):\n    return 2 * x\n```").is_solved
    assert not environment.verify(task, "```python\ndef double(x):\n    return x\n```").is_solved


@pytest.mark.parametrize("text", ["", "{}\n", "no json\n"])
def test_a_file_without_a_problem_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "problem.jsonl"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"problem\.jsonl"):
        Code().from_file(str(file))
