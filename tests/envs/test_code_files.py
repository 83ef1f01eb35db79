"""Problems from files: what is read of each format, what is left out and said so, and what is refused without being run."""

import base64
import json
import pickle
import pickletools
import sys
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdpo.envs import registry
from sdpo.envs.base import Environment, Task
from sdpo.envs.code.files import CodeFile
from sdpo.envs.code.formats.asserts import read_asserts
from sdpo.envs.code.formats.pickled_text import packed_text, pickled_text
from sdpo.envs.code.trials import Equality, FunctionTests, ProgramTests, ProgramTrial, Trial


def packed(tests, protocol=4):
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(tests), protocol=protocol))).decode()


def pairs_as_tests(*pairs, kind="stdin"):
    return [{"input": given, "output": expected, "testtype": kind} for given, expected in pairs]


def livecodebench(number, **changes):
    return {
        "question_title": "Doubling",
        "question_content": f"Print twice the integer that you read. ({number})",
        "platform": "atcoder",
        "question_id": f"abc{number}",
        "contest_id": "abc",
        "contest_date": "2024-01-01T00:00:00",
        "starter_code": "",
        "difficulty": "easy",
        "public_test_cases": json.dumps(pairs_as_tests(("1", "2"), ("2", "4"))),
        "private_test_cases": packed(pairs_as_tests(("30", "60"), ("400", "800"))),
        "metadata": "{}",
        **changes,
    }


def functional(number):
    return livecodebench(
        number,
        question_content=f"Join a word and a number. ({number})",
        starter_code="class Solution:\n    def join(self, word: str, times: List[int]) -> str:\n        ",
        public_test_cases=json.dumps(pairs_as_tests(('"ab"\n[1, 2]', '"ab3"'), kind="functional")),
        private_test_cases=json.dumps(pairs_as_tests(('"x"\n[]', '"x0"'), kind="functional")),
        metadata=json.dumps({"func_name": "join"}),
    )


def humaneval(number, test=None):
    asserts = "    assert candidate(1) == 2\n    assert 3 == candidate(2)\n    assert candidate(-1) == 0\n"
    return {
        "task_id": f"HumanEval/{number}",
        "prompt": "from typing import List\n\nSTEP = 1\n\ndef helper(x):\n    return x + STEP\n\n"
        f'def after(n: int) -> int:\n    """ The number after n ({number}) """\n',
        "entry_point": "after",
        "canonical_solution": "    return helper(n)\n",
        "test": test or f"METADATA = {{}}\n\ndef check(candidate):\n    assert True, 'fine'\n{asserts}",
    }


def mbpp(number, **changes):
    return {
        "task_id": number,
        "text": f"Write a function to double a number. ({number})",
        "code": "def twice(n):\n    return 2 * n",
        "test_list": ["assert twice(1) == 2", "assert twice(4)==8", "assert twice(-3) == -6"],
        "test_setup_code": "",
        **changes,
    }


def apps(number, **changes):
    return {
        "problem_id": number,
        "question": f"Read a number and print it twice. ({number})",
        "input_output": json.dumps({"inputs": ["1\n", "2\n", "3\n"], "outputs": ["1 1\n", "2 2\n", ["3 3"]]}),
        "starter_code": "",
        "difficulty": "introductory",
        **changes,
    }


def prepared(number, **changes):
    tests = {"inputs": ["1", "2", "3"], "outputs": ["2", "3", "4"], "testtype": "stdin", "fn_name": None, "time_limit": 2}
    return {"prompt": f"Print the next number. ({number})", "tests": json.dumps(tests), **changes}


FORMATS = {"livecodebench": livecodebench, "humaneval": humaneval, "mbpp": mbpp, "apps": apps, "prepared": prepared}


def write(folder, rows, name="problems.jsonl"):
    file = folder / name
    file.write_text("\n".join(map(json.dumps, rows)) if name.endswith("l") else json.dumps(rows))
    return str(file)


def environment(folder, rows, **options):
    return CodeFile(path=write(folder, rows), **options)


def first(folder, row, **options) -> Task:
    """The task that a row makes; a copy of it with another text is held out."""
    other = {
        key: value.replace("(0)", "(1)") if isinstance(value, str) else value
        for key, value in row.items()
        if key not in ("question_id", "task_id", "problem_id")
    }
    both = environment(folder, [row, other], **options)
    tasks = [task for split in ("train", "heldout") for task in both.tasks(split, 0)]
    return next(task for task in tasks if "(0)" in task.messages[-1].content)


def json_trial(*arguments, expected):
    return Trial(arguments=arguments, expected=expected, equality=Equality.python, is_json=True)


def solved(folder, row, source):
    task = first(folder, row)
    return CodeFile(path="unread").verify(task, f"```python\n{source}\n```").is_solved


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_recognised_and_makes_tasks_of_both_splits(tmp_path, name):
    for format_name in ("auto", name):
        made = environment(tmp_path, [FORMATS[name](number) for number in range(10)], heldout_share=0.3, format=format_name)
        assert isinstance(made, Environment)
        train, heldout = made.tasks("train", 0), made.tasks("heldout", 0)
        assert (len(train), len(heldout)) == (7, 3)
        assert not {task.id for task in train} & {task.id for task in heldout}
        assert all(task.payload.visible and task.payload.hidden for task in train)
        assert made.left_out == {}
        assert pickle.loads(pickle.dumps(train)) == train


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("livecodebench", "print(2 * int(input()))", "print(3 * int(input()))"),
        ("humaneval", "def after(n):\n    return helper(n)", "def after(n):\n    return n"),
        ("mbpp", "def twice(n):\n    return n + n", "def twice(n):\n    return n"),
        ("apps", "n = input()\nprint(n, n)", "print(input())"),
        ("prepared", "print(int(input()) + 1)", "print(int(input()) + 2)"),
    ],
)
def test_a_right_answer_is_solved_and_a_wrong_one_is_not(tmp_path, name, right, wrong):
    assert solved(tmp_path, FORMATS[name](0), right)
    assert not solved(tmp_path, FORMATS[name](0), wrong)


def test_published_private_tests_are_read_and_stay_hidden(tmp_path):
    for protocol in range(1, 6):
        row = livecodebench(0, private_test_cases=packed(pairs_as_tests(("30", "60"), ("é\U0001f600", "x")), protocol))
        payload = first(tmp_path, row).payload
        assert payload.visible == (ProgramTrial(stdin="1", expected="2"), ProgramTrial(stdin="2", expected="4"))
        assert payload.hidden == (ProgramTrial(stdin="30", expected="60"), ProgramTrial(stdin="é\U0001f600", expected="x"))


def test_functional_tests_have_one_json_value_a_line_for_each_argument(tmp_path):
    task = first(tmp_path, functional(0))
    assert task.payload.function == "join"
    assert task.payload.visible == (json_trial("ab", [1, 2], expected="ab3"),)
    assert task.payload.hidden == (json_trial("x", [], expected="x0"),)
    assert "class Solution:" in task.messages[-1].content
    right = "class Solution:\n    def join(self, word: str, times: List[int]) -> str:\n        return word + str(sum(times))"
    assert solved(tmp_path, functional(0), right)


class Bomb:
    """Its unpickling writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_would_run_something_is_refused_and_nothing_runs(tmp_path, protocol):
    mark = tmp_path / "mark"
    bomb = base64.b64encode(zlib.compress(pickle.dumps(Bomb(str(mark)), protocol=protocol))).decode()
    made = environment(tmp_path, [livecodebench(0), livecodebench(1, private_test_cases=bomb)])
    with pytest.raises(ValueError, match=r"problems.jsonl, line 2: 'private_test_cases' must be the pickle of one text"):
        made.tasks("train", 0)
    assert not mark.exists()
    pickle.loads(zlib.decompress(base64.b64decode(bomb))).close()
    assert mark.exists()  # the bomb is one


@pytest.mark.parametrize(
    "pickled",
    [
        b"", b".", b"\x80\x04.", pickle.dumps(3), pickle.dumps(b"x"), pickle.dumps(["x"]), pickle.dumps(("x", "y")),
        pickle.dumps("x") + b".", pickle.dumps("x")[:-1], b"\x80\x09\x8c\x01x.", b"cos\nsystem\n.", b"Vx\nVy\n.",
        b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7fx.", b"X\xff\xff\xff\x7fx.", b"\x8c\x01\xff.", b"I1\n.", b"Px\n.",
    ],
)  # fmt: skip
def test_what_is_no_pickled_text_is_refused(pickled):
    with pytest.raises(ValueError, match="must be the pickle of one text"):
        pickled_text(pickled)


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=300), st.integers(0, 5), st.booleans())
def test_every_pickled_text_is_read_as_it_was(text, protocol, is_optimized):
    pickled = pickle.dumps(text, protocol=protocol)
    assert pickled_text(pickletools.optimize(pickled) if is_optimized else pickled) == text


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60))
def test_random_bytes_are_refused_as_a_sentence(junk):
    with pytest.raises(ValueError, match="must"):
        packed_text(base64.b64encode(zlib.compress(junk + b"!")).decode())
    with pytest.raises(ValueError, match="must"):
        packed_text(base64.b64encode(junk).decode())


def test_a_zip_bomb_is_not_inflated():
    with pytest.raises(ValueError, match="must inflate to no more than 100000 bytes"):
        packed_text(base64.b64encode(zlib.compress(bytes(10**8))).decode(), max_bytes=10**5)


TRUE, FALSE = {"expected": True, "views": ("bool",)}, {"expected": False, "views": ("bool",)}


@pytest.mark.parametrize(
    ("source", "trials"),
    [
        ("assert f(1, 'a') == [1]", [Trial(arguments=(1, "a"), expected=[1])]),
        ("assert (2, -3) == f([])", [Trial(arguments=([],), expected=(2, -3))]),
        ("assert f(1)", [Trial(arguments=(1,), **TRUE)]),
        ("assert not f()", [Trial(arguments=(), **FALSE)]),
        ("assert f(None) is None", [Trial(arguments=(None,), expected=None)]),
        ("assert f(0) is True, 'why'", [Trial(arguments=(0,), expected=True)]),
        ("assert f(0) == True, 'why'", [Trial(arguments=(0,), expected=True)]),
        ("assert abs(f(3) - 1.5) < 1e-3", [Trial(arguments=(3,), expected=1.5, tolerance=1e-3)]),
        ("assert abs(2 - f(3)) <= 0.1", [Trial(arguments=(3,), expected=2.0, tolerance=0.1)]),
        ("assert math.fabs(f(1) - 3.0 / 2.0) < 0.1", [Trial(arguments=(1,), expected=1.5, tolerance=0.1)]),
        ("assert math.isclose(f(1), 2.5, rel_tol=0.001)", [Trial(arguments=(1,), expected=2.5, relative=0.001)]),
        ("assert isclose(2.5, f(0, 1j), abs_tol=1e-3)", [Trial(arguments=(0, 1j), expected=2.5, tolerance=1e-3)]),
        ("assert set(f('x')) == set(['a', 'b'])", [Trial(arguments=("x",), expected={"a", "b"}, views=("set",))]),
        ("assert tuple(f([1])) == tuple([1, 2])", [Trial(arguments=([1],), expected=(1, 2), views=("tuple",))]),
        ("assert len(set(f(1))) == 3", [Trial(arguments=(1,), expected=3, views=("set", "len"))]),
        ("assert [1, 2] == sorted(f({2, 1}))", [Trial(arguments=({1, 2},), expected=[1, 2], views=("sorted",))]),
        ("assert f(b'x') == 1+2j", [Trial(arguments=(b"x",), expected=1 + 2j)]),
        ("assert f(1) == 2 * 3", [Trial(arguments=(1,), expected=6)]),
        (f"assert f(1) == 1{'0' * 5000}", [Trial(arguments=(1,), expected=10**5000)]),
        ("\ufeffassert f(1) == 2", [Trial(arguments=(1,), expected=2)]),
        ("def check(c):\n  assert f(1) == 2", [Trial(arguments=(1,), expected=2)]),
        ("assert True", []),
    ],
)  # fmt: skip
def test_an_assert_with_literals_is_a_trial(source, trials):
    """``assert f(x)`` was once read as ``f(x) == True``, and the forms with set, tuple and isclose were left out."""
    asserted = read_asserts(source, "f")
    assert list(asserted.trials) == trials
    assert asserted.check is None
    assert asserted.num_left_out == 0


@pytest.mark.parametrize(
    "source",
    [
        "def check(c):\n  assert f(1) == 2\n  for x in [2]:\n    assert f(x) == 3",
        "x = 3\nassert f(x) == 1",
        "assert f(1) != 3\nassert f(1) < 3",
        "assert f(f(1)) == 2\nassert f(1) == 2 == 2",
        "import random\nfor _ in range(9):\n    n = random.randint(0, 9)\n    assert f(n) == n",
        "def other(x):\n    return x\nassert f(3) == other(3)",
        "assert f(1) == 1 / 0\nassert f(*[1]) == 1\nassert f(1)[0] == 2",
        "assert f(1) == float('nan')",
    ],
)
def test_what_is_no_trial_and_can_be_run_apart_from_an_answer_is_a_check(source):
    asserted = read_asserts(source, "f")
    assert asserted.check is not None
    assert asserted.num_left_out == 0
    assert "assert f(1) == 2\n" not in asserted.check.source, "what was read is not run again"


@pytest.mark.parametrize(
    ("source", "num_left_out"),
    [
        ("assert f(root) == 1", 1),
        ("assert g(1) == 2", 1),
        ("assert f(a=1) == 2\nassert f(lambda: 1) == 2", 2),
        ("assert f(1) == open('x')", 1),
        ("assert eval(f(1)) == 2", 1),
        ("assert f(1).__class__ == 2", 1),
        ("import numpy\nassert f(1) == numpy.pi", 1),
        ("xs = [2, 1]\nf(xs)\nassert xs == [1, 2]", 1),
        ("root = Node(1)\nassert f(root) == 1", 1),
    ],
)
def test_what_cannot_be_run_apart_from_an_answer_is_left_out_and_counted(source, num_left_out):
    asserted = read_asserts(f"assert f(1) == 1\n{source}", "f")
    assert asserted.trials == (Trial(arguments=(1,), expected=1),)
    assert asserted.check is None
    assert asserted.num_left_out == num_left_out


def test_only_the_assert_that_cannot_be_run_is_left_out():
    asserted = read_asserts("x = 1\nassert f(x) == 1\nassert f(root) == 1", "f")
    assert asserted.check.source == "x = 1\nassert f(x) == 1\npass\n"
    assert asserted.num_left_out == 1


def test_a_tolerance_is_granted_and_no_more(tmp_path):
    row = mbpp(0, code="def twice(n): return 2 * n", test_list=["assert abs(twice(1.0) - 2.0) < 0.1", "assert twice(2) == 4"])
    assert solved(tmp_path, row, "def twice(n):\n    return 2 * n + (0.05 if n == 1 else 0)")
    assert not solved(tmp_path, row, "def twice(n):\n    return 2 * n + (0.2 if n == 1 else 0)")
    assert not solved(tmp_path, row, "def twice(n):\n    return 10**999")


def test_rows_without_a_usable_test_are_left_out_counted_and_explained(tmp_path):
    unusable = humaneval(7, "def check(candidate):\n    for n in range(9):\n        assert candidate(n) == unheard_of(n)\n")
    partly = humaneval(8, "def check(candidate):\n    assert candidate(1) == 2\n    assert candidate(n=1) == 2\n")
    made = environment(tmp_path, [humaneval(1), partly, unusable, apps(3, input_output="")])
    assert len(made.tasks("train", 0)) + len(made.tasks("heldout", 0)) == 2
    assert made.left_out == {
        "it has no usable assert": 1,
        "it has no tests": 1,
        "a single test, as it cannot be run apart from an answer": 1,
    }
    with pytest.raises(ValueError, match=r"at least one usable problem; got none \(1 because it has no usable assert\)"):
        environment(tmp_path, [unusable]).tasks("train", 0)
    with pytest.raises(ValueError, match="got none"):
        environment(tmp_path, []).tasks("train", 0)


def test_prepared_rows_come_in_the_nested_form_and_with_functions(tmp_path):
    tests = {
        "inputs": ["[1, 2]\n3", "[]\n4"],
        "outputs": ["6", "4"],
        "testtype": "functional",
        "fn_name": "total",
        "time_limit": 1,
    }
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Add all numbers. (0)"}]
    rows = [
        {"prompt": messages, "reward_model": {"ground_truth": json.dumps(tests)}},
        {"prompt": "Another one.", "tests": tests},
    ]
    tasks = [task for split in ("train", "heldout") for task in environment(tmp_path, rows).tasks(split, 0)]
    task = next(task for task in tasks if task.messages[-1].content.startswith("Add"))
    assert [message.content for message in task.messages] == ["Be brief.", "Add all numbers. (0)"]
    assert task.payload.visible == (json_trial([1, 2], 3, expected=6),)
    assert task.payload.time_limit_s == 1.0
    judged = CodeFile(path="unread").verify(task, "```python\ndef total(xs, n):\n    return sum(xs) + n\n```")
    assert judged.is_solved
    slow = CodeFile(path="unread").verify(task, "```python\ndef total(xs, n):\n    while True: pass\n```")
    assert slow.feedback == "total([1, 2], 3) did not finish within 1 seconds."


def test_a_question_gives_its_time_to_each_call_and_not_to_all(tmp_path):
    """Eighteen quick calls had one call's time."""
    numbers = [str(number) for number in range(20)]
    tests = {"inputs": numbers, "outputs": numbers, "testtype": "functional", "fn_name": "same", "time_limit": 0.3}
    row = {"prompt": "Return the number.", "tests": json.dumps(tests)}
    other = {**row, "prompt": "Return it again."}
    task = environment(tmp_path, [row, other]).tasks("train", 0)[0]
    answer = "```python\nimport time\ndef same(n):\n    time.sleep(0.05)\n    return n\n```"
    assert CodeFile(path="unread").verify(task, answer).is_solved


@pytest.mark.parametrize(
    "body",
    [
        "    def join(self, word, times):\n        return word + str(comb(sum(times), 1))",
        "    def join(self, word, times):\n        return word + str(self.deep(4000) + sum(deepcopy(times)))\n"
        "    def deep(self, n):\n        return 0 if n == 0 else self.deep(n - 1)",
        "    def join(self, word, times):\n        assert (pow(2, 3, 5), Counter('aab').most_common(1)) == (3, [('a', 2)])\n"
        "        return word + str(sum(chain(copy.copy(times))))",
    ],
    ids=["names", "depth", "same names"],
)
def test_a_contest_answer_has_what_the_sites_have_imported(tmp_path, body):
    task = environment(tmp_path, [functional(1), functional(2)]).tasks("train", 0)[0]
    judged = CodeFile(path="unread").verify(task, f"```python\nclass Solution:\n{body}\n```")
    assert judged.is_solved, judged.feedback


def test_a_method_is_not_taken_for_what_the_sites_have_imported(tmp_path):
    rows = [functional(number) | {"metadata": json.dumps({"func_name": "product"})} for number in (1, 2)]
    task = environment(tmp_path, rows).tasks("train", 0)[0]
    answer = "class Solution:\n    def product(self, word, times):\n        return word + str(sum(times))"
    assert CodeFile(path="unread").verify(task, f"```python\n{answer}\n```").is_solved
    judged = CodeFile(path="unread").verify(task, "```python\nx = 1\n```")
    assert judged.feedback == "The answer does not define a function named product."


def test_rows_as_the_authors_write_them_are_read_and_other_questions_left_out(tmp_path):
    """JSON lines in a file called .json; a system prompt beside the prompt; a dash for the tests of what is no programming."""
    asserts = {"inputs": ["assert twice(2) == 4", "assert twice(0) == 0"], "outputs": ["", ""], "testtype": "code", "fn_name": ""}
    common = {"dataset": "x", "answer": "-", "elo": "-", "description": "", "system": "Think.", "embedding": []}
    rows = [
        {**common, "idx": 3, "kind": "code", "prompt": "Double it.", "tests": json.dumps(asserts)},
        {**common, "idx": 4, "kind": "code", "prompt": "Add one.", "tests": prepared(0)["tests"], "system": None},
        {**common, "idx": 5, "kind": "math", "prompt": "1 + 1?", "tests": "-"},
    ]
    file = tmp_path / "train.json"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = CodeFile(path=str(file))
    tasks = {task.id: task for split in ("train", "heldout") for task in made.tasks(split, 0)}
    assert tasks.keys() == {"code_file/3", "code_file/4"}
    assert made.left_out == {"it is no programming problem": 1}
    assert [message.content for message in tasks["code_file/3"].messages] == ["Think.", "Double it."]
    assert [message.content for message in tasks["code_file/4"].messages] == ["Add one."]
    assert made.verify(tasks["code_file/3"], "```python\ndef twice(n): return 2 * n\n```").is_solved
    assert not made.verify(tasks["code_file/3"], "```python\ndef twice(n): return n + 2\n```").is_solved


def test_functions_of_apps_take_lists_of_arguments_and_values_out_of_lists_of_one(tmp_path):
    tests = {"fn_name": "join", "inputs": [["a", 1], ["b", 2]], "outputs": [["a1"], ["b2"]]}
    payload = first(tmp_path, apps(0, input_output=json.dumps(tests))).payload
    assert isinstance(payload, FunctionTests)
    assert payload.visible + payload.hidden == (
        json_trial("a", 1, expected="a1"),
        json_trial("b", 2, expected="b2"),
    )


@pytest.mark.parametrize(
    ("row", "rule"),
    [
        ("[1]", "a row must be a JSON object"),
        ("{", "must be JSON"),
        ("[" * 100_000, "must be JSON"),
        ('"\\ud800"', "a row must be a JSON object"),
        (json.dumps({"a": 1}), "a row must be in one of the formats"),
        (json.dumps(livecodebench(1, question_content=" ")), "'question_content' must be a text that is not blank"),
        (json.dumps(livecodebench(1, question_content="\ud800")), "'question_content' must be Unicode"),
        (json.dumps(livecodebench(1, public_test_cases="[")), "'public_test_cases' must be JSON"),
        (json.dumps(livecodebench(1, public_test_cases="{}")), "'public_test_cases' must be a list"),
        (json.dumps(livecodebench(1, public_test_cases="[{}]")), "must have input, output and testtype"),
        (json.dumps(livecodebench(1, private_test_cases="#")), "'private_test_cases' must be base64"),
        (json.dumps(livecodebench(1, private_test_cases="AAAA")), "'private_test_cases' must be zlib's"),
        (json.dumps(functional(1) | {"metadata": "{}"}), "'metadata' must name the function"),
        (json.dumps(functional(1) | {"private_test_cases": json.dumps(pairs_as_tests(("1", "2")))}), "'testtype' must be"),
        (json.dumps(functional(1)).replace("[1, 2]", "[1, "), "'input of a test' must be JSON"),
        (json.dumps(functional(1)).replace("[1, 2]", "[" * 30 + "]" * 30), "nested no deeper than 20 times"),
        (json.dumps(humaneval(1) | {"test": "def check(:"}), "must be Python"),
        (json.dumps(humaneval(1) | {"entry_point": 3}), "'entry_point' must be a text"),
        (json.dumps(mbpp(1, test_list="x")), "'test_list' must be JSON"),
        (json.dumps(mbpp(1, test_list=["assert ("])), "must be Python"),
        (json.dumps(apps(1, input_output='{"inputs": ["1"], "outputs": []}')), "a test needs an input and an output"),
        (json.dumps(apps(1, input_output='{"inputs": [1], "outputs": [2]}')), "must be a text, to read or to print"),
        (json.dumps(prepared(1, prompt=[{"role": "assistant", "content": "x"}])), "'prompt' must be a text, or messages"),
        (json.dumps(prepared(1, tests={"inputs": ["1"], "outputs": ["1"], "time_limit": -1})), "'time_limit' must be"),
        (json.dumps(prepared(1, tests={"inputs": ["1"], "outputs": ["1"], "testtype": "functional"})), "'testtype' must be"),
    ],
)  # fmt: skip
def test_a_malformed_row_is_refused_with_its_file_its_line_and_the_rule(tmp_path, row, rule):
    file = tmp_path / "problems.jsonl"
    file.write_text(json.dumps(livecodebench(0)) + "\n\n" + row + "\n")
    with pytest.raises(ValueError, match=r"problems.jsonl, line 3: ") as caught:
        CodeFile(path=str(file)).tasks("train", 0)
    assert rule in str(caught.value)


def test_files_that_cannot_be_read_are_refused_with_a_remedy(tmp_path):
    (tmp_path / "a.csv").write_text("x")
    (tmp_path / "a.json").write_text("[{}")
    (tmp_path / "folder").mkdir()
    for name, rule in (("a.csv", "must end in"), ("b.jsonl", "there is none at"), ("a.json", "must be JSON")):
        with pytest.raises(ValueError, match=rule):
            CodeFile(path=str(tmp_path / name)).tasks("train", 0)


@pytest.mark.parametrize(("name", "package"), [("a.parquet", "pyarrow"), ("folder", "datasets")])
def test_a_package_that_a_file_needs_is_named(tmp_path, name, package, monkeypatch):
    """``None`` in sys.modules is how Python itself says that a module is not to be had."""
    monkeypatch.setitem(sys.modules, package, None)
    (tmp_path / name).mkdir() if "." not in name else (tmp_path / name).write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=f"{package} must be installed, as .*: pip install {package}"):
        CodeFile(path=str(tmp_path / name)).tasks("train", 0)


def test_a_json_list_is_read_like_json_lines(tmp_path):
    rows = [apps(number) for number in range(4)]
    lines, whole = CodeFile(path=write(tmp_path, rows)), CodeFile(path=write(tmp_path, rows, "problems.json"))
    assert lines.tasks("train", 3) == whole.tasks("train", 3)


def test_the_split_depends_on_the_questions_alone(tmp_path):
    rows = [apps(number) for number in range(20)]
    one = environment(tmp_path, rows, heldout_share=0.25)
    heldout = {task.id for task in one.tasks("heldout", 0)}
    copy = {**rows[0], "problem_id": 99, "question": rows[0]["question"].replace(" ", "\n ")}
    other = environment(tmp_path, [*reversed(rows), copy], heldout_share=0.25)
    assert {task.id for task in other.tasks("heldout", 5)} - {"code_file/99"} == heldout
    sides = [{task.id for task in other.tasks(split, 0)} for split in ("train", "heldout")]
    assert any({"code_file/0", "code_file/99"} <= side for side in sides)


def test_a_heldout_file_may_not_hold_a_training_problem(tmp_path):
    train = write(tmp_path, [apps(0), apps(1)], "train.jsonl")
    apart = CodeFile(path=train, heldout_path=write(tmp_path, [apps(2)], "apart.jsonl"))
    assert [task.id for task in apart.tasks("heldout", 0)] == ["code_file/2"]
    assert len(apart.tasks("train", 0)) == 2
    copy = {**apps(1), "problem_id": 77}
    with pytest.raises(
        ValueError, match=r"env\.options\.heldout_path must hold no problem that env\.options\.path holds; got '77'"
    ):
        CodeFile(path=train, heldout_path=write(tmp_path, [copy], "copy.jsonl")).tasks("train", 0)
    with pytest.raises(ValueError, match="an id of their own; got '1'"):
        CodeFile(path=train, heldout_path=write(tmp_path, [{**apps(5), "problem_id": 1}], "copy.jsonl")).tasks("train", 0)


def test_max_tests_bounds_what_is_run(tmp_path):
    many = json.dumps({"inputs": [str(i) for i in range(50)], "outputs": [str(i) for i in range(50)]})
    payload = first(tmp_path, apps(0, input_output=many), max_tests=7, num_visible=3).payload
    assert (len(payload.visible), len(payload.hidden)) == (3, 4)
    payload = first(tmp_path, livecodebench(0), max_tests=3).payload
    assert isinstance(payload, ProgramTests)
    assert (len(payload.visible), len(payload.hidden)) == (2, 1)


def test_a_right_answer_that_is_long_is_right(tmp_path):
    """Results were once cut at 4000 characters, whatever was expected."""
    tests = {"fn_name": "count", "inputs": [[3], [30_000]], "outputs": [[[0, 1, 2]], [list(range(30_000))]]}
    assert solved(tmp_path, apps(0, input_output=json.dumps(tests)), "def count(n):\n    return list(range(n))")
    printed = {"inputs": ["1", "2"], "outputs": ["x" * 10, "y" * 200_000]}
    assert solved(tmp_path, apps(0, input_output=json.dumps(printed)), "print('x' * 10 if input() == '1' else 'y' * 200000)")


@pytest.mark.parametrize(
    "options",
    [
        {"format": "x"}, {"heldout_share": 0.0}, {"heldout_share": 1.0}, {"heldout_share": 0.5, "heldout_path": "x"},
        {"max_tests": 1}, {"num_visible": 0}, {"reward": "none"}, {"timeout_s": 0},
    ],
)  # fmt: skip
def test_options_out_of_range_are_refused_by_name(options):
    with pytest.raises(ValueError, match=f"env.options.{next(iter(options))} must .*; got .*: try"):
        CodeFile(path="unread", **options)


def test_it_is_found_under_its_name_and_needs_a_path():
    with pytest.raises(ValueError, match="needs the options path"):
        registry.make("sdpo.envs.code.files:CodeFile", {})
    with pytest.raises(ValueError, match="train and heldout"):
        CodeFile(path="unread").tasks("test", 0)
