"""Verdicts of the code environment: what earns a reward, what is said of the rest, and what does not fool it."""

import gc
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdpo.envs.base import Task, Verdict
from sdpo.envs.code import Code
from sdpo.envs.code.extraction import extract_code
from sdpo.envs.code.literals import is_equal, is_same, shown, shown_text
from sdpo.envs.code.problem import load_problems
from sdpo.envs.literal_text import TooManyValues, num_values, plain, read_literal

ENVIRONMENT = Code(timeout_s=10.0)
HASTY = Code(timeout_s=0.5)
PROBLEMS = load_problems()
TASKS = {task.id: task for split in ("train", "heldout") for task in ENVIRONMENT.tasks(split, 0)}
FIBONACCI = TASKS["code/fibonacci"]
CLAMP = TASKS["code/clamp-0-10"]
WRONG = "All visible tests pass, but a hidden test fails: the function is not right for every input."


def fenced(source: str) -> str:
    return f"```python\n{source}\n```"


def verdict(source: str, task: Task = FIBONACCI, environment: Code = ENVIRONMENT) -> Verdict:
    return environment.verify(task, fenced(source))


def knows_visible(otherwise: str) -> str:
    """An answer to the Fibonacci task that looks its visible tests up, and meets the hidden ones with a statement."""
    return f"def fibonacci(n):\n    if n in (1, 6):\n        return {{1: 1, 6: 8}}[n]\n    {otherwise}"


def test_every_reference_solution_earns_the_reward():
    answers = [
        (problem.task(variant), fenced(problem.reference(variant))) for problem in PROBLEMS for variant in problem.variants
    ]
    with ThreadPoolExecutor(2) as pool:
        verdicts = list(pool.map(lambda answer: ENVIRONMENT.verify(*answer), answers))
    assert [task.id for (task, _), judged in zip(answers, verdicts, strict=True) if not judged.is_solved] == []
    everything = {"format_ok": 1.0, "loads_ok": 1.0, "visible_pass_rate": 1.0, "hidden_pass_rate": 1.0}
    assert all(judged.feedback is None and judged.metrics == everything for judged in verdicts)


def test_returning_nothing_fails_every_base_function_with_feedback_on_a_visible_call():
    tasks = [problem.task(problem.variants[0]) for problem in PROBLEMS]

    def judge(task: Task) -> Verdict:
        return verdict(f"def {task.payload.function}(*args):\n    return None", task)

    with ThreadPoolExecutor(2) as pool:
        for task, judged in zip(tasks, pool.map(judge, tasks), strict=True):
            assert judged.reward == 0.0
            assert judged.feedback.startswith(f"{task.payload.function}(")
            assert "returned None, but" in judged.feedback


@pytest.mark.parametrize(
    ("answer", "feedback"),
    [
        ("def fibonacci(n):\n    return n", "fibonacci(6) returned 6, but 8 was expected."),
        ("def fibonacci(n):\n    if n < 2:\n        return n\n    return fib(n-1)",
         "fibonacci(6) raised NameError: name 'fib' is not defined (line 4: return fib(n-1))."),
        ("def fibonacci(n) return n", "SyntaxError: expected ':' (line 1: def fibonacci(n) return n)."),
        ("def fibonacci(n):\n    return 1\nprint(fibonacci(x))",
         "NameError: name 'x' is not defined (line 3: print(fibonacci(x)))."),
        ("def fib(n):\n    return n", "The answer does not define a function named fibonacci."),
        ("fibonacci = 3", "The answer does not define a function named fibonacci."),
        ("def fibonacci(n):\n    return 8.0", "fibonacci(6) returned 8.0, but 8 was expected."),
        ("def fibonacci(n):\n    return True", "fibonacci(6) returned True, but 8 was expected."),
        ("def fibonacci(n):\n    return [n]", "fibonacci(6) returned [6], but 8 was expected."),
        ("def fibonacci(n):\n    return print",
         "fibonacci(6) returned an object of type builtin_function_or_method, but 8 was expected."),
        ("def fibonacci(n):\n    return input()",
         "fibonacci(6) raised EOFError: EOF when reading a line (line 2: return input())."),
        ("def fibonacci(n):\n    return fibonacci(n)", None),
        ("def fibonacci():\n    return 1",
         "fibonacci(6) raised TypeError: fibonacci() takes 0 positional arguments but 1 was given."),
        (knows_visible("return 3"), WRONG),
        (knows_visible("raise KeyError(n)"), "All visible tests pass, but a hidden test raises KeyError."),
        (knows_visible("return missing"), "All visible tests pass, but a hidden test raises NameError."),
    ],
)  # fmt: skip
def test_the_feedback_names_the_first_thing_that_went_wrong(answer, feedback):
    judged = verdict(answer)
    assert judged.reward == 0.0
    assert judged.feedback == feedback or (feedback is None and "RecursionError" in judged.feedback)


def test_annotations_that_are_text_can_be_looked_up():
    """A module of that name was nowhere to be found, and dataclasses failed over it."""
    answer = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass Pair:\n    a: int\n    b: int\n"
    )
    answer += "def fibonacci(n):\n    p = Pair(0, 1)\n    for _ in range(n):\n        p = Pair(p.b, p.a + p.b)\n    return p.a"
    assert verdict(answer).is_solved


def test_limits_are_told_apart():
    loop = verdict("def fibonacci(n):\n    while True: pass", environment=HASTY)
    assert loop.feedback == "fibonacci(6) did not finish within 0.5 seconds."
    assert verdict("while True: pass", environment=HASTY).feedback == "The program did not finish within 0.5 seconds."
    hog = verdict("def fibonacci(n):\n    return [0] * 10**10")
    assert hog.feedback == "fibonacci(6) needed more than 512 MB of memory."
    flood = verdict("def fibonacci(n):\n    while True: print('x' * 1000)")
    assert flood.feedback == "fibonacci(6) printed more than 64 kB."
    assert (
        verdict("import ctypes\ndef fibonacci(n):\n    ctypes.string_at(0)").feedback == "fibonacci(6) crashed the interpreter."
    )


@pytest.mark.parametrize(
    "answer",
    [
        "import sys\nsys.exit(0)",
        "import os\nos._exit(0)",
        "def fibonacci(n):\n    import sys; sys.exit(0)",
        "def fibonacci(n):\n    import os; os._exit(0)",
        "class Any:\n    def __eq__(self, other): return True\ndef fibonacci(n):\n    return Any()",
        "class Any(int):\n    def __eq__(self, other): return True\n    def __repr__(self): return '8'\n"
        "def fibonacci(n):\n    return Any()",
        "class Name(type):\n    __name__ = property(lambda self: 1 / 0)\nclass Any(metaclass=Name): pass\n"
        "def fibonacci(n):\n    return Any()",
        "import os\ndef fibonacci(n):\n    os.write(3, b'0 0 value 8\\n0 1 value 1\\n'); print('0 value 8')",
        "import builtins\nbuiltins.repr = lambda value: '8'\ndef fibonacci(n):\n    return 0",
        "def fibonacci(n):\n    import os\n    while True: os.fork()",
        "def fibonacci(n):\n    import os\n    if os.fork() == 0:\n        os.setsid()\n"
        "        while True: pass\n    return {1: 1, 6: 8, 0: 0, 2: 1, 10: 55, 20: 6765}[n]",
        "def fibonacci(n):\n    import socket\n    return socket.create_connection(('127.0.0.1', 80), 1)",
        "def fibonacci(n):\n    open('big', 'wb').write(bytes(10**8))",
        "def fibonacci(n):\n    open('/tmp/big', 'wb').write(bytes(10**8))",
        "def fibonacci(n):\n    from sdpo.envs.code.problem import load_problems\n    return load_problems()",
        "def fibonacci(n):\n    x = []\n    x.append(x)\n    return x",
        "def fibonacci(n):\n    return [[0] * 1000] * 1000000",
        "def fibonacci(n):\n    return 1 << 10**7",
        "def fibonacci(n):\n    return float('nan')",
        "class Odd(Exception):\n    def __str__(self): raise Odd\ndef fibonacci(n):\n    raise Odd",
        "fibonacci = type('X' * 10**6, (), {'__call__': lambda self, n: self})()",
        "import sys\nsys.setrecursionlimit(10**6)\ndef fibonacci(n):\n    return [*map(fibonacci, [n])]",
    ],
)  # fmt: skip
def test_a_cheat_earns_nothing_and_hears_why(answer):
    judged = verdict(answer, environment=Code(timeout_s=3.0))
    assert judged.reward == 0.0
    assert 0 < len(judged.feedback) <= 800


def test_a_forged_record_is_worth_no_more_than_the_value_it_claims():
    """The nonce can be found by walking frames, and helps nobody: the expected values are not in the process."""
    answer = (
        "import os, sys\n"
        "def fibonacci(n):\n"
        "    nonce = sys._getframe(2).f_locals['nonce']\n"
        "    for i in range(9):\n"
        "        for text in ('value 1', 'value (((', 'value __import__', 'error 3', 'error (1, 2, 3)', 'x'):\n"
        "            os.write(3, f'{nonce} {i} {text}\\n'.encode())\n"
    )
    assert verdict(answer).reward == 0.0


@pytest.mark.parametrize(
    "statement",
    [
        "return None",
        "return 'hidden ' + repr(n)",
        "raise ValueError('hidden', n)",
        "raise type(f'hidden{n}', (Exception,), {})",
        "import sys; sys.exit(f'hidden {n}')",
        "print('hidden', n); import os; os._exit(n)",
        "import sys; raise KeyError(repr(sys._getframe(1).f_locals))",
        "import sys, os; nonce = sys._getframe(2).f_locals['nonce']; "
        "os.write(3, f'{nonce} 0 error (\"hidden {n}\", \"\", 1)\\n'.encode())",
    ],
)  # fmt: skip
def test_feedback_on_a_hidden_test_is_one_of_a_few_fixed_sentences(statement):
    """However hard the answer tries to say what the hidden call was."""
    judged = verdict(knows_visible(statement))
    names = ("an exception", "ValueError", "SystemExit", "KeyError")
    raises = {f"All visible tests pass, but a hidden test raises {name}." for name in names}
    ended = "All visible tests pass, but a hidden test ended the program instead of returning."
    assert judged.feedback in raises | {WRONG, ended}
    assert judged.reward == 0.0


def test_a_process_that_talks_to_the_student_never_sees_a_hidden_call():
    """The work is all that the process is told, and an answer can have all of it said in the feedback."""
    spy = (
        "import marshal, sys\n"
        "def clamp(x):\n"
        "    name, _, calls, _ = sys._getframe(2).f_locals['work']\n"
        "    return [name, [marshal.loads(call) for call in calls]]"
    )
    visible = [trial.arguments for trial in CLAMP.payload.visible]
    assert verdict(spy, CLAMP).feedback == f"clamp(7) returned ['clamp', {visible}], but 7 was expected."


def test_every_call_gets_fresh_arguments():
    task = TASKS["code/sum_list"]
    assert verdict("def sum_list(xs):\n    total = 0\n    while xs: total += xs.pop()\n    return total", task).is_solved


def test_what_the_answer_prints_does_not_matter():
    assert verdict("def clamp(x):\n    print(x, 'é')\n    return max(0, min(x, 10))\nprint(clamp(3))", CLAMP).is_solved


def test_long_feedback_is_cut_in_its_middle():
    judged = Code(max_feedback_tokens=160).verify(FIBONACCI, fenced("def fibonacci(n):\n    return 'start' + 'x' * 999 + 'end'"))
    assert len(judged.feedback) == 160
    assert judged.feedback.startswith("fibonacci(6) returned 'start")
    assert judged.feedback.endswith("xend', but 8 was expected.")
    assert " ... " in judged.feedback


@pytest.mark.parametrize(
    ("expected", "actual", "same"),
    [
        (1, 1, True), (1, True, False), (True, 1, False), (2, 2.0, False), (2.0, 2, True), (2.0, True, False),
        (2.0, 2.0000001, True), (2.0, 2.001, False), (0.0, 0, True), (0.5, 10**400, False), ([1], (1,), False),
        ([1, [2.0]], [1, [2]], True), ([1], [1, 2], False), ({"a": 1}, {"a": True}, False), ({1: 2}, {True: 2}, False),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True), ({1}, {True}, False), (None, None, True), ("a", "a", True),
    ],
)  # fmt: skip
def test_values_are_compared_with_their_types(expected, actual, same):
    assert is_same(expected, actual) is same


@pytest.mark.parametrize(
    ("expected", "actual", "same"),
    [
        ({(1, 2): 5}, {(True, 2.0): 5}, False), ({(1, 2): 5}, {(1, 2): 5}, True), ({(1, 2)}, {(1, 2.0)}, False),
        ({(1, (True,))}, {(1, (1,))}, False), ({(1, (2,)), (3, ())}, {(3, ()), (1, (2,))}, True), ({2.0: "a"}, {2: "a"}, True),
        ({2: "a"}, {2.0: "a"}, False), ({(2.0,)}, {(2,)}, True), ({(2.0,)}, {(True,)}, False), ({1, 2}, {1}, False),
        ({(None, "x"): 1}, {(None, "x"): 1}, True), ({"a": {(1,): 2}}, {"a": {(True,): 2}}, False), (2j, 2j, True),
        (b"x", b"x", True), (b"x", "x", False), (2 + 0j, 2, False),
    ],
)  # fmt: skip
def test_types_inside_keys_and_members_count_where_they_count_elsewhere(expected, actual, same):
    """{(True, 2.0): 5} once passed for {(1, 2): 5}, and sets of tuples likewise."""
    assert is_same(expected, actual) is same


@pytest.mark.parametrize(
    ("expected", "actual", "same"),
    [
        (2, 2.0, True), (False, 0, True), (True, 1, True), (2.0, True, False), (1.0, True, True), ([1], (1,), False),
        ((1, 2.0), (1.0, 2), True), ({"a": [1]}, {"a": [True]}, True), ({1: 2}, {1.0: 2.0}, True), (2, 2.0000001, False),
        (0.3, 0.1 + 0.2, True), ([0.3], [0.1 + 0.2], True), (10**400, 0.5, False), (0.5, 10**400, False), (2 + 0j, 2, True),
        ({1, 2}, {1.0, 2.0}, True), ("1", 1, False), (None, 0, False), (None, False, False), ("", None, False), ([], (), False),
    ],
)  # fmt: skip
def test_values_are_compared_as_python_does_where_that_is_asked_for(expected, actual, same):
    assert is_equal(expected, actual) is same


def test_a_tuple_is_a_list_only_where_the_file_has_no_tuples():
    assert is_equal([1, [2, 3]], (1, (2, 3)), tuples_are_lists=True)
    assert not is_equal([1, [2, 3]], (1, (2, 4)), tuples_are_lists=True)
    assert not is_equal([1, [2, 3]], [1, (2, 3)])


def test_a_long_integer_is_shown_in_full_wherever_it_stands():
    """``repr`` raises ValueError for more than 4300 digits, which no verdict may."""
    digits = "1" + "0" * 4999 + "7"
    long = 10**5000 + 7
    assert shown(long) == digits
    assert shown([(long,), {"a": long}, {1: {long}}, None]) == f"[({digits},), {{'a': {digits}}}, {{1: {{{digits}}}}}, None]"
    assert shown([1, "x", 0.5]) == "[1, 'x', 0.5]"


VALUES = [
    None, True, 7, -(10**30), 0.5, -1e300, float("inf"), 2 - 3j, "it's \"so\"\n\\", b"\x00'", "é\u202e", [], (), (1,), {}, set(),
    {1, (2, "x")},
    {"a": [{}, set()], (1, (2,)): {3: (4,)}, None: -0.0}, [[[{"a": {"b": [1.5, (2,)]}}]]],
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_what_repr_writes_is_read_as_the_same_value(value):
    text = repr(value).replace("inf", "1e999")
    read = read_literal(text)
    assert is_same(value, read)
    assert is_equal(value, read)
    assert plain(read) == value
    assert shown(read) == shown(value)
    assert num_values(read) == num_values(value)


@pytest.mark.parametrize(
    "text",
    ["", "1 2", "[1 2]", "(,)", "[,]", "{1: 2, 3}", "{1, 2: 3}", "{[]}", "{({},): 1}", "'a", "'a' b'b'", "007", "1_0", "1 + 2",
     "-True",
     "f''", "u'a'", "[1", "1]", "{**{}}", "frozenset()", "inf", "'a\nb'", "b'é'", "'\\x1'", "[" * 70 + "]" * 70, "\u0661"],
    ids=ascii,
)  # fmt: skip
def test_what_repr_does_not_write_is_refused(text):
    with pytest.raises(ValueError, match="literal"):
        read_literal(text)


COLLIDING = [number * (2**61 - 1) for number in range(20_000)]
"""All of one hash."""


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        (set(range(20_000)), "{" + ", ".join(map(str, COLLIDING)) + "}"),
        (dict.fromkeys(range(20_000), 0), "{" + ": 0, ".join(map(str, COLLIDING)) + ": 0}"),
        (set(range(20_000)), "{" + "0, " * 20_000 + "}"),
        ({(n, n) for n in range(20_000)}, "{" + ", ".join(f"({n}, {-n})" for n in COLLIDING) + "}"),
    ],
    ids=["set", "dict", "one member", "tuples"],
)
def test_members_that_collide_take_no_longer_than_others(expected, text):
    """0.4 MB of integers of one hash once held up the judge for 16 seconds, 1 MB for 205."""
    read = read_literal(text, most_values=num_values(expected) + 9)
    started = time.process_time()
    assert not is_same(expected, read)
    assert not is_equal(expected, read)
    with pytest.raises(ValueError, match=r"collide|differ"):
        plain(read)
    assert time.process_time() - started < 4.0


@pytest.mark.parametrize(
    ("expected", "text"),
    [({1, 2}, "{1, 1}"), ({1: 2, 3: 4}, "{1: 2, 1: 2}"), ({1}, "{1, 1}"), ({1}, "[1]"), ({}, "set()"), (set(), "{}")],
)
def test_a_member_that_is_written_twice_stands_for_no_other(expected, text):
    assert not is_same(expected, read_literal(text))
    assert not is_equal(expected, read_literal(text))


def test_a_literal_of_more_values_than_expected_is_not_read_to_its_end():
    """A list of zeros once took a gigabyte where a text of its length was expected."""
    with pytest.raises(TooManyValues):
        read_literal("[" + "0," * 10_000_000 + "]", most_values=100)
    assert read_literal("[0, 0]", most_values=3) == [0, 0]
    with pytest.raises(TooManyValues):
        read_literal("[0, 0]", most_values=2)


def test_a_huge_integer_is_shown_as_it_came():
    """Millions of digits take minutes to write in base 10."""
    text = "0x" + "f" * 1_000_000
    started = time.process_time()
    assert shown_text(text, read_literal(text)) == text
    assert time.process_time() - started < 4.0
    assert shown_text("0xff", 255) == "255"


@pytest.mark.parametrize("text", ["print(1)", "(((", "[" * 9999, "-" * 20000 + "1", "{[]: 1}", "\0", "nan", "9" * 9999])
def test_what_is_not_a_literal_is_refused(text):
    with pytest.raises(ValueError, match="literal"):
        read_literal(text)


def test_a_forged_literal_neither_overflows_nor_warns(recwarn):
    """An OverflowError once came out of verify; a forged text is parsed here, and Python warns of what is odd in it."""
    for text in ("1" * 4000 + "+1j", "1" * 4000 + "-1e5j", "1if 1else 2", "(1)(2)"):
        with pytest.raises(ValueError, match="literal"):
            read_literal(text)
    assert read_literal("'\\d'") == "\\d"
    assert not recwarn.list


class Garbage:
    """Its collection lets other threads run, wherever the collector comes upon it."""

    def __init__(self):
        self.itself = self

    def __del__(self):
        time.sleep(0)


def test_literals_are_parsed_by_several_threads_at_once():
    """Right answers were once lost to "SystemError: AST constructor recursion depth mismatch", a race in Python 3.11."""
    text = repr([[[[i] * 3, {i: (i, "x")}]] for i in range(60)])

    def parse(number: int) -> str:
        [Garbage() for _ in range(20)]
        return repr(read_literal("(" * (number % 5) + text + ")" * (number % 5)))

    before = gc.get_threshold()
    gc.set_threshold(50)
    try:
        with ThreadPoolExecutor(4) as pool:
            parsed = list(pool.map(parse, range(100)))
    finally:
        gc.set_threshold(*before)
    assert set(parsed) == {text}


@pytest.mark.parametrize(
    "completion",
    [
        "\0",
        fenced("\0"),
        fenced("x = '\ud800'\ndef fibonacci(n): raise ValueError(x)"),
        fenced("def fibonacci(n): return '\U0001f600\ud800'"),
        "\ud800\udfff",
        "x" * 2**20,
        "```" * 2**18,
        "```" + " " * 2**20,
        "```python\n" + "(" * 2**20,
        "```python\n" + "-" * 2**20 + "1",
        "```python\n" + "x = 1\n" * 2**18,
        "```python\n\ndef fibonacci(n):\n" + "  if n:\n" * 200,
        "```python\ndef fibonacci(n):\n\x0c    return \u2028 missing\n",
        "\r\n" * 2**19,
    ],
)
def test_hostile_text_is_a_verdict(completion):
    judged = HASTY.verify(FIBONACCI, completion)
    assert judged.reward == 0.0
    assert 0 < len(judged.feedback) <= 800
    judged.feedback.encode("utf-8")


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=st.one_of(st.sampled_from("`~\n\r pythondef:(){}\0\ufeff"), st.characters()), max_size=200))
def test_extraction_takes_any_text(text):
    for function in (None, "f"):
        code = extract_code(text, function)
        assert code is None or (code.source.strip() and code.source.endswith("\n"))


def test_random_edits_of_a_right_answer_never_break_the_verdict():
    source = PROBLEMS[0].reference(PROBLEMS[0].variants[0])
    task = PROBLEMS[0].task(PROBLEMS[0].variants[0])
    for i in range(0, len(source), 2):
        judged = verdict(source[:i] + '\x00("\ud800é'[i % 5] + source[i + 1 :], task)
        assert (judged.feedback is None) == judged.is_solved


@pytest.mark.parametrize(
    "options",
    [
        {"timeout_s": 0.0},
        {"timeout_s": float("nan")},
        {"memory_bytes": 1 << 20},
        {"max_feedback_tokens": 10},
        {"reward": "some"},
        {"families": ["none"]},
        {"difficulties": "easy"},
        {"difficulties": []},
    ],
)
def test_options_out_of_range_are_refused_by_name(options):
    with pytest.raises(ValueError, match=f"env.options.{next(iter(options))} must .*; got .*: try"):
        Code(**options)


def test_a_task_of_another_environment_is_refused():
    stranger = Task(id="other/1", env="other", messages=FIBONACCI.messages)
    with pytest.raises(ValueError, match="other/1"):
        ENVIRONMENT.verify(stranger, "")
