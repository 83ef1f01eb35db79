"""Programs that read and print: how their output is compared, what earns a share, and what does not fool the judge."""

import random
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdpo.envs.base import HasReference, Task, Verdict
from sdpo.envs.code import Code
from sdpo.envs.code.printed import is_same_output
from sdpo.envs.code.program_problem import load_program_problems
from sdpo.envs.code.remarks import MIN_TOKENS, Said, Value, num_tokens_at_most, render
from sdpo.envs.code.trials import ProgramTests, ProgramTrial

ENVIRONMENT = Code(timeout_s=10.0)
HASTY = Code(timeout_s=0.3)
SHARING = Code(reward="share", timeout_s=10.0)
PROBLEMS = load_program_problems()
TASKS = {task.id: task for split in ("train", "heldout") for task in ENVIRONMENT.tasks(split, 0)}
SUM = TASKS["code/sum_line"]
TOTALS = TASKS["code/running_totals"]
AVERAGE = TASKS["code/average_line"]
FIBONACCI = TASKS["code/fibonacci"]
WRONG = "All visible tests pass, but a hidden test fails: the program is not right for every input."


def verdict(source: str, task: Task = SUM, environment: Code = ENVIRONMENT) -> Verdict:
    return environment.verify(task, f"```python\n{source}\n```")


def knows_visible(otherwise: str) -> str:
    """An answer to the sum that looks its visible tests up, and meets the hidden ones with a statement."""
    return f"line = input()\nif line in ('1 2 3', '10'):\n    print({{'1 2 3': 6, '10': 10}}[line])\nelse:\n    {otherwise}"


def test_every_reference_program_earns_the_reward():
    answers = [(problem.task(variant), problem.reference(variant)) for problem in PROBLEMS for variant in problem.variants]
    with ThreadPoolExecutor(2) as pool:
        verdicts = list(pool.map(lambda answer: verdict(answer[1], answer[0]), answers))
    assert [task.id for (task, _), judged in zip(answers, verdicts, strict=True) if not judged.is_solved] == []
    everything = {"format_ok": 1.0, "loads_ok": 1.0, "visible_pass_rate": 1.0, "hidden_pass_rate": 1.0}
    assert all(judged.feedback is None and judged.metrics == everything for judged in verdicts)


def test_the_environment_offers_its_references():
    assert isinstance(ENVIRONMENT, HasReference)
    for task in (SUM, FIBONACCI):
        assert ENVIRONMENT.verify(task, ENVIRONMENT.reference(task)).is_solved
    with pytest.raises(ValueError, match="answers its own tasks"):
        ENVIRONMENT.reference(Task(id="other/1", env="other", messages=SUM.messages))


def test_printing_nothing_or_the_input_fails_every_program():
    for source in ("pass", "import sys\nprint(sys.stdin.read() + 'x')"):
        for problem in PROBLEMS:
            judged = verdict(source, problem.task(problem.variants[0]))
            assert judged.reward == 0.0
            assert judged.feedback.startswith("On the input '")


@pytest.mark.parametrize(
    ("answer", "feedback"),
    [
        ("print(sum(map(int, input().split())) + 1)", "On the input '1 2 3' the program printed '7', but '6' was expected."),
        ("print('6 ')\nprint()", "On the input '10' the program printed '6', but '10' was expected."),
        ("x = input()", "On the input '1 2 3' the program printed nothing, but '6' was expected."),
        ("print(int(input()))",
         "ValueError: invalid literal for int() with base 10: '1 2 3' (line 1: print(int(input()))) on the input '1 2 3'."),
        ("print(6", "SyntaxError: '(' was never closed (line 1: print(6)."),
        ("x = input()\nx = input()", "EOFError: EOF when reading a line (line 2: x = input()) on the input '1 2 3'."),
        ("import sys\nprint(6)\nsys.exit(3)", "SystemExit: 3 (line 3: sys.exit(3)) on the input '1 2 3'."),
        ("import os\nprint(6, flush=True)\nos._exit(1)", "The program ended with an error code on the input '1 2 3'."),
        (knows_visible("print(1)"), WRONG),
        (knows_visible("raise KeyError(line)"), "All visible tests pass, but a hidden test raises KeyError."),
        (knows_visible("raise type(line, (Exception,), {})"), "All visible tests pass, but a hidden test raises an exception."),
    ],
)  # fmt: skip
def test_the_feedback_names_the_first_thing_that_went_wrong(answer, feedback):
    judged = verdict(answer)
    assert judged.reward == 0.0
    assert judged.feedback == feedback


def test_the_first_wrong_line_of_several_is_named():
    judged = verdict("for _ in range(int(input())): print(input())", TOTALS)
    assert judged.feedback == (
        r"On the input '3\n1\n2\n3' the program printed '1\n2\n3', but '1\n3\n6' was expected: "
        "line 2 is '2', but '3' was expected there."
    )
    short = verdict("input(); print(input())", TOTALS).feedback
    assert short.endswith("line 2 is missing, but '3' was expected there.")
    long = verdict("t = 0\nfor _ in range(int(input())):\n    t += int(input()); print(t)\nprint('done')", TOTALS).feedback
    assert long.endswith("line 4 is 'done', but no such line was expected.")


def test_an_exception_is_told_before_a_wrong_answer_and_a_limit_too():
    assert verdict("x = input()\nprint(1 if ' ' in x else 1 / 0)").feedback.startswith("ZeroDivisionError")
    slow = verdict("x = input()\nprint(1)\nwhile ' ' not in x: pass", environment=HASTY)
    assert slow.feedback == "The program did not finish within 0.3 seconds on the input '10'."


def test_a_program_that_hits_a_limit_is_not_run_on_and_on():
    judged = verdict("while True: pass", environment=HASTY)
    assert judged.feedback == "The program did not finish within 0.3 seconds on the input '1 2 3'."
    assert "512 MB" in verdict("x = [0] * 10**10").feedback
    assert "printed more than 64 kB" in verdict("while True: print('x' * 1000)").feedback


@pytest.mark.parametrize(
    "source",
    [
        "import sys\nprint(sum(map(int, sys.stdin.readline().split())))",
        "print(sum(map(int, open(0).read().split())))",
        "import sys\nsys.stdout.write(str(sum(map(int, sys.stdin.buffer.read().split()))))",
        "import os\nos.write(1, str(sum(map(int, os.read(0, os.fstat(0).st_size).split()))).encode())",
        "def main():\n    print(sum(map(int, input().split())))\nif __name__ == '__main__':\n    main()",
        "import sys\nprint(sum(map(int, input().split())))\nsys.exit()",
        "print(sum(map(int, input().split())))\nexit()",
        "print(sum(map(int, input().split())))\nquit(0)",
        "import threading\nthreading.stack_size(1 << 26)\n"
        "threading.Thread(target=lambda: print(sum(map(int, input().split())))).start()",
        "import atexit\natexit.register(lambda: print(sum(map(int, input().split()))))",
        "print(sum(map(int, open('/dev/stdin').read().split())))",
        "import sys\nsys.stdin = open('/dev/stdin')\nprint(sum(map(int, input().split())))",
        "import io\nprint(sum(map(int, io.open('/dev/stdin', 'rb').read().split())))",
        "from pathlib import Path\nprint(sum(map(int, Path('/dev/stdin').read_text().split())))",
        "with open('/proc/self/fd/0') as file:\n    print(sum(map(int, file.readline().split())))",
        "import sys\nprint(sum(map(int, input().split())))\nsys.exit(False)",
        "import sys\nsys.setrecursionlimit(10**6)\nprint(sum(map(int, input().split())))\nprint('noise', file=sys.stderr)",
    ],
)
def test_a_program_may_read_and_write_in_any_way(source):
    assert verdict(source).is_solved


@pytest.mark.parametrize(
    "source",
    [
        "import os\nos.write(3, b'0 0 value 6\\n')",
        "import sys\nsys.exit(0)",
        "import os\nos._exit(0)",
        "import builtins\nbuiltins.print = lambda *x: None\nbuiltins.repr = lambda x: '6'\nprint(6)",
        "class Any(str):\n    def __eq__(self, other): return True\nprint(Any('x'))",
        "print(float('nan'))",
        "print('6' * 10**4)",
        "print('\\0' * 100)",
        "import sys\nsys.stdout.buffer.write(bytes(range(256)))",
        "import sys\nsys.stdout.close()",
        "import sys\nsys.stdout = None",
        "import threading\nthreading.Thread(target=input, daemon=True).start()\nraise SystemExit(True)",
        "raise BaseException",
        "def f(n): return f(n + 1)\nf(0)",
    ],
)
def test_a_cheat_earns_nothing_and_hears_why(source):
    judged = verdict(source)
    assert judged.reward == 0.0
    assert judged.feedback
    judged.feedback.encode("utf-8")


def test_no_run_knows_what_is_expected_or_what_other_runs_are_given():
    """All frames of the process, and all that it can read, written out."""
    spy = (
        "import sys, os\nf = sys._getframe()\nseen = []\n"
        "while f:\n    seen.append(repr(f.f_locals)); f = f.f_back\n"
        "text = ''.join(seen) + open(0).read()\nprint([number for number in range(5000) if f'<{number}>' in text])"
    )
    trials = [ProgramTrial(stdin=f"<{number}>", expected=f"<{number + 1}>") for number in (1000, 2000)]
    tests = ProgramTests(visible=(trials[0],), hidden=(trials[1],))
    task = Task(id="code/spy", env="code", messages=SUM.messages, payload=tests)
    assert verdict(spy, task).feedback == "On the input '<1000>' the program printed '[1000]', but '<1001>' was expected."


@pytest.mark.parametrize(
    ("expected", "printed", "same"),
    [
        ("6", "6", True), ("6\n", "6", True), ("6", "6  \n\n\n", True), ("6", " 6", False), ("6", "\n6", False),
        ("a\nb", "a\r\nb\r\n", True), ("a\nb", "a b", False), ("a b", "a  b", False), ("6", "6.0", False),
        ("0.5", "0.5000001", True), ("0.5", "0.51", False), ("2.0", "2", True), ("1e9", "1000000000", True),
        ("1e9", "1000000001", True), ("1.0", "nan", False), ("1.0", "1_0", False), ("1.0", "inf", False),
        ("1e999", "inf", False), ("1.0", "١.٠", False), ("x 0.25 y", "x 0.250 y", True), ("Yes", "yes", False),
        ("", "", True), ("", "\n", True), ("", "0", False), ("a\n\nb", "a\nb", False), ("-0.0", "0", True),
        ("1.5", "1" * 5000, False), ("1.0", "", False), ("1000001", "1000002", False),
    ],
)  # fmt: skip
def test_output_is_compared_to_the_character_but_for_space_at_ends_and_decimals(expected, printed, same):
    assert is_same_output(expected, printed) is same


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60), st.text(max_size=60))
def test_output_comparison_takes_any_text_and_agrees_with_itself(expected, printed):
    assert is_same_output(expected, expected)
    assert is_same_output(expected, expected + "\n \n")
    assert is_same_output(expected, printed) in (True, False)


def test_integers_of_any_length_are_read_and_printed():
    """Python reads and writes no more than 4300 digits unless it is told to, and contest sites tell it."""
    long = "7" * 9000
    tests = ProgramTests(visible=(ProgramTrial(stdin=f"{long}\n", expected=f"{long}0\n"),), hidden=())
    task = Task(id="code/long", env="code", messages=SUM.messages, payload=tests)
    assert verdict("print(int(input()) * 10)", task).is_solved
    assert verdict("print(int(input()) * 100)", task).reward == 0.0


def test_the_library_is_pythons_own_and_an_answer_hears_so():
    """Contest sites have numpy and sortedcontainers; docs/code.md says that the sandbox has not."""
    for module in ("numpy", "sortedcontainers"):
        feedback = verdict(f"import {module}\nprint(6)").feedback
        assert feedback.startswith(f"ModuleNotFoundError: No module named '{module}' (line 1: import {module})")


def test_a_decimal_answer_may_be_a_little_off_and_no_more():
    near = "xs = list(map(float, input().split()))\nprint(sum(xs) / len(xs))"
    assert verdict(near.replace("len(xs)", "len(xs) + 2e-7"), AVERAGE).reward == 0.0  # 2.33 is not 2.3333
    assert (
        verdict("xs = list(map(float, input().split()))\nprint('%.9f' % round(sum(xs) / len(xs) + 1e-4, 2))", AVERAGE).reward
        == 1.0
    )


def test_a_share_of_the_tests_is_a_share_of_the_reward():
    half = verdict(knows_visible("print(-1)"), environment=SHARING)
    assert half.reward == pytest.approx(2 / 5)
    assert half.feedback == WRONG
    by_hidden = verdict("x = input()\nprint(0 if x in ('-5 5', '0') else 1)", environment=SHARING)
    assert by_hidden.reward == pytest.approx(2 / 5)
    assert by_hidden.feedback.startswith("On the input '1 2 3'")
    assert verdict("print(sum(map(int, input().split())))", environment=SHARING).reward == 1.0
    assert verdict("(", environment=SHARING).reward == 0.0
    function = verdict("def fibonacci(n):\n    return {1: 1, 6: 8, 10: 55}.get(n)", FIBONACCI, SHARING)
    assert function.reward == pytest.approx(3 / (len(FIBONACCI.payload.visible) + len(FIBONACCI.payload.hidden)))


def test_an_answer_that_forges_a_complaint_about_itself_is_not_solved():
    forger = (
        "import os, sys\ndef fibonacci(n):\n    nonce = sys._getframe(2).f_locals['nonce']\n"
        '    os.write(3, f\'{nonce} -1 error ("E", "", 1)\\n\'.encode())\n'
        "    return {0: 0, 1: 1, 2: 1, 6: 8, 10: 55, 20: 6765}[n]"
    )
    judged = verdict(forger, FIBONACCI, SHARING)
    assert judged.reward < 1.0
    assert judged.feedback


def test_a_class_solution_may_hold_the_function_and_is_new_for_each_call():
    answer = (
        "class Solution:\n    def __init__(self): self.calls = 0\n    def fibonacci(self, n):\n        self.calls += 1\n"
        "        assert self.calls == 1\n        a, b = 0, 1\n        for _ in range(n): a, b = b, a + b\n        return a"
    )
    assert verdict(answer, FIBONACCI).is_solved


def test_values_are_elided_before_messages_and_the_budget_holds():
    """Whatever is quoted: bytes of UTF-8 are an upper bound of tokens."""
    draw = random.Random(0)
    for _ in range(300):
        value, said = draw.choice("xé\U0001f600\ud800") * draw.randrange(900), draw.choice("yü") * draw.randrange(400)
        told = render((Value(value), " raised ", Said(said), ", but ", Value("8"), " was expected."), MIN_TOKENS)
        assert num_tokens_at_most(told) <= MIN_TOKENS
        assert " raised " in told
        assert ", but 8 was expected." in told
        if num_tokens_at_most(said) <= 80:
            assert said in told
