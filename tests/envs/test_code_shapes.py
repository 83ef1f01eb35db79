"""Which part of an answer is the code: every shape of the table in docs/code.md, and of its relatives."""

import time
from pathlib import Path

import pytest

from sdpo.envs.base import Message, Role, Task
from sdpo.envs.code import Code
from sdpo.envs.code.extraction import MAX_CODE_CHARS, extract_code
from sdpo.envs.code.trials import FunctionTests, ProgramTests, ProgramTrial, Trial

RIGHT = "def f(n):\n    return n + 1"
WRONG = "def f(n):\n    return n"
PROGRAM = "n = int(input())\nprint(n + 1)"
DRAFT = "n = int(input())\nprint(n)"


def fenced(source: str, language: str = "python", fence: str = "```") -> str:
    return f"{fence}{language}\n{source}\n{fence}"


def read(completion: str, function: str | None = "f") -> str | None:
    code = extract_code(completion, function)
    return None if code is None else code.source.rstrip("\n")


FUNCTIONS = {
    "a block": fenced(RIGHT),
    "a block among words": f"Here it is:\n\n{fenced(RIGHT)}\n\nIt adds one.",
    "another name of Python": fenced(RIGHT, "Python3"),
    "a name with attributes": fenced(RIGHT, "{.python .numberLines}"),
    "a file's name behind it": fenced(RIGHT, "python:solution.py"),
    "no name": fenced(RIGHT, ""),
    "never closed": f"```python\n{RIGHT}",
    "tildes": fenced(RIGHT, fence="~~~"),
    "four backticks": fenced(RIGHT, fence="````"),
    "four backticks around three": fenced(fenced(RIGHT), "markdown", "````"),
    "tildes around backticks": fenced(fenced(RIGHT), "", "~~~"),
    "an indented fence": f"1. So:\n\n   ```python\n   {RIGHT.replace(chr(10), chr(10) + '   ')}\n   ```",
    "indented by a tab": f"- So:\n\t```python\n\t{RIGHT.replace(chr(10), chr(10) + chr(9))}\n\t```",
    "an indented block": f"```python\n    {RIGHT.replace(chr(10), chr(10) + '    ')}\n```",
    "a byte-order mark first": "\ufeff" + fenced(RIGHT),
    "a byte-order mark in the block": fenced("\ufeff" + RIGHT),
    "lines that end as Windows ends them": fenced(RIGHT).replace("\n", "\r\n"),
    "an unlabelled block before": f"For example\n{fenced('f(3)', '')}\n{fenced(RIGHT)}",
    "an output before": f"{fenced('4', '')}\n{fenced('4', 'text')}\n{fenced(RIGHT)}",
    "usage, then code": f"{fenced('print(f(3))')}\nwith\n{fenced(RIGHT)}",
    "code, then usage": f"{fenced(RIGHT)}\nIt is called so:\n{fenced('print(f(3))  # 4')}",
    "buggy, then corrected": f"{fenced(WRONG)}\nThat forgets one. Corrected:\n{fenced(RIGHT)}",
    "a draft in the thoughts": f"<think>Perhaps\n{fenced(WRONG)}\nno.</think>\n{fenced(RIGHT)}",
    "a draft in thoughts that the prompt opened": f"{fenced(WRONG)}\nno.</think>\n{fenced(RIGHT)}",
    "another language beside it": f"{fenced('f() { }', 'bash')}\n{fenced(RIGHT)}\n{fenced('fn f() {}', 'rust')}",
    "a forgotten end": f"```python\n{RIGHT}\n```text\n4\n```",
    "a block in line": f"Use ```f``` so:\n{fenced(RIGHT)}",
    "no fence": f"Here it is:\n{RIGHT}",
    "no fence, a block for the usage": f"{RIGHT}\n{fenced('f(3)', '')}",
    "an empty block before": f"```python\n\n```\n{fenced(RIGHT)}",
}


@pytest.mark.parametrize("shape", FUNCTIONS)
def test_a_function_is_read_in_every_shape_in_which_models_write_it(shape: str) -> None:
    """The first block was taken, also one inside the thoughts, before a correction, or without a language."""
    assert read(FUNCTIONS[shape]) == RIGHT


METHOD = "class Solution:\n    def f(self, n):\n        return n + 1"
JOINED = {
    "imports, then a definition": (["import math", "def f(n):\n    return math.ceil(n)"], 2),
    "imports and a constant": (["import sys\nsys.setrecursionlimit(9999)\nN = 7", RIGHT], 2),
    "a helper, then the function": (["def g(n):\n    return n", "def f(n):\n    return g(n) + 1"], 2),
    "imports, a helper, the function": (["import math", "def g(n):\n    return n", RIGHT], 3),
    "a draft is not joined": ([WRONG, "import math", RIGHT], 2),
    "a draft of a method is not joined": (["class Solution:\n    def f(self, n): pass", METHOD], 1),
    "usage is not joined": (["print(f(1))", RIGHT], 1),
    "what is no Python is not joined": (["import", RIGHT], 1),
    "what follows is not joined": ([RIGHT, "import math"], None),
    "a future import stands first": (["import math", "from __future__ import annotations\n" + RIGHT], 1),
}


@pytest.mark.parametrize("shape", JOINED)
def test_blocks_that_only_import_and_define_are_joined_with_the_one_after_them(shape: str) -> None:
    blocks, num_joined = JOINED[shape]
    wanted = blocks[:1] if num_joined is None else blocks[-num_joined:]
    assert read("\n\n".join(map(fenced, blocks))) == "\n".join(wanted)


PROGRAMS = {
    "a block": (fenced(PROGRAM), PROGRAM),
    "a draft, then corrected": (f"{fenced(DRAFT)}\nNo:\n{fenced(PROGRAM)}", PROGRAM),
    "an example of input and output": (f"{fenced(PROGRAM)}\nInput:\n{fenced('3', '')}\nOutput:\n{fenced('4', '')}", PROGRAM),
    "an example before": (f"{fenced('3', '')}\n{fenced(PROGRAM)}", PROGRAM),
    "usage behind it": (f"{fenced(PROGRAM)}\nTry it:\n{fenced('print(3 + 1)')}", PROGRAM),
    "definitions, then what runs them": (
        f"{fenced('def main():' + chr(10) + '    print(int(input()) + 1)')}\n{fenced('main()')}",
        "def main():\n    print(int(input()) + 1)\nmain()",
    ),
    "imports, then the program": (
        f"{fenced('import sys')}\n{fenced('print(int(sys.stdin.read()) + 1)')}",
        "import sys\nprint(int(sys.stdin.read()) + 1)",
    ),
    "a program that reads nothing": (fenced("print(7)"), "print(7)"),
    "corrected, but no Python": (f"{fenced(DRAFT)}\n{fenced('n = int(input()')}", "n = int(input()"),
    "no fence and no import": (PROGRAM, PROGRAM),
    "no fence": (f"import sys\n{PROGRAM}", f"import sys\n{PROGRAM}"),
    "a thought": (f"<think>{fenced(DRAFT)}</think>{fenced(PROGRAM)}", PROGRAM),
}


@pytest.mark.parametrize("shape", PROGRAMS)
def test_of_several_blocks_the_last_that_is_a_program_is_taken(shape: str) -> None:
    completion, source = PROGRAMS[shape]
    assert read(completion, None) == source


@pytest.mark.parametrize(
    "completion",
    [
        "", "The default is 3", "```python\n   \n```", f"<think>{fenced(RIGHT)}</think>", f"<think>\n{fenced(RIGHT)}\nso it is",
        f"<think>{RIGHT}", "from here we see that it is 3", "import duties are high", "class of problems", fenced("x", "text"),
        "\ufeff", "~~~", "yes",
    ],
)  # fmt: skip
def test_what_holds_no_code_has_none(completion: str) -> None:
    assert read(completion) is None
    assert read(completion, None) is None


@pytest.mark.parametrize(
    ("completion", "source"),
    [
        (f"Sure:\n{METHOD}", METHOD),
        (f"Sure:\n@cache\n{RIGHT}", f"@cache\n{RIGHT}"),
        ("Sure:\nfrom math import ceil as f", "from math import ceil as f"),
        (f"Sure:\nasync {RIGHT}", f"async {RIGHT}"),
        ("f = lambda n: n + 1", None),
        (f"{fenced('f = lambda n: n + 1')}\n{fenced('x = 1')}", "f = lambda n: n + 1"),
        (f"{fenced('f: Callable = len')}\n{fenced('f == 2')}", "f: Callable = len"),
    ],
)
def test_unfenced_classes_decorators_and_other_ways_to_define_are_read(completion: str, source: str | None) -> None:
    assert read(completion) == source


@pytest.mark.parametrize(
    "block",
    [
        "-" * 20_000 + "1", "(" * 20_000, "x = 1" + "0" * 5000, "x = a" + ".a" * 9000, "x = f" + "()" * 9000, "not " * 9000 + "1",
        "\0", "'\ud800'", "x = '\\d'", "if 1:\n " * 5000, "@" * 9000, "x = [" + "[" * 90 + "]" * 90 + "]", "\x0c", "a: " * 9000,
    ],
    ids=lambda block: ascii(block[:12]),
)  # fmt: skip
def test_a_block_of_any_text_in_front_keeps_no_code_from_being_read(block: str) -> None:
    """Blocks in front are parsed, as they may have to be joined."""
    assert (read(f"{fenced(block)}\n{fenced(RIGHT)}") or "").endswith(RIGHT)
    assert (read(f"{fenced(block)}\n{fenced(PROGRAM)}", None) or "").endswith(PROGRAM)


def test_thousands_of_blocks_take_no_more_than_a_moment() -> None:
    """All blocks before one were once parsed again for each: a minute for an answer of 64 kB."""
    started = time.monotonic()
    many = fenced("x=1") + "\n"
    for completion in (
        many * 3000,
        "```\n" * 16_000,
        "~~~\n```\n" * 8000,
        fenced("def f():\n  input()") * 1500,
        "   ```md\n" * 6000,
    ):
        for function in ("f", None):
            extract_code(completion, function)
    assert time.monotonic() - started < 20.0


def test_thoughts_of_any_length_leave_room_for_the_code() -> None:
    assert read(f"<think>{'x ' * MAX_CODE_CHARS}</think>{fenced(RIGHT)}") == RIGHT
    assert read(f"{'x ' * MAX_CODE_CHARS}{fenced(RIGHT)}") is None


def judged(completion: str, tests: FunctionTests | ProgramTests) -> tuple[float, str | None]:
    question = (Message(role=Role.user, content="Add one."),)
    verdict = Code(timeout_s=20.0).verify(Task(id="code/shapes", env="code", messages=question, payload=tests), completion)
    return verdict.reward, verdict.feedback


TESTS = FunctionTests(function="f", visible=(Trial(arguments=(1,), expected=2),), hidden=(Trial(arguments=(5,), expected=6),))


@pytest.mark.parametrize(
    "source",
    [
        f"import sys\n{RIGHT}\nsys.exit(0)",
        f"import sys\n{RIGHT}\nif f(1) == 2:\n    sys.exit()",
        f"{RIGHT}\nexit()",
        f"import sys\n{RIGHT}\ndef main():\n    print(f(3))\nsys.exit(main())",
    ],
)
def test_an_answer_may_end_as_a_script_does(source: str) -> None:
    """``sys.exit(0)`` behind the function once made a right answer wrong."""
    assert judged(fenced(source), TESTS) == (1.0, None)


def test_an_answer_that_ends_with_a_fault_or_before_its_function_is_not_right() -> None:
    assert judged(fenced(f"import sys\n{RIGHT}\nsys.exit(3)"), TESTS)[0] == 0.0
    reward, feedback = judged(fenced(f"import sys\nsys.exit(0)\n{RIGHT}"), TESTS)
    assert reward == 0.0
    assert "SystemExit" in (feedback or "")


def test_code_in_a_thought_earns_nothing_and_is_told_so() -> None:
    """Right code in a thought that is never closed once earned the reward."""
    for completion in (f"<think>\n{fenced(RIGHT)}", f"<think>{fenced(RIGHT)}</think>", f"{fenced(RIGHT)}</think>"):
        assert judged(completion, TESTS) == (
            0.0,
            "No code was found after the thoughts: the answer must be one Python function in a ```python block.",
        )
    assert judged("", TESTS)[1] == "No code was found: the answer must be one Python function in a ```python block."


@pytest.mark.parametrize("shape", ["buggy, then corrected", "a draft in the thoughts", "usage, then code", "an indented fence"])
def test_a_right_answer_in_such_a_shape_earns_the_reward(shape: str) -> None:
    assert judged(FUNCTIONS[shape], TESTS) == (1.0, None)


def test_a_corrected_program_earns_the_reward() -> None:
    tests = ProgramTests(
        visible=(ProgramTrial(stdin="3\n", expected="4\n"),), hidden=(ProgramTrial(stdin="9\n", expected="10\n"),)
    )
    assert judged(PROGRAMS["a draft, then corrected"][0], tests) == (1.0, None)
    assert judged(f"{fenced(PROGRAM)}\nOr rather:\n{fenced(DRAFT)}", tests)[0] == 0.0


def test_every_shape_of_the_documentation_stands_here() -> None:
    """The table in docs/code.md names shapes by the words that are used here."""
    page = Path(__file__, "../../../docs/code.md").resolve().read_text(encoding="utf-8")
    rows = page.partition("| shape | read as |")[2].partition("\n\n")[0].split("\n")[2:]
    named = {row.split("|")[1].strip() for row in rows}
    assert len(named) >= 12
    assert named <= {*FUNCTIONS, *JOINED, *PROGRAMS}
