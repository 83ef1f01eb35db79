"""Files in the forms of HumanEval, MBPP and sanitized MBPP: whatever solution Python itself passes is rewarded or listed with its
reason. The problems are our own; they have the odd tests that the published ones have."""

import gzip
import json
from pathlib import Path
from typing import NamedTuple

import pytest

from sdpo.envs.base import LeavesOut, Task, Verdict
from sdpo.envs.code import Code
from sdpo.envs.code.files import CodeFile
from sdpo.envs.code.formats import UNUSED_TESTS
from sdpo.envs.code.trials import FunctionTests

LEFT_OUT = "it has no usable assert"
Row = dict[str, object]


class Published(NamedTuple):
    """A row, a wrong answer to it, and the reason if it is left out."""

    row: Row
    wrong: str
    reason: str | None = None


def humaneval(name: str, head: str, body: str, test: str, wrong: str, reason: str | None = None) -> Published:
    row = {"task_id": f"HumanEval/{name}", "prompt": head, "entry_point": name, "canonical_solution": body, "test": test}
    return Published(row, head + wrong, reason)


HUMANEVAL = [
    humaneval(
        "increase",
        'from typing import List\n\n\ndef increase(xs: List[int]) -> List[int]:\n    """ Add one to each. """\n',
        "    return [x + 1 for x in xs]\n",
        "\n\nMETADATA = {'author': 'us'}\n\n\ndef check(candidate):\n    assert candidate([]) == []\n"
        "    assert candidate([1]) == [2]\n    assert candidate([3, 1]) == [4, 2], 'two'\n    assert True, 'fine'\n",
        "    return xs\n",
    ),
    humaneval(  # a loop over random polynomials, judged with a helper of the prompt
        "root",
        "import math\n\n\ndef line(cs: list, x: float):\n    return sum(c * math.pow(x, i) for i, c in enumerate(cs))\n\n\n"
        'def root(cs: list):\n    """ Where line(cs, x) is zero, for two coefficients. """\n',
        "    return -cs[0] / cs[1]\n",
        "\ndef check(candidate):\n    import math\n    import random\n    rng = random.Random(42)\n    import copy\n"
        "    for _ in range(100):\n        cs = [rng.randint(-10, 10), rng.randint(1, 10)]\n"
        "        solution = candidate(copy.deepcopy(cs))\n        assert math.fabs(line(cs, solution)) < 1e-4\n",
        "    return cs[0] / cs[1]\n",
    ),
    humaneval(  # the reference is the function itself, by its own name
        "every_third",
        'def every_third(l: list):\n    """ Sort each third item. """\n',
        "    l = list(l)\n    l[::3] = sorted(l[::3])\n    return l\n",
        "\ndef check(candidate):\n    assert tuple(candidate([1, 2, 3])) == tuple(every_third([1, 2, 3]))\n"
        "    assert tuple(candidate([5, 6, 3, 4])) == tuple([4, 6, 3, 5])\n"
        "    assert tuple(candidate([2, 9, 9, 1, 0])) == (1, 9, 9, 2, 0)\n",
        "    return l\n",
    ),
    humaneval(  # what comes back is compared as a tuple
        "evens",
        'def evens(l: list):\n    """ The items at even places. """\n',
        "    return l[::2]\n",
        "\ndef check(candidate):\n    assert tuple(candidate([1, 2, 3])) == tuple([1, 3])\n"
        "    assert tuple(candidate([])) == tuple([])\n",
        "    return l[1::2]\n",
    ),
    humaneval(  # unseeded random words, encoded by a helper of the prompt
        "unshift",
        "def shift(s: str):\n    return ''.join(chr((ord(c) - 92) % 26 + 97) for c in s)\n\n\n"
        'def unshift(s: str):\n    """ Undo shift. """\n',
        "    return ''.join(chr((ord(c) - 102) % 26 + 97) for c in s)\n",
        "\n\nMETADATA = {}\n\n\ndef check(candidate):\n    from random import randint, choice\n    import string\n\n"
        "    letters = string.ascii_lowercase\n    for _ in range(100):\n"
        "        str = ''.join(choice(letters) for i in range(randint(10, 20)))\n        encoded_str = shift(str)\n"
        "        assert candidate(encoded_str) == str\n",
        "    return s\n",
    ),
    humaneval(  # near, exactly true, none
        "halve",
        'def halve(n: float, strict: bool = False):\n    """ n / 2, None of none. """\n',
        "    return None if n is None else n / 2\n",
        "def check(candidate):\n    assert abs(candidate(3.0) - 1.5) < 1e-6\n    assert candidate(None) is None\n"
        "    assert candidate(4) == 2\n    assert candidate(4, True) == 2\n",
        "    return n\n",
    ),
    humaneval(  # a reference inside, and calls of which one needs what the other returned
        "double",
        'def double(n: int):\n    """ Twice n. """\n',
        "    return 2 * n\n",
        "def check(candidate):\n    import random\n    def ref(n):\n        return n + n\n    for _ in range(20):\n"
        "        n = random.randint(0, 10000)\n        assert candidate(n) == ref(n), f'of {n}'\n"
        "    once = candidate(3)\n    assert candidate(candidate(once)) == 24\n",
        "    return n + 2\n",
    ),
    humaneval(  # an exception is what is asked for
        "root_of",
        'def root_of(n: int):\n    """ Its integer root; ValueError below zero. """\n',
        "    if n < 0:\n        raise ValueError('below zero')\n    return int(n ** 0.5)\n",
        "def check(candidate):\n    assert candidate(9) == 3\n    try:\n        candidate_result = candidate(-1)\n"
        "        assert candidate_result is None and False\n    except ValueError:\n        pass\n",
        "    return int(abs(n) ** 0.5)\n",
    ),
    humaneval(
        "with_numpy",
        'def with_numpy(n: int):\n    """ n. """\n',
        "    return n\n",
        "import numpy as np\n\ndef check(candidate):\n    for n in [1, 2]:\n        assert np.allclose(candidate(n), n)\n",
        "    return -n\n",
        LEFT_OUT,
    ),
]


def mbpp(number: int, code: str, tests: list[str], wrong: str, setup: str = "", reason: str | None = None) -> Published:
    row = {"task_id": number, "text": f"Write a function. ({number})", "code": code, "test_list": tests}
    return Published({**row, "test_setup_code": setup, "challenge_test_list": []}, wrong, reason)


MBPP = [
    mbpp(
        1,
        "def area(a, b):\r\n  return a * b / 2\r\n",
        ["assert area(4, 2) == 4", "assert area(3, 3) == 4.5"],
        "def area(a, b): return a",
    ),
    mbpp(
        2,
        "from collections import Counter\ndef counts(s):\n  return Counter(s)",
        ["assert counts('aab')=={'a': 2, 'b': 1}", "assert counts('') == {}"],
        "def counts(s): return {}",
    ),
    mbpp(
        3,
        "from collections import defaultdict\ndef by(xs):\n  d = defaultdict(list)\n  for k, v in xs: d[k].append(v)\n  return d",
        ["assert by([('a', 1)]) == {'a': [1]}", "assert by([]) == {}"],
        "def by(xs): return dict(xs)",
    ),
    mbpp(
        4,
        "def is_odd(n):\n  return n & 1",
        ["assert is_odd(4) == False", "assert is_odd(3) == True"],
        "def is_odd(n): return False",
    ),
    mbpp(
        5,
        "import re\ndef starts(s):\n  return re.match('a', s)",
        ["assert starts('ab')", "assert not starts('b')"],
        "def starts(s): return True",
    ),
    mbpp(
        6,
        "import cmath\ndef angle(a, b):\n  return cmath.phase(a + b)",
        [
            "assert math.isclose(angle(0, 1j), 1.5707963267948966, rel_tol=0.001)",
            "assert math.isclose(angle(2, 0), 0.0, abs_tol=1e-3)",
        ],
        "def angle(a, b): return 0.0",
        setup="import math",
    ),
    mbpp(
        7,
        "def words(s):\n  return s.split()",
        ["assert set(words('b a')) == set(['a', 'b'])", "assert words('') == []"],
        "def words(s): return list(s)",
    ),
    mbpp(
        8,
        "def largest(xs, k):\n  return sorted(xs)[-k:]",
        ["assert sorted(largest([1, 5, 3], 2)) == [3, 5]", "assert largest([], 1) == []"],
        "def largest(xs, k): return xs",
    ),
    mbpp(
        9,
        "class Node:\n  def __init__(self, x): self.x = x\ndef value(node):\n  return node.x",
        ["assert (value(root)) == 1"],
        "def value(node): return 2",
        setup="root = Node(1)",
        reason=LEFT_OUT,
    ),
    mbpp(
        10,
        "def factorial(n):\n  return 1 if n < 2 else n * factorial(n - 1)",
        ["assert factorial(3) == 6", "assert len(str(factorial(900))) == 2270", f"assert 10 ** 5000 == 1{'0' * 5000}"],
        "def factorial(n): return 6",
    ),
    mbpp(
        11,
        "def power(n):\n  return 10 ** n",
        [f"assert power(5000) == 1{'0' * 5000}", "assert power(1) == 10"],
        "def power(n): return 10",
    ),
    mbpp(
        12,
        "from collections import namedtuple\nP = namedtuple('P', 'x y')\ndef point(x, y):\n  return P(x, y)",
        ["assert point(1, 2) == (1, 2)", "assert point(0, 0) == (0, 0)"],
        "def point(x, y): return (y, x)",
    ),
]


def sanitized(
    number: int, code: str, tests: list[str], wrong: str, imports: tuple[str, ...] = (), reason: str | None = None
) -> Published:
    row = {"source_file": "ours", "task_id": number, "prompt": f"Write a function. ({number})", "code": code}
    return Published({**row, "test_imports": list(imports), "test_list": tests}, wrong, reason)


SANITIZED = [
    sanitized(
        1,
        "import math\ndef volume(r):\n  return 4 / 3 * math.pi * r ** 3",
        ["assert math.isclose(volume(10), 4188.790204786391, rel_tol=0.001)", "assert volume(0) == 0"],
        "def volume(r): return r",
        ("import math",),
    ),
    sanitized(
        2,
        "import re\ndef has_z(s):\n  return re.search('z', s)",
        ["assert has_z('pythonz')", "assert not has_z('lang')"],
        "def has_z(s): return None",
    ),
    sanitized(
        3,
        "def swapped(xs):\n  return xs[::-1]",
        ["xs = [1, 2]\nassert swapped(xs) == [2, 1]", "assert tuple(swapped([])) == tuple()"],
        "def swapped(xs): return xs",
    ),
    sanitized(
        4,
        "def common(a, b):\n  return set(a) & set(b)",
        ["assert set(common([1, 2], (2,))) == {2}"],
        "def common(a, b): return set(a)",
    ),
    sanitized(5, "def root(n):\n  return n ** 0.5", ["assert abs(root(2) - 1.41421) <= 0.001"], "def root(n): return n"),
    sanitized(
        6,
        "def flat(xs):\n  return (y for x in xs for y in x)",
        ["assert list(flat([[1], [2]])) == [1, 2]", "assert list(flat([])) == []"],
        "def flat(xs): return iter(xs)",
    ),
    sanitized(
        7,
        "def pairs(xs):\n  return dict(xs)",
        ["result = pairs([(1, 2)])\nfor key in result:\n    assert result[key] == 2\nassert len(result) == 1"],
        "def pairs(xs): return {1: 3}",
    ),
    sanitized(
        8, "def call(f, x):\n  return f(x)", ["assert call(lambda x: x + 1, 1) == 2"], "def call(f, x): return 3", reason=LEFT_OUT
    ),
]
FILES = {"humaneval": HUMANEVAL, "mbpp": MBPP, "sanitized": SANITIZED}
CASES = [pytest.param(name, case, id=f"{name}-{case.row['task_id']}") for name, cases in FILES.items() for case in cases]


def canonical(row: Row) -> str:
    return f"{row['prompt']}{row['canonical_solution']}" if "canonical_solution" in row else str(row["code"])


def passes_python(row: Row) -> bool:
    """Whether the row's own solution passes the row's own tests, run as the publishers run them."""
    if "canonical_solution" in row:
        source = f"{canonical(row)}\n{row['test']}\ncheck({row['entry_point']})\n"
    else:
        imports, tests = row.get("test_imports") or [], row["test_list"]
        assert isinstance(imports, list)
        assert isinstance(tests, list)
        source = "\n".join([*imports, canonical(row), str(row.get("test_setup_code") or ""), *tests])
    try:
        exec(source, {"__name__": "published"})
    except (AssertionError, ImportError, SyntaxError):
        return False
    return True


def written(folder: Path, rows: list[Row], name: str = "problems.jsonl") -> str:
    file = folder / name
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    file.write_bytes(gzip.compress(lines.encode()) if name.endswith(".gz") else lines.encode())
    return str(file)


def task_of(path: str, row: Row, **options: object) -> Task | None:
    made = CodeFile(path=path, heldout_share=0.2, **options)  # type: ignore[arg-type]
    every = [task for split in ("train", "heldout") for task in made.tasks(split, 0)]
    return next((task for task in every if task.id == f"code_file/{row['task_id']}"), None)


def judged(task: Task, source: str) -> Verdict:
    return CodeFile(path="unread", timeout_s=20.0).verify(task, f"```python\n{source}\n```")


@pytest.mark.parametrize(("name", "case"), CASES)
def test_every_solution_that_python_passes_is_rewarded_or_listed(tmp_path: Path, name: str, case: Published) -> None:
    """26 of MBPP's own solutions and three of the sanitized ones were refused, and forty rows left out without a word."""
    path = written(tmp_path, [published.row for published in FILES[name]])
    task = task_of(path, case.row)
    if case.reason is not None:
        assert task is None
        return
    assert passes_python(case.row) or "10 ** 5000" in str(case.row) or "0" * 5000 in str(case.row), "a case of ours must be right"
    assert task is not None
    right = judged(task, canonical(case.row))
    assert (right.reward, right.feedback) == (1.0, None)
    wrong = judged(task, case.wrong)
    assert wrong.reward == 0.0
    assert wrong.feedback


@pytest.mark.parametrize("name", FILES)
def test_what_is_left_out_is_listed_with_its_reason(tmp_path: Path, name: str) -> None:
    made = CodeFile(path=written(tmp_path, [case.row for case in FILES[name]]))
    reasons = [case.reason for case in FILES[name] if case.reason is not None]
    assert isinstance(made, LeavesOut)
    assert made.left_out == ({LEFT_OUT: len(reasons)} if reasons else {})


def test_a_file_packed_with_gzip_is_read_as_it_is(tmp_path: Path) -> None:
    rows = [case.row for case in HUMANEVAL]
    plain, packed = written(tmp_path, rows), written(tmp_path, rows, "problems.jsonl.gz")
    assert CodeFile(path=packed).tasks("train", 0) == CodeFile(path=plain).tasks("train", 0)
    (tmp_path / "list.json.gz").write_bytes(gzip.compress(json.dumps(rows).encode()))
    assert CodeFile(path=str(tmp_path / "list.json.gz")).tasks("train", 0) == CodeFile(path=plain).tasks("train", 0)
    for broken in (b"no gzip", gzip.compress(json.dumps(rows[0]).encode())[:-9]):
        (tmp_path / "broken.jsonl.gz").write_bytes(broken)
        with pytest.raises(ValueError, match=r"broken\.jsonl\.gz must be packed with gzip, to its end"):
            CodeFile(path=str(tmp_path / "broken.jsonl.gz")).tasks("train", 0)


def test_a_byte_order_mark_is_read_and_another_encoding_named_with_its_file(tmp_path: Path) -> None:
    """One loader read a mark and another did not; Latin-1 was said to be a fault of ``train_split``."""
    rows = [{**case.row, "text": f"Größe {case.row['task_id']}"} for case in MBPP[:3]]
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    for name, content in (("lines.jsonl", text), ("list.json", json.dumps(rows))):
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + content.encode())
        assert len(CodeFile(path=str(tmp_path / name)).tasks("train", 0)) == 2
    (tmp_path / "latin.jsonl").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"latin\.jsonl, line 1: must be text in UTF-8; byte .* is not: convert the file"):
        CodeFile(path=str(tmp_path / "latin.jsonl")).tasks("train", 0)


def test_strictly_types_count_in_files_as_well(tmp_path: Path) -> None:
    path = written(tmp_path, [case.row for case in MBPP])
    for number, is_solved in ((1, False), (2, False), (4, False), (5, True), (7, True)):
        task = task_of(path, MBPP[number - 1].row, equality="strict")
        assert task is not None
        assert judged(task, canonical(MBPP[number - 1].row)).is_solved is is_solved
    with pytest.raises(ValueError, match=r"env\.options\.equality must be python .* or strict"):
        CodeFile(path=path, equality="loose")


def test_a_file_that_another_environment_solves_is_compared_as_python_does(tmp_path: Path) -> None:
    """``sdpo solve env=code task=FILE`` reads files too."""
    task = Code().from_file(written(tmp_path, [MBPP[3].row]))[0]
    assert Code(timeout_s=20.0).verify(task, f"```python\n{MBPP[3].row['code']}\n```").is_solved


def test_long_integers_are_read_and_returned(tmp_path: Path) -> None:
    """A result was "too long", and one row refused a whole file of APPS as "must be JSON"."""
    long = 10**5000 + 7
    tests = {"fn_name": "after", "inputs": [[1], [0]], "outputs": [[0], [1]]}
    text = json.dumps(tests).replace("[1]]", f"[1{'0' * 4999}8]]", 1).replace("[[1], [0]]", f"[[1], [1{'0' * 4999}7]]")
    text = text.replace("[[0],", "[[2],")
    row: Row = {"problem_id": 1, "question": "Add one.", "input_output": text}
    other: Row = {"problem_id": 2, "question": "Add two.", "input_output": text}
    task = next(iter(CodeFile(path=written(tmp_path, [row, other])).tasks("train", 0)))
    assert isinstance(task.payload, FunctionTests)
    assert task.payload.hidden[0].arguments == (long,)
    assert judged(task, "def after(n):\n    return n + 1").is_solved
    wrong = judged(task, f"def after(n):\n    return 1{'0' * 4500}")
    assert wrong.feedback is not None
    assert wrong.feedback.startswith("after(1) returned 1000")
    assert wrong.feedback.endswith("0000, but 2 was expected.")


def test_a_tuple_is_the_list_that_json_can_say(tmp_path: Path) -> None:
    tests = {"fn_name": "pair", "inputs": [[1], [2]], "outputs": [[1, 1], [2, 2]]}
    rows: list[Row] = [{"problem_id": n, "question": f"Twice. {n}", "input_output": json.dumps(tests)} for n in range(2)]
    path = written(tmp_path, rows)
    for equality, is_solved in (("python", True), ("strict", False)):
        task = CodeFile(path=path, equality=equality).tasks("train", 0)[0]
        assert judged(task, "def pair(n):\n    return n, n").is_solved is is_solved


def test_the_words_for_single_tests_say_why() -> None:
    assert UNUSED_TESTS == "a single test, as it cannot be run apart from an answer"
