"""Properties of the environment ``reward_function``: files of prompts, forms of functions, and what they may return."""

from __future__ import annotations

import json
import pickle
from importlib.util import find_spec
from pathlib import Path

import pytest

from sdpo.envs.adapters.reward_function import RewardFunction
from sdpo.envs.base import Environment, Role, Verdict

FUNCTIONS = """
def exact(completion, *, answer):
    return float(completion == answer)

def explained(completion, answer, **columns):
    if completion == answer:
        return 1.0, None
    return 0.25, f"{len(completion)} letters are not it. " + "x" * 2000 * ("long" in completion)

def trl(completions, answer, **kwargs):
    return [1.0 if completion == right else 0.0 for completion, right in zip(completions, answer)]

def trl_explained(prompts, completions, answer):
    return [(float(c == a), "no") for p, c, a in zip(prompts, completions, answer)]

def trl_conversation(prompts, completions, answer):
    assert prompts[0][-1]["role"] == "user"
    return [float(completion[0]["content"] == right and completion[0]["role"] == "assistant")
            for completion, right in zip(completions, answer)]

async def awaited(completions, answer, **kwargs):
    return [float(c == a) for c, a in zip(completions, answer)]

def signed(completion, answer):
    return 1 if completion == answer else -1

def nearly(completion):
    return 0.7 + 0.2 + 0.1

def big(completion):
    return 3

def nan(completion):
    return float("nan")

def nothing(completion):
    return None

def words(completion):
    return "good"

def too_many(completions):
    return [0.0, 1.0]

def broken(completion):
    raise KeyError("mine")

def sees_prompt(completion, prompt):
    return float(prompt in completion)

not_callable = 3
"""
ROWS = [
    {"prompt": f"Say {word}.", "answer": word, "level": place}
    for place, word in enumerate(["red", "green", "blue", "grey", "pink"])
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rewards.py").write_text(FUNCTIONS)
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in ROWS) + "\n\n")
    (tmp_path / "heldout.json").write_text(json.dumps([{"prompt": "Say black.", "answer": "black", "level": 9}]))
    return tmp_path


def make(folder: Path, function: str = "exact", **options: object) -> RewardFunction:
    held_out = {} if "heldout_share" in options else {"heldout_path": str(folder / "heldout.json")}
    known: dict[str, object] = {"path": str(folder / "rows.jsonl"), "function": f"{folder}/rewards.py:{function}", **held_out}
    return RewardFunction(**{**known, **options})  # type: ignore[arg-type]


def verdict(env: RewardFunction, completion: str) -> Verdict:
    (task,) = env.tasks("heldout", 0)
    return env.verify(task, completion)


def test_it_is_an_environment_whose_tasks_are_the_rows(folder: Path) -> None:
    env = make(folder)
    assert isinstance(env, Environment)
    tasks = env.tasks("train", 0)
    assert {task.messages[-1].content for task in tasks} == {row["prompt"] for row in ROWS}
    assert pickle.loads(pickle.dumps(tasks)) == tasks
    assert [task.id for task in tasks] == [task.id for task in make(folder).tasks("train", 0)]
    assert [task.id for task in tasks] != [task.id for task in env.tasks("train", 1)]


@pytest.mark.parametrize("function", ["exact", "explained", "trl", "trl_explained", "awaited"])
def test_every_form_of_function_rewards_what_it_says(folder: Path, function: str) -> None:
    env = make(folder, function)
    assert verdict(env, "black").is_solved
    assert not verdict(env, "white").is_solved


def test_a_function_that_wants_a_conversation_gets_one_where_the_prompt_is_one(folder: Path) -> None:
    row = {"prompt": [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Say black."}], "answer": "black"}
    (folder / "heldout.json").write_text(json.dumps([row]))
    env = make(folder, "trl_conversation")
    (task,) = env.tasks("heldout", 0)
    assert [message.role for message in task.messages] == [Role.system, Role.user]
    assert env.verify(task, "black").is_solved
    assert not env.verify(task, "white").is_solved


def test_a_prompt_is_passed_to_a_function_that_names_it(folder: Path) -> None:
    assert verdict(make(folder, "sees_prompt"), "You told me: Say black.").is_solved


def test_feedback_is_the_functions_own_and_cut_where_it_is_long(folder: Path) -> None:
    env = make(folder, "explained", max_feedback_chars=100)
    assert verdict(env, "white").feedback == "5 letters are not it."
    long = verdict(env, "long white").feedback
    assert long is not None
    assert len(long) <= 104
    assert verdict(env, "black").feedback is None
    assert verdict(make(folder, "exact"), "white").feedback is None


def test_a_scale_says_which_rewards_mean_0_and_1(folder: Path) -> None:
    env = make(folder, "signed", scale=[-1, 1])
    assert verdict(env, "black").reward == 1.0
    assert verdict(env, "white").reward == 0.0
    assert verdict(env, "white").metrics == {"raw_reward": -1.0}


def test_weights_that_add_up_to_one_but_for_rounding_are_full_marks(folder: Path) -> None:
    assert verdict(make(folder, "nearly"), "").is_solved


@pytest.mark.parametrize(
    ("function", "complaint"),
    [
        ("big", r"must lie in \[0, 1\]; .*returned 3.0.*env.options.scale"),
        ("nan", r"must lie in \[0, 1\]; .*returned nan"),
        ("nothing", "must return a number.*got None"),
        ("words", "must return a number.*got 'good'"),
        ("too_many", "a list with one reward a completion"),
        ("signed", r"must lie in \[0, 1\]; .*returned -1.0"),
    ],
)
def test_a_return_value_that_is_no_reward_is_refused_as_a_sentence(folder: Path, function: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        verdict(make(folder, function), "white")


def test_what_a_function_raises_is_its_authors_to_see(folder: Path) -> None:
    with pytest.raises(KeyError, match="mine"):
        verdict(make(folder, "broken"), "white")


@pytest.mark.parametrize("completion", ["", "\0", "\ud800", "x" * 1_000_000, "[" * 100_000, "∀\u202e"])
def test_any_text_reaches_the_function(folder: Path, completion: str) -> None:
    assert verdict(make(folder, "exact"), completion).reward == 0.0
    assert verdict(make(folder, "trl"), completion).reward == 0.0


def test_a_share_is_held_out_by_the_prompt_alone(folder: Path) -> None:
    rows = [{"prompt": f"Say {number}.", "answer": str(number)} for number in range(1000)]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    env = make(folder, heldout_share=0.2)
    train, heldout = ({task.messages for task in env.tasks(split, 0)} for split in ("train", "heldout"))
    assert len(train) + len(heldout) == 1000
    assert train.isdisjoint(heldout)
    assert 140 < len(heldout) < 260
    (folder / "rows.jsonl").write_text("\n".join(json.dumps({**row, "answer": "other"}) for row in rows[::-1]))
    assert {task.messages for task in make(folder, heldout_share=0.2).tasks("heldout", 1)} == heldout


def test_a_relative_file_means_the_same_in_another_folder(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(folder)
    env = RewardFunction(path="rows.jsonl", heldout_path="heldout.json", function="rewards.py:exact")
    (task,) = env.tasks("heldout", 0)
    other = tmp_path / "elsewhere"
    other.mkdir()
    monkeypatch.chdir(other)
    assert env.verify(task, "black").is_solved


def test_a_function_of_a_module_is_found(folder: Path) -> None:
    env = RewardFunction(path=str(folder / "rows.jsonl"), heldout_share=0.5, function="operator:truth")
    task = env.tasks("train", 0)[0]
    assert env.verify(task, "anything").is_solved
    assert not env.verify(task, "").is_solved


def test_a_system_prompt_is_put_before_prompts_that_have_none(folder: Path) -> None:
    task = make(folder, system_prompt="Be short.").tasks("train", 0)[0]
    assert (task.messages[0].role, task.messages[0].content) == (Role.system, "Be short.")
    (folder / "heldout.json").write_text(json.dumps([{"prompt": "Say black.", "system": "Be loud.", "answer": "black"}]))
    (task,) = make(folder, system_prompt="Be short.").tasks("heldout", 0)
    assert [m.content for m in task.messages] == ["Be loud.", "Say black."]


@pytest.mark.skipif(find_spec("pyarrow") is None, reason="pyarrow is not installed, which reads Parquet")
def test_a_parquet_file_is_read(folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(ROWS), folder / "rows.parquet")
    expected = {task.id for task in make(folder).tasks("train", 0)}
    assert {task.id for task in make(folder, path=str(folder / "rows.parquet")).tasks("train", 0)} == expected


@pytest.mark.skipif(find_spec("datasets") is None, reason="the library datasets is not installed, which reads saved datasets")
def test_a_saved_dataset_is_read(folder: Path) -> None:
    import datasets

    datasets.Dataset.from_list(ROWS).save_to_disk(str(folder / "saved"))
    expected = {task.id for task in make(folder).tasks("train", 0)}
    assert {task.id for task in make(folder, path=str(folder / "saved")).tasks("train", 0)} == expected


@pytest.mark.skipif(find_spec("pyarrow") is not None, reason="pyarrow is installed")
def test_a_parquet_file_without_its_reader_is_refused_by_name(folder: Path) -> None:
    (folder / "rows.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="needs the package pyarrow"):
        make(folder, path=str(folder / "rows.parquet")).tasks("train", 0)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "has none for 'train'"),
        ('{"prompt": "a"}\n{"prompt": ', "line 2"),
        ('["a"]', "row 1 .* is a str"),
        ("[1", "JSON array"),
        ('{"question": "a"}', r"column 'prompt' .*\['question'\]"),
        ('{"prompt": ""}', "column 'prompt'"),
        ('{"prompt": [{"role": "wizard", "content": "a"}]}', "role"),
        ('{"prompt": [{"role": "assistant", "content": "a"}]}', "last is the user's"),
        ('{"prompt": 3}', "a prompt must be a text"),
    ],
)
def test_a_broken_file_is_refused_with_its_place(folder: Path, text: str, complaint: str) -> None:
    (folder / "rows.jsonl").write_text(text)
    with pytest.raises(ValueError, match=complaint):
        make(folder).tasks("train", 0)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"heldout_path": None}, "exactly one"),
        ({"heldout_share": 0.5, "heldout_path": "x"}, "exactly one"),
        ({"heldout_share": 1.5}, "between 0 and 1"),
        ({"scale": [1, 0]}, "scale must be"),
        ({"scale": [0, 1, 2]}, "scale must be"),
        ({"scale": [0, float("inf")]}, "scale must be"),
        ({"max_feedback_chars": 0}, "at least 1"),
    ],
)
def test_options_out_of_range_are_refused(folder: Path, options: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        make(folder, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("function", ["rewards", "rewards.py:", ":reward", "rewards.py:re ward"])
def test_half_a_function_is_refused(folder: Path, function: str) -> None:
    with pytest.raises(ValueError, match=r"must be module:function or file\.py:function"):
        RewardFunction(path=str(folder / "rows.jsonl"), heldout_share=0.5, function=function)


@pytest.mark.parametrize(
    ("function", "complaint"),
    [("absent", "none called 'absent'"), ("not_callable", "none called 'not_callable'")],
)
def test_a_function_that_is_not_there_is_refused(folder: Path, function: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        make(folder, function).tasks("train", 0)
    with pytest.raises(ValueError, match="no file at"):
        RewardFunction(path=str(folder / "rows.jsonl"), heldout_share=0.5, function=f"{folder}/nowhere.py:f").tasks("train", 0)
    with pytest.raises(ValueError, match="No module named"):
        RewardFunction(path=str(folder / "rows.jsonl"), heldout_share=0.5, function="no_such_module:f").tasks("train", 0)
