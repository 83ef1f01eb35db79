"""Properties of the environment ``multiple_choice``: what it reads, refuses and says."""

from __future__ import annotations

import json
import pickle
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from sdpo.envs import registry
from sdpo.envs.base import Environment, Role, Task
from sdpo.envs.multiple_choice import MultipleChoice
from sdpo.envs.multiple_choice.rows import Row

SYSTEM = "\nPick one of four options. Reply like this:\n<answer>\nA\n</answer>\n"


def row(number: int, **changes: object) -> dict[str, object]:
    """In the shape that the published files have, the unused keys included."""
    return {
        "idx": number,
        "kind": "mcq",
        "dataset": "sciknoweval",
        "answer": "ABCD"[number % 4],
        "elo": 1500,
        "prompt": f"Which is the mass of {number} atoms?\n\nA: 1\nB: 2\nC: 3\nD: 4\nPlease reason step by step.",
        "description": "not read",
        "tests": "-",
        "embedding": [],
        "system": SYSTEM,
        **changes,
    }


def write(path: Path, rows: list[Mapping[str, object]]) -> str:
    path.write_text("".join(f"{json.dumps(one)}\n" for one in rows), encoding="utf-8")
    return str(path)


@pytest.fixture
def file(tmp_path: Path) -> str:
    return write(tmp_path / "train.json", [row(number) for number in range(200)])


def refusal(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"multiple_choice|train\.json") as refused:
        MultipleChoice(path=str(path))
    return str(refused.value)


def answer_of(task: Task) -> str:
    assert isinstance(task.payload, Row)
    return task.payload.answer


def test_it_is_made_by_the_registry_and_is_an_environment(file: str) -> None:
    environment = registry.make("sdpo.envs.multiple_choice:MultipleChoice", {"path": file})
    assert isinstance(environment, Environment)
    with pytest.raises(ValueError, match="needs the options path"):
        registry.make("sdpo.envs.multiple_choice:MultipleChoice", {})


def test_a_task_shows_system_and_prompt_as_they_stand_and_survives_pickling(file: str) -> None:
    for task in MultipleChoice(path=file).tasks("train", 0):
        system, user = task.messages
        assert (system.role, system.content, user.role) == (Role.system, SYSTEM, Role.user)
        assert isinstance(task.payload, Row)
        assert user.content == task.payload.prompt
        assert "not read" not in repr(task)
        assert pickle.loads(pickle.dumps(task)) == task


def test_without_a_system_text_there_is_no_system_message(tmp_path: Path) -> None:
    path = write(tmp_path / "train.json", [row(number, system="") for number in range(50)])
    assert [message.role for message in MultipleChoice(path=path).tasks("train", 0)[0].messages] == [Role.user]


def test_the_share_that_is_held_out_is_fixed_by_the_questions_and_the_split_seed(file: str, tmp_path: Path) -> None:
    environment = MultipleChoice(path=file, heldout_share=0.2)
    train, heldout = ({task.id for task in environment.tasks(split, 0)} for split in ("train", "heldout"))
    assert not train & heldout
    assert len(train | heldout) == 200
    assert 20 <= len(heldout) <= 60
    other = MultipleChoice(path=file, heldout_share=0.2, split_seed=1)
    assert {task.id for task in other.tasks("heldout", 0)} != heldout
    # Rows that are added or moved leave the others on their side, as does another number of a row.
    longer = write(tmp_path / "longer.json", [row(number) for number in reversed(range(250))])
    assert heldout <= {task.id for task in MultipleChoice(path=longer, heldout_share=0.2).tasks("heldout", 0)}


def test_the_seed_gives_the_order_but_not_the_tasks(file: str) -> None:
    environment = MultipleChoice(path=file)
    first, again, other = (environment.tasks("train", seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other
    assert set(first) == set(other)


def test_a_heldout_file_may_count_its_rows_anew_but_not_repeat_a_question(file: str, tmp_path: Path) -> None:
    new = [row(number, prompt=f"Another question {number}?\nA: 1\nB: 2") for number in range(5)]
    path = write(tmp_path / "test.json", new)
    environment = MultipleChoice(path=file, heldout_path=path)
    assert len(environment.tasks("train", 0)) == 200
    assert len(environment.tasks("heldout", 0)) == 5
    assert not {task.id for task in environment.tasks("train", 0)} & {task.id for task in environment.tasks("heldout", 0)}
    path = write(tmp_path / "test.json", [*new, row(7, idx=900)])
    with pytest.raises(ValueError, match=r"test.json:6 asks what .*train.json:8 asks"):
        MultipleChoice(path=file, heldout_path=path)


@pytest.mark.parametrize("written", ["{}", " {} ", "\n{}\n", "({})", "{}.", "{})"])
def test_only_the_right_letter_is_rewarded_in_either_case(file: str, written: str) -> None:
    environment = MultipleChoice(path=file)
    for task in environment.tasks("heldout", 0):
        for letter in "ABCDabcd":
            verdict = environment.verify(task, f"<reasoning>hm</reasoning><answer>{written.format(letter)}</answer>")
            assert verdict.is_solved == (letter.upper() == answer_of(task)) == (verdict.feedback is None)
            assert verdict.metrics == {"format_ok": 1.0}


def test_the_last_answer_counts_and_nothing_outside_the_tags(file: str) -> None:
    environment = MultipleChoice(path=file)
    (task, *_) = [task for task in environment.tasks("train", 0) if answer_of(task) == "B"]
    assert environment.verify(task, "<answer>A</answer> no: <answer>B</answer>").is_solved
    assert not environment.verify(task, "<answer>B</answer> no: <answer>A</answer>").is_solved
    for completion in ("B", "The answer is B.", "<answer>B", "B</answer>", "<answer>A, B</answer>", "\\boxed{B}"):
        verdict = environment.verify(task, completion)
        assert verdict.reward == 0.0
        assert verdict.metrics == {"format_ok": 0.0}


@pytest.mark.parametrize(
    "written",
    [
        *("**B**", r"\boxed{B}", "[B]", '"B"', "Option B", "B: 2", "$B$", "`B`", "“B”", "B.", "{B}", "__B__", "option (b)."),
        *(r"$\boxed{\text{(B)}}$", r"\(\mathrm{B}\)", "**Option B**", "The correct answer is: **B**", "Choice [B]", "Answer: B"),
        *(
            "**B**: 2",
            "**B: 2**",
            r"\boxed{B: 2}",
            "B) 2",
            "(B) 2",
            "B. two grams",
            "B - 2",
            "B\nsince a mole is that much",
            "B:2",
        ),
        *("B: A solution of it", "B: I am sure", "The answer is option B: 2"),
    ],
)
@pytest.mark.parametrize("tags", ["<answer>{}</answer>", "<ANSWER>\n{}\n</Answer>"])
def test_a_letter_is_read_however_it_is_set(file: str, written: str, tags: str) -> None:
    """Only a bare letter in lower-case tags was read: bold, boxed, quoted and labelled ones scored 0, right as they were."""
    environment = MultipleChoice(path=file)
    (task, *_) = [task for task in environment.tasks("train", 0) if answer_of(task) == "B"]
    assert environment.verify(task, tags.format(written)).is_solved
    other = written.replace("B", "C").replace("(b)", "(c)")
    assert environment.verify(task, tags.format(other)).metrics == {"format_ok": 1.0}
    assert not environment.verify(task, tags.format(other)).is_solved


@pytest.mark.parametrize(
    "written",
    [
        *("B or C", "B, C", "BC", "B/C", "B and C", "A B", "not B", "**B** **C**", "[B, C]", "Option B or C", "Beta", "B2"),
        *("B. or C", "B) or (C)", "b) or c)", "A: 1\nB: 2\nC: 3\nD: 4", "B: 2, C: 3", "B\nC", "B: C", "(B) (C)", "C: no. B: yes"),
    ],
)
def test_two_letters_are_no_answer(file: str, written: str) -> None:
    environment = MultipleChoice(path=file)
    (task, *_) = [task for task in environment.tasks("train", 0) if answer_of(task) == "B"]
    verdict = environment.verify(task, f"<answer>{written}</answer>")
    assert verdict.reward == 0.0
    assert verdict.metrics == {"format_ok": 0.0}


def test_an_option_whose_own_text_names_a_letter_may_be_copied(tmp_path: Path) -> None:
    prompt = "Which {} has it?\n\nA: **A gas** of C and D\nB: the vitamin C of an orange\nC: both A and B\nD: plan B\n"
    rows = [row(number, prompt=prompt.format(number), answer="C") for number in range(50)]
    environment = MultipleChoice(path=write(tmp_path / "train.json", rows))
    (task, *_) = environment.tasks("train", 0)
    assert environment.verify(task, "<answer>C: both A and B</answer>").is_solved
    assert environment.verify(task, "<answer>**(C) Both A and B.**</answer>").is_solved
    assert environment.verify(task, "<answer>B: the vitamin C</answer>").metrics == {"format_ok": 1.0}
    assert environment.verify(task, "<answer>B: vitamin D or C</answer>").metrics == {"format_ok": 0.0}


@pytest.mark.parametrize(
    "completion",
    [
        "<think>so <answer>B</answer>",
        "<think>so <answer>B</answer></think>",
        "so <answer>B</answer></think>",
        "<think>so <answer>B</answer></think><answer>A</answer>",
    ],
)
def test_thinking_never_counts(file: str, completion: str) -> None:
    """A right letter in a thought that never ended was rewarded."""
    environment = MultipleChoice(path=file)
    (task, *_) = [task for task in environment.tasks("train", 0) if answer_of(task) == "B"]
    assert environment.verify(task, completion).reward == 0.0
    assert environment.verify(task, "<think>is it <answer>A</answer>?</think><answer>B</answer>").is_solved


def test_a_byte_order_mark_is_no_part_of_a_row(tmp_path: Path) -> None:
    """It was read by one loader and refused by another, as a line that is no JSON."""
    path = write(tmp_path / "train.json", [row(number) for number in range(50)])
    Path(path).write_bytes(b"\xef\xbb\xbf" + Path(path).read_bytes())
    assert sum(len(MultipleChoice(path=path).tasks(split, 0)) for split in ("train", "heldout")) == 50


def test_feedback_never_names_the_right_letter(file: str) -> None:
    """Also where the right letter is written in the wrong form, and for letters that no option has."""
    environment = MultipleChoice(path=file)
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    for task in environment.tasks("train", 0):
        right = answer_of(task)
        for written in [
            *letters,
            f"{right}{right}",
            f"{right}, {right}",
            f"not {right}",
            f"{right}: x, or Z.",
            f"Q. or {right}",
            "",
        ]:
            for completion in (f"<answer>{written}</answer>", written, f"<answer>{written}"):
                verdict = environment.verify(task, completion)
                if verdict.feedback is not None:
                    assert right not in verdict.feedback.replace(".", " ").split(), (completion, verdict.feedback)
                    assert len(verdict.feedback) < 150


def test_hostile_answers_get_a_verdict_quickly(file: str) -> None:
    environment = MultipleChoice(path=file)
    task = environment.tasks("train", 0)[0]
    texts = [
        "\x00" * 1_000_000,
        "<answer>" * 125_000,
        "</answer>" * 110_000,
        "<answer></answer>" * 60_000,
        "\ud800",
        "Ａ",
        "А",
        "🧪",
        "B: " + "x " * 400_000,
        "option " * 150_000,
        "**" * 400_000 + "B",
        "\\boxed{" * 100_000,
        "B\n" + "C\n" * 9_000,
        "(" * 19_000 + "B",
        "B" + " " * 19_000 + "-",
        "the " * 4_900,
        "A " * 9_900,
    ]
    for text in texts:
        for completion in (text, f"<answer>{text}</answer>"):
            start = time.process_time()
            verdict = environment.verify(task, completion)
            assert time.process_time() - start < 4.0
            assert verdict.reward == 0.0
            (verdict.feedback or "").encode()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "train.json:1: a line must be one JSON object"),
        ("[1]", "train.json:1: a row must be a JSON object; got a list"),
        ("[" * 100_000, "train.json:1: a line must be one JSON object"),
        (json.dumps(row(0, kind="code")), 'train.json:1: kind must be "mcq"'),
        (json.dumps(row(0, answer="AB")), "train.json:1: answer must be one letter from A to Z; got 'AB'"),
        (json.dumps(row(0, answer="Ä")), "train.json:1: answer must be one letter"),
        (json.dumps(row(0, answer=1)), "train.json:1: answer must be a text"),
        (json.dumps(row(0, prompt=" ")), "train.json:1: prompt must be a text that is not blank"),
        (json.dumps(row(0, prompt="\ud800")), "train.json:1: prompt must be valid Unicode"),
        (json.dumps(row(0, system=["A"])), "train.json:1: system must be a text"),
        (json.dumps(row(0, idx=None)), "train.json:1: idx must be a whole number"),
        (json.dumps(row(0, idx=True)), "train.json:1: idx must be a whole number"),
        (f"{json.dumps(row(3))}\n\n{json.dumps(row(3, prompt='Else?'))}", "train.json:3: idx must be unique"),
        ("x" * 1_000_001, "train.json:1: a row must have at most"),
        ("", "needs rows in both splits; train has none of 0"),
        (json.dumps(row(0)), "needs rows in both splits"),
    ],
)
def test_a_bad_row_is_refused_with_file_line_and_rule(tmp_path: Path, text: str, says: str) -> None:
    assert says in refusal(tmp_path / "train.json", text)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"needs a readable file of JSON lines; .*none.json: No such file"):
        MultipleChoice(path=str(tmp_path / "none.json"))
    (tmp_path / "train.json").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"reads UTF-8; .* at byte 0"):
        MultipleChoice(path=str(tmp_path / "train.json"))


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan")])
def test_a_share_that_leaves_a_side_empty_is_refused(file: str, share: float) -> None:
    with pytest.raises(ValueError, match="heldout_share must lie between 0 and 1"):
        MultipleChoice(path=file, heldout_share=share)


def test_other_splits_and_other_tasks_are_refused(file: str) -> None:
    environment = MultipleChoice(path=file)
    with pytest.raises(ValueError, match="one of train, heldout; got 'test'"):
        environment.tasks("test", 0)
    task = environment.tasks("train", 0)[0]
    with pytest.raises(ValueError, match="its own tasks only"):
        environment.verify(Task(id="code/1", env="code", messages=task.messages), "<answer>A</answer>")
