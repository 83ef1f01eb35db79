"""Each fault that an author may make is found under its own name, and nothing else is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sdpo.environments import Inspection, check
from tests.environments.planted import PLANTED, SOUND, THIN
from tests.envs.test_check import FAULTS


def kinds(inspection: Inspection) -> list[str]:
    return sorted({f"{finding.severity.value} {finding.rule}" for finding in inspection.findings})


def test_there_are_ninety_planted_faults_and_more() -> None:
    """The table here and that of ``tests/envs/test_check.py`` have no fault in common."""
    assert not PLANTED.keys() & FAULTS.keys()
    assert len(PLANTED) + len(FAULTS) >= 90
    assert set(THIN) <= PLANTED.keys()


@pytest.mark.parametrize("name", ["Sound", "Guessing"])
def test_what_the_faults_are_planted_in_is_sound(name: str, tmp_path: Path) -> None:
    (tmp_path / "words.py").write_text(SOUND)
    inspection = check(f"{tmp_path / 'words.py'}:{name}")
    assert not inspection.findings, str(inspection)


@pytest.mark.parametrize("fault", [pytest.param(name, marks=() if name in THIN else pytest.mark.full) for name in PLANTED])
def test_each_planted_fault_is_found_and_nothing_else(fault: str, tmp_path: Path) -> None:
    """About fifty of ninety faults were found once, and a ``tasks()`` without an end only after 300 s."""
    planted = PLANTED[fault]
    (tmp_path / "words.py").write_text(f"{SOUND}\nclass Faulty({planted.base}):{planted.body}")
    inspection = check(f"{tmp_path / 'words.py'}:Faulty", num_tasks=2, verdict_limit_s=6.0, tasks_limit_s=2.5)
    assert kinds(inspection) == sorted(planted.findings), str(inspection)
    for finding in inspection.findings:
        assert finding.where
        assert finding.remedy.endswith(".")
        assert len(str(finding)) < 700


CHOICES = [
    {
        "idx": n,
        "kind": "mcq",
        "dataset": "made_up",
        "prompt": f"Which is the mass of {n} atoms?\n\nA: 1\nB: 2\nC: 3\nD: 4",
        "answer": "ABCD"[n % 4],
        "system": "Write <answer>A</answer>.",
    }
    for n in range(40)
]
GARDEN = """Name: Garden
Documentation:
plantTree: Plant a tree.
Parameters: {"kind": "Required. string. One of: [oak, elm]."}
Output: Done.

Use the format
Action: the tool's name
Action Input: its arguments as JSON

Question: """
CALLS = [
    {
        "prompt": f"{GARDEN}Plant an {tree} in {place}.",
        "answer": json.dumps([{"Action": "plantTree", "Action_Input": json.dumps({"kind": tree})}]),
        "system": None,
    }
    for tree in ("oak", "elm")
    for place in ("the garden", "the park", "a wood")
]
PROMPTS = [{"prompt": f"Which is number {n}? ({n * 7})", "answer": f"number{n * 7919}"} for n in range(40)]
REWARD = """
def reward(completion, *, answer):
    return (1.0, None) if completion == answer else (0.25, f"{len(completion)} letters are not it.")
"""


def shipped(folder: Path) -> dict[str, dict[str, object]]:
    """Every built-in environment that needs no other package, with its options."""
    for name, rows in (("choices", CHOICES), ("train", CALLS[:-2]), ("test", CALLS[-2:]), ("prompts", PROMPTS)):
        (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (folder / "rewards.py").write_text(REWARD)
    return {
        "chemistry": {},
        "code": {},
        "one_liners": {},
        "multiple_choice": {"path": f"{folder}/choices.jsonl", "heldout_share": 0.3},
        "tool_use": {"path": f"{folder}/train.jsonl", "heldout_path": f"{folder}/test.jsonl"},
        "reward_function": {
            "path": f"{folder}/prompts.jsonl",
            "heldout_share": 0.3,
            "function": f"{folder}/rewards.py:reward",
        },
    }


IN_THE_THIN_TIER = ("tool_use",)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in IN_THE_THIN_TIER else pytest.mark.full)
        for name in ("chemistry", "code", "one_liners", "multiple_choice", "tool_use", "reward_function")
    ],
)
def test_nothing_is_found_in_what_is_shipped(name: str, tmp_path: Path) -> None:
    """A false alarm teaches authors to overlook warnings. A busy machine makes verdicts slow, which is no fault of theirs."""
    inspection = check(name, shipped(tmp_path)[name], num_tasks=16 if name == "chemistry" else 2)
    assert not [finding for finding in inspection.findings if finding.rule not in ("slow", "slow-tasks")], str(inspection)
