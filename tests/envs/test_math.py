"""Properties of the environment ``math``: which files it reads, which answers are equal, and what an answer may cost."""

from __future__ import annotations

import json
import pickle
import threading
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import pytest

from sdpo.envs import registry
from sdpo.envs.answers import NoAnswer
from sdpo.envs.base import Environment, HasReference, Message, ReadsFiles, Role, Task, Verdict
from sdpo.envs.math import Math
from sdpo.envs.math.boxed import answer_in_box
from sdpo.envs.math.comparing import Outcome, compare
from sdpo.envs.math.problems import Problem, read_problems
from sdpo.envs.sandbox.helpers import Limits

needs_package = pytest.mark.skipif(find_spec("math_verify") is None, reason="the package math-verify is not installed")
LIMITS = Limits(wall_s=30.0, memory_bytes=1 << 30)
"""Of time there is plenty: several suites may share the machine."""
ASKED = (Message(role=Role.user, content="?"),)
QUICK = Limits(wall_s=1.0, memory_bytes=1 << 28)

GSM8K = [
    {
        "question": f"A crate holds {number} jars, and a cart holds 3 crates. How many jars does a cart hold?",
        "answer": f"A cart holds 3 * {number} = <<3*{number}={3 * number}>>{3 * number} jars.\n#### {3 * number:,}",
    }
    for number in range(300, 360)
]
MATH = [
    {
        "problem": f"What is the probability of one of {number} equally likely outcomes?",
        "solution": f"All are as likely, so it is $1$ of $\\boxed{{{number}}}$, hence $\\boxed{{\\frac{{1}}{{{number}}}}}$.",
        "level": "Level 1",
        "type": "Counting & Probability",
    }
    for number in range(2, 62)
]
PLAIN = [{"problem": f"What is $x$ if $x - {number} = 0.5$?", "answer": number + 0.5, "solution": "none"} for number in range(60)]


def write(path: Path, rows: list[Mapping[str, object]]) -> str:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture
def file(tmp_path: Path) -> str:
    return write(tmp_path / "train.jsonl", [*GSM8K, *MATH, *PLAIN])


def task_with(answer: str) -> Task:
    return Task(id="math/0", env="math", messages=ASKED, payload=Problem(place="x:1", text="?", answer=answer))


def right_answer(task: Task) -> str:
    assert isinstance(task.payload, Problem)
    return task.payload.answer


def feedback_of(verdict: Verdict) -> str:
    assert verdict.reward == 0.0
    assert verdict.feedback is not None
    return verdict.feedback


def test_answers_are_read_from_the_columns_of_published_files(tmp_path: Path) -> None:
    rows = read_problems(
        write(tmp_path / "train.jsonl", [GSM8K[100 - 41], MATH[0], PLAIN[1], {"Problem": "?", "Answer": "$\\pi$"}])
    )
    assert [problem.answer for problem in rows] == ["1,077", "\\frac{1}{2}", "1.5", "\\pi"]
    assert rows[0].text.startswith("A crate holds 359 jars")
    assert "####" not in repr(rows)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"question": "?"}, r"train.jsonl:1: a row must have an answer under answer or solution; it has question"),
        ({"answer": "3"}, r"train.jsonl:1: a row must have a text under problem or question; it has answer"),
        ({"question": " ", "answer": "3"}, "a row must have a text under"),
        ({"question": "\ud800", "answer": "3"}, "must be valid Unicode"),
        ({"problem": "?", "solution": "It is 3."}, r"has none; .*train.jsonl:1: there is no \\boxed{} in its solution"),
        ({"problem": "?", "solution": "It is \\boxed{3."}, "has none; .* never closed"),
        ({"question": "?", "answer": "#### "}, "has none; .* its answer is empty"),
        ({"question": "?", "answer": "3}"}, "braces in pairs"),
    ],
)
def test_a_bad_file_is_refused_with_the_row_and_the_rule(tmp_path: Path, row: Mapping[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        read_problems(write(tmp_path / "train.jsonl", [row]))


def test_rows_whose_answer_cannot_be_read_are_left_out_and_said(tmp_path: Path) -> None:
    path = write(tmp_path / "train.jsonl", [MATH[0], {"problem": "Why?", "solution": "Because."}, MATH[1], MATH[0]])
    with pytest.warns(UserWarning, match=r"math left out 1 rows of .*train.jsonl:2: there is no"):
        assert len(read_problems(path)) == 2


@pytest.mark.parametrize(
    ("completion", "answer", "num_boxes"),
    [
        (r"So it is \boxed{3}.", "3", 1),
        (r"\boxed{1}, no: \boxed{\frac{1}{2}}", r"\frac{1}{2}", 2),
        (r"$$\boxed{ \{1, 2\} }$$", r"\{1, 2\}", 1),
        (r"\boxed{\boxed{3}}", "3", 2),
        (r"\boxed 3 and so on", "3", 1),
        (r"\fbox{3} \boxed {4}", "4", 1),
        (r"<think>\boxed{1}</think>\boxed{2}", "2", 1),
        (r"is it \boxed{1}?</think>\boxed{2}", "2", 1),
        (r"\boxed{a\}b}", r"a\}b", 1),
    ],
)
def test_the_last_box_outside_the_thoughts_is_read(completion: str, answer: str, num_boxes: int) -> None:
    assert answer_in_box(completion.replace("\\fbox{3} ", "")) == (answer, num_boxes)


@pytest.mark.parametrize(
    ("completion", "says"),
    [
        ("", "no answer to read"),
        ("It is 3.", "no answer to read"),
        ("<answer>3</answer>", "no answer to read"),
        (r"<think>so \boxed{3}", "outside the thoughts"),
        (r"<think>so \boxed{3}</think>", "outside the thoughts"),
        (r"\boxed{3} or \boxed{4", "never closed"),
        (r"\boxed{}", "empty"),
        (r"\boxed{ }", "empty"),
        (r"\boxed", "empty"),
        (r"\boxed{" + "1" * 2000 + "}", "too long"),
        (r"\boxedx{3}", "no answer to read"),
    ],
)
def test_why_no_answer_is_read_is_said(completion: str, says: str) -> None:
    with pytest.raises(NoAnswer, match=says):
        answer_in_box(completion)


@pytest.mark.parametrize(
    ("right", "answer", "outcome"),
    [
        *(
            (right, answer, Outcome.equal)
            for right, answer in [("72", "72"), ("72", "72.0"), ("1,077", "1077"), ("1077", "1{,}077")]
        ),
        *(
            ("1077", answer, Outcome.equal)
            for answer in (r"1\,077", "1 077", r"\$1,077", "1077.", "$1077$", "**1077**", "= 1077")
        ),
        *(("50\\%", answer, Outcome.equal) for answer in ("50", "50%", r"50\%", "0.5")),
        *(("0.5", answer, Outcome.equal) for answer in ("50%", ".5", "0.50", "+0.5")),
        *((r"\frac{1}{2}", answer, Outcome.equal) for answer in (r"\dfrac{1}{2}", r"\frac{1} {2}")),
        *((r"\text{Monday}", answer, Outcome.equal) for answer in ("Monday", r"\textbf{Monday}", r"\mathrm{Monday}.")),
        ("(1, 2)", r"\left(1,2\right)", Outcome.equal),
        *(("72", answer, Outcome.different) for answer in ("73", "-72", "7.2", "720", "0.72", "72.000001")),
        *(("50\\%", answer, Outcome.different) for answer in ("5", "0.05", "0.5%", "5000")),
        ("0.0000001", "0.0000002", Outcome.different),
        ("1" * 60, "1" * 59 + "2", Outcome.different),
    ],
)
def test_texts_and_numbers_are_compared_without_another_process(
    monkeypatch: pytest.MonkeyPatch, right: str, answer: str, outcome: Outcome
) -> None:
    monkeypatch.setattr("sdpo.envs.math.comparing.helper", None)
    assert compare(right, answer, LIMITS) is outcome


@needs_package
@pytest.mark.parametrize(
    ("right", "answers"),
    [
        (r"\frac{1}{2}", ("1/2", "0.5", r"\frac12", r"\frac{2}{4}", r"x=\frac{1}{2}")),
        (r"2\sqrt{2}", (r"\sqrt{8}", r"2\cdot\sqrt2")),
        ("x^2+2x+1", ("(x+1)^2", "1 + 2x + x^2")),
        ("1,2", ("2, 1", r"\{1,2\}", r"1 \text{ and } 2")),
        ("72", (r"72\text{ jars}", r"8 \cdot 9")),
        ("[0,1)", (r"\left[0,\,1\right)",)),
    ],
)
def test_other_ways_to_write_the_right_answer_are_right(right: str, answers: tuple[str, ...]) -> None:
    for answer in answers:
        assert compare(right, answer, LIMITS) is Outcome.equal, answer


@needs_package
@pytest.mark.parametrize(
    ("right", "answers"),
    [
        (r"\frac{1}{2}", ("0.51", r"\frac{1}{3}", "1, 2", r"\frac{1}{2} \text{ or } \frac{1}{3}")),
        ("5", ("5, 6", r"5 \text{ or } 6", "5 or 6", "5x", "five", "12")),
        ("1,2", ("1", "1,2,3", "1,3")),
        ("(1,2)", ("(2,1)", "[1,2)")),
        (r"\frac{1}{30000000}", (r"\frac{1}{20000000}",)),
        ("12", ("1 2", "1+2")),
    ],
)
def test_another_answer_is_wrong_and_two_answers_are_none(right: str, answers: tuple[str, ...]) -> None:
    """Also of tiny numbers, of which math-verify holds any two for equal, as it rounds to six places."""
    for answer in answers:
        assert compare(right, answer, LIMITS) is Outcome.different, answer


@needs_package
def test_what_is_no_mathematics_is_unread() -> None:
    for answer in (r"\approx", r"1\\2", "__import__('os').system('true')", "\ud800", "\0"):
        assert compare("7", answer, LIMITS) is Outcome.unread, answer


@needs_package
@pytest.mark.parametrize(
    "answer",
    [
        "9^{9^{9^{9}}}",
        "(" * 300 + "1" + ")" * 300,
        *(
            pytest.param(answer, marks=pytest.mark.full)
            for answer in (
                "10000000!",
                "5!!!!!!!!",
                "(x+1)^{100000}",
                "{" * 400 + "1" + "}" * 400,
                r"\frac{1}{" * 80 + "1" + "}" * 80,
                r"\sqrt{" * 100 + "2" + "}" * 100,
                r"\int_0^{\infty} e^{-x^{x^x}} dx",
                r"\sum_{n=1}^{10^{9}} \frac{1}{n^{3/2}}",
                r"\prod_{n=1}^{10^{9}} n",
                r"\begin{pmatrix}" + "1&" * 300 + r"1\end{pmatrix}",
                "x" * 900,
                "1" * 900,
                r"\frac{0}{0}",
            )
        ),
    ],
)
def test_no_answer_takes_more_than_its_limits(answer: str) -> None:
    compare("7", r"\frac{14}{2}", LIMITS)  # the helper has started
    started = time.monotonic()
    assert compare("7", answer, QUICK) is not Outcome.equal
    assert time.monotonic() - started < QUICK.wall_s + 3
    assert compare("7", r"\frac{14}{2}", LIMITS) is Outcome.equal


@needs_package
def test_it_works_outside_of_the_main_thread() -> None:
    """math-verify's own limit is a signal, which Python gives to main threads alone; verifiers run in others."""
    outcomes: list[Outcome] = []
    threads = [threading.Thread(target=lambda: outcomes.append(compare("7", r"\frac{14}{2}", LIMITS))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == [Outcome.equal] * 3


@needs_package
def test_it_is_an_environment_whose_references_are_right(file: str) -> None:
    environment = registry.make("sdpo.envs.math:Math", {"path": file})
    assert isinstance(environment, Environment)
    assert isinstance(environment, HasReference)
    assert isinstance(environment, ReadsFiles)
    train, heldout = environment.tasks("train", 0), environment.tasks("heldout", 0)
    assert len(train) + len(heldout) == 180
    assert len({task.id for task in (*train, *heldout)}) == 180
    assert pickle.loads(pickle.dumps(train)) == train
    for task in (*train, *heldout):
        system, user = task.messages
        assert (system.role, user.role) == (Role.system, Role.user)
        assert "\\boxed{}" in system.content
        assert environment.verify(task, f"So it is ${environment.reference(task)}$.").is_solved
    assert [task.messages[-1].content for task in environment.from_file(file)][:2] == [row["question"] for row in GSM8K[:2]]


@needs_package
def test_the_seed_gives_the_order_and_the_split_seed_what_is_held_out(file: str, tmp_path: Path) -> None:
    environment = Math(path=file, heldout_share=0.3)
    first, again, other = (environment.tasks("train", seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other
    assert set(first) == set(other)
    heldout = set(environment.tasks("heldout", 0))
    assert not heldout & set(first)
    assert set(Math(path=file, heldout_share=0.3, split_seed=1).tasks("heldout", 0)) != heldout
    with pytest.raises(ValueError, match="math's split must be one of train, heldout; got 'test'"):
        environment.tasks("test", 0)
    same = write(tmp_path / "test.jsonl", [{"question": MATH[3]["problem"].upper(), "answer": "1"}])
    with pytest.raises(ValueError, match=r"test.jsonl:1 asks what .*train.jsonl:64 asks"):
        Math(path=file, heldout_path=same).tasks("heldout", 0)


@needs_package
def test_bad_options_are_refused(file: str) -> None:
    for options, says in (
        ({"heldout_share": 1.0}, "math's heldout_share must lie between 0 and 1"),
        ({"timeout_s": 0.0}, "timeout_s must lie in"),
        ({"timeout_s": float("nan")}, "timeout_s must lie in"),
        ({"memory_bytes": 1}, "memory_bytes must be at least"),
    ):
        with pytest.raises(ValueError, match=says):
            registry.make("sdpo.envs.math:Math", {"path": file, **options})
    with pytest.raises(ValueError, match="its own tasks only"):
        Math(path=file).verify(Task(id="code/1", env="code", messages=ASKED), "\\boxed{1}")


@needs_package
def test_feedback_says_what_is_wrong_and_never_the_right_answer(file: str) -> None:
    environment = Math(path=file, timeout_s=30.0)
    task = task_with("1234567")
    for completion, says, is_found in (
        ("1234567", "no answer to read", False),
        ("<think>\\boxed{1234567}", "outside the thoughts", False),
        ("\\boxed{1234567", "never closed", False),
        ("\\boxed{3}", "what it holds is not right", True),
        ("\\boxed{1234567} or \\boxed{3}", "the last of them counts, and what it holds is not right", True),
        ("\\boxed{\\approx}", "could not be read as mathematics", True),
    ):
        verdict = environment.verify(task, completion)
        assert says in feedback_of(verdict)
        assert "1234567" not in feedback_of(verdict)
        assert verdict.metrics["format_ok"] == float(is_found)
    quick = Math(path=file, timeout_s=1.0)
    assert "takes too long to work out" in feedback_of(quick.verify(task, "\\boxed{9^{9^{9^{9}}}}"))
    assert environment.verify(task, "\\boxed{3}, no, \\boxed{1{,}234{,}567}").is_solved


@needs_package
def test_hostile_completions_get_a_verdict_quickly(file: str) -> None:
    environment = Math(path=file)
    task = task_with("7")
    for completion in (
        "\\boxed{" * 150_000,
        "\\boxed{}" * 120_000,
        "\\boxed" * 160_000,
        "{" * 1_000_000,
        "\\boxed{" + "{" * 500_000 + "}" * 500_000,
        "\\boxed{" + "\\" * 1_000_000,
        "\\boxed" + " " * 1_000_000 + "{7}",
        "\ud800" * 1000,
        "\0" * 1_000_000,
    ):
        started = time.process_time()
        feedback_of(environment.verify(task, completion)).encode()
        assert time.process_time() - started < 5.0


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, file: str) -> None:
    monkeypatch.setattr("sdpo.envs.math.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs the package math-verify: install sdpo\[math\]"):
        Math(path=file)
