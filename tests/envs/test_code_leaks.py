"""What no answer can make the feedback say: a hidden test, what it expects, or the reference. And what no text can break."""

import random
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdpo.envs.base import Task
from sdpo.envs.code import Code
from sdpo.envs.code.problem import load_problems
from sdpo.envs.code.program_problem import load_program_problems
from sdpo.envs.code.remarks import num_tokens_at_most
from sdpo.envs.code.trials import FunctionTests, call_text

MAX_TOKENS = 800
ENVIRONMENTS = [Code(timeout_s=0.3, reward=reward, max_feedback_tokens=MAX_TOKENS) for reward in ("all", "share")]
REFERENCES = {
    problem.task(variant).id: problem.reference(variant)
    for problem in (*load_problems(), *load_program_problems())
    for variant in problem.variants
}
TASKS = [task for split in ("train", "heldout") for task in ENVIRONMENTS[0].tasks(split, 0)]
NUM_ANSWERS = 8
"""A task: all there are, more than 2000 together."""


def fenced(source: str) -> str:
    return f"```python\n{source}\n```"


def secrets(task: Task) -> Iterator[str]:
    """Hidden calls and inputs, and what is distinctive of what they expect, less what the student is told anyway."""
    tests = task.payload
    if isinstance(tests, FunctionTests):
        told = [text for trial in tests.visible for text in (call_text(tests.function, trial.arguments), repr(trial.expected))]
        hidden = [(call_text(tests.function, trial.arguments), repr(trial.expected)) for trial in tests.hidden]
    else:
        texts = [text for trial in tests.visible for text in (trial.stdin, trial.expected.rstrip())]
        told = [repr(part) for text in texts for part in (text, *text.splitlines())]  # feedback names single lines, too
        hidden = [(repr(trial.stdin), repr(trial.expected.rstrip())) for trial in tests.hidden]
    known = "\n".join([task.messages[-1].content, *told])
    for given_, expected in hidden:
        yield from (text for text in (given_, expected) if len(text) >= 6 and text not in known)


def answers(task: Task, draw: random.Random, num_answers: int) -> Iterator[str]:
    """Right, nearly right, talkative and malformed ones."""
    reference = REFERENCES[task.id]
    at = draw.randrange(len(reference))
    lines = reference.split("\n")
    edits = [
        reference[:at] + draw.choice("()[]:+-*0123 xn=\n") + reference[at + 1 :],
        reference[:at] + reference[at + draw.randrange(1, 5) :],
        "\n".join(lines[: draw.randrange(len(lines))]),
        reference.replace("return ", "return not ").replace("print(", "print(0, "),
        reference.replace(" + ", " - ").replace("<", "<=").replace("==", "!="),
        reference,
    ]
    if isinstance(task.payload, FunctionTests):
        name = task.payload.function
        told = {repr(trial.arguments): trial.expected for trial in task.payload.visible}
        talk = draw.choice(
            ["raise ValueError(args)", "return args", "return repr(args)", "print(args); exit(str(args))", "1 / 0"]
        )
        edits += [
            f"def {name}(*args):\n    {talk}",
            f"def {name}(*args):\n    if repr(args) in {told!r}: return {told!r}[repr(args)]\n    {talk}",
        ]
    else:
        talk = draw.choice(["print(x)", "raise ValueError(x)", "import sys; sys.exit(x)", "1 / 0"])
        told = {trial.stdin: trial.expected for trial in task.payload.visible}
        edits += [
            f"x = open(0).read()\n{talk}",
            f"x = open(0).read()\nif x in {told!r}: print({told!r}[x])\nelse:\n    {talk}",
        ]
    for source in draw.sample(edits, num_answers):
        yield draw.choice([fenced(source), fenced(source), source, f"Here:\n{fenced(source)}\nDone.", f"```\n{source}"])


@pytest.mark.parametrize("num_answers", [1, pytest.param(NUM_ANSWERS, marks=pytest.mark.full)])
def test_no_feedback_holds_a_hidden_test_a_hidden_result_or_the_reference(num_answers):
    """Of every task, one drawn answer, or all."""
    draw = random.Random(7)
    asked = [(task, answer, draw.choice(ENVIRONMENTS)) for task in TASKS for answer in answers(task, draw, num_answers)]
    judged = [(task, answer, environment.verify(task, answer)) for task, answer, environment in asked]
    assert len(judged) >= 250 * num_answers
    outcomes = {verdict.is_solved for _, _, verdict in judged}
    assert outcomes == {True, False}
    assert sum("hidden test" in (verdict.feedback or "") for _, _, verdict in judged) >= 6 * num_answers
    for task, answer, verdict in judged:
        feedback = verdict.feedback or ""
        assert (verdict.feedback is None) == verdict.is_solved
        assert num_tokens_at_most(feedback) <= MAX_TOKENS
        for secret in secrets(task):
            assert secret not in feedback or secret in answer, (task.id, answer, feedback)
        told = feedback
        for line in answer.splitlines():  # a line of its own, quoted back, may be all but a bracket the reference's
            told = told.replace(line.strip(), "…") if len(line.strip()) >= 8 else told
        for line in REFERENCES[task.id].splitlines()[1:]:
            assert len(line.strip()) < 12 or line.strip() not in told, (task.id, answer, feedback)


@pytest.mark.parametrize("name", ["code/fibonacci", "code/sum_line"])
@pytest.mark.parametrize(
    "completion",
    [
        "", "\0", fenced("\0"), fenced("\ud800"), "\ud800" * 1000, "x" * 2**20, fenced("x" * 2**20), fenced("(" * 2**20),
        fenced("[" * 5000 + "]" * 5000), fenced("if 1:\n" * 5000), fenced("#" + "\u202e\U000e0001" * 500), "```" * 2**18,
        fenced("print('\\ud800')"), fenced("def fibonacci(n): return '\\ud800' * 10**4"), fenced("raise Exception('\\ud800')"),
        fenced("# -*- coding: utf-7 -*-\nx"), fenced("import sys\nsys.stderr.write('x' * 10**7)"), fenced("print('\u2028' * 99)"),
        fenced("x = " + "-" * 60_000 + "1"), fenced("x = " + "9" * 60_000), fenced("exit('\\0' * 10**6)"), "<think>" * 10**5,
    ],
)  # fmt: skip
def test_hostile_text_is_a_verdict_with_feedback_that_can_be_shown(name, completion):
    task = next(task for task in TASKS if task.id == name)
    verdict = ENVIRONMENTS[0].verify(task, completion)
    assert verdict.reward == 0.0
    assert 0 < num_tokens_at_most(verdict.feedback) <= MAX_TOKENS
    verdict.feedback.encode("utf-8")


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet=st.one_of(st.sampled_from("`\n\0():=defprint n+1\ud800"), st.characters()), max_size=120), st.booleans())
def test_any_text_is_a_verdict(text, is_program):
    name = "code/sum_line" if is_program else "code/fibonacci"
    task = next(task for task in TASKS if task.id == name)
    for completion in (text, fenced(text)):
        verdict = ENVIRONMENTS[1].verify(task, completion)
        assert 0.0 <= verdict.reward < 1.0
        assert verdict.feedback
