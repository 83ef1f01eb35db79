"""Answers that cheat: each earns nothing, in every sandbox that this machine has, and learns nothing of a hidden test.

A cheat that knows the visible tests shows in its verdict that it was tried: it passes them by its trick alone, or hears of a
hidden test. What a cheat relies on it asserts, and an AssertionError is not what its test expects to hear of.
"""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdpo.envs import sandbox
from sdpo.envs.base import Message, Role, Task, Verdict
from sdpo.envs.code import Code
from sdpo.envs.code.trials import Check, Equality, FunctionTests, ProgramTests, ProgramTrial, Trial
from sdpo.envs.sandbox import Isolation, Settings
from tests.envs.test_attacks import KINDS, ON_ONE_KIND, files_left, processes_left, sockets_left

LIMIT_S = 1.0
ENVIRONMENT = Code(timeout_s=LIMIT_S)
QUESTION = (Message(role=Role.user, content="Square n and add one."),)
FUNCTION = Task(
    id="code/attacked",
    env="code",
    messages=QUESTION,
    payload=FunctionTests(
        function="f",
        visible=tuple(Trial(arguments=(n,), expected=n * n + 1) for n in (3, 4)),
        hidden=tuple(Trial(arguments=(n,), expected=n * n + 1) for n in (7919, 6271, -5273)),
    ),
)
PROGRAM = Task(
    id="code/attacked-program",
    env="code",
    messages=QUESTION,
    payload=ProgramTests(
        visible=tuple(ProgramTrial(stdin=f"{n}\n", expected=f"{n * n + 1}.5\n") for n in (3, 4)),
        hidden=tuple(ProgramTrial(stdin=f"{n}\n", expected=f"{n * n + 1}.5\n") for n in (7919, 6271)),
    ),
)
HIDDEN = [str(number) for n in (7919, 6271, -5273) for number in (abs(n), n * n + 1)]
WRONG = "All visible tests pass, but a hidden test fails: the function is not right for every input."
NO_OUTPUT_RIGHT = "All visible tests pass, but a hidden test fails: the program is not right for every input."
ENDED = "ended the program instead of returning"

FORGE = """
import marshal, os, sys
frame = sys._getframe()
while "nonce" not in frame.f_locals: frame = frame.f_back
nonce = frame.f_locals["nonce"]
calls = frame.f_locals["work"][2]
arguments = [marshal.loads(call)[0] for call in calls]
is_hidden = 3 not in arguments
def forge(index, kind, text="None"):
    os.write(3, f"{nonce} {index} {kind} {text}\\n".encode())
"""
PASS_VISIBLE = """
if not is_hidden:
    forge(-1, "loaded")
    for index, n in enumerate(arguments): forge(index, "value", n * n + 1)
"""


def knows_visible(statement: str, before: str = "") -> str:
    """An answer that has the visible results by heart, and does something else on a hidden test."""
    return f"import os, sys\n{before}\ndef f(n):\n    if n in (3, 4): return {{3: 10, 4: 17}}[n]\n    {statement}\n"


def verdict(source: str, task: Task = FUNCTION, most_s: float = 2 * LIMIT_S + 3) -> Verdict:
    started = time.monotonic()
    judged = ENVIRONMENT.verify(task, f"```python\n{source}\n```")
    assert time.monotonic() - started < most_s
    assert all(number not in (judged.feedback or "") for number in HIDDEN)
    return judged


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> Isolation:
    return request.param


@pytest.fixture(scope="module", autouse=True)
def _pool(kind: Isolation) -> Iterator[None]:
    """One server for all cheats of a kind, as one thread needs no more."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="cheats-") as directory:
        patch.setattr(tempfile, "tempdir", directory)
        sandbox.use(Settings(isolation=kind))
        assert verdict("def f(n):\n    return n * n + 1").is_solved
        yield
        sandbox.use(Settings())
        assert list(Path(directory).iterdir()) == []


@pytest.fixture(autouse=True)
def nothing_is_left_behind(_pool: None) -> Iterator[None]:
    before = processes_left()
    yield
    assert processes_left() <= before, "a process was left, or the server did not survive"
    assert before <= processes_left()
    assert files_left() == []
    assert sockets_left() == []
    assert verdict("def f(n):\n    return n * n + 1").is_solved


def test_the_tests_can_be_passed_and_failed(kind: Isolation) -> None:
    assert verdict("def f(n):\n    return n * n + 1").reward == 1.0
    assert verdict("print(int(input()) ** 2 + 1.5)", PROGRAM).reward == 1.0
    assert verdict("def f(n):\n    return n").feedback == "f(3) returned 3, but 10 was expected."
    assert verdict(knows_visible("return 0")).feedback == WRONG


EARLY_ENDS = {
    "exit at once": ("import sys\nsys.exit(0)", "SystemExit"),
    "leave at once": ("import os\nos._exit(0)", ENDED),
    "exit in a call": ("def f(n):\n    raise SystemExit(0)", "f(3) raised SystemExit"),
    "leave in a call": ("import os\ndef f(n): os._exit(0)", "f(3) " + ENDED),
    "leave in a thread": (
        "import os, threading, time\nthreading.Thread(target=os._exit, args=(0,)).start()\ntime.sleep(9)", ENDED),
    "leave in an exit handler": ("import atexit, os, sys\natexit.register(os._exit, 0)\nsys.exit(0)", "SystemExit"),
    "leave in a hidden call": (knows_visible("os._exit(0)"), "a hidden test " + ENDED),
    "leave after forging the results that are known": (
        FORGE + PASS_VISIBLE + "os._exit(0)", "a hidden test fails"),
    "end by a signal": ("import signal\nsignal.setitimer(signal.ITIMER_REAL, 0.01)\nwhile True: pass", "crashed"),
    "sleep in a hidden call": (knows_visible("__import__('time').sleep(60)"), "a hidden test did not finish"),
    "close the channel of results": (knows_visible("os.close(3)"), "a hidden test"),
    "flood the channel of results": (knows_visible("while True: os.write(3, bytes(4096))"), "a hidden test printed more"),
    "stop in an exception's text": (
        "class Odd(Exception):\n    def __str__(self):\n        import os; os._exit(0)\ndef f(n): raise Odd", ENDED),
    "an exception without a text": (
        "class Odd(BaseException):\n    def __str__(self): raise Odd\ndef f(n): raise Odd", "Odd: (its message cannot be shown)"),
    "an exception that is none": (
        "class Odd(Exception):\n    __class__ = int\n    __traceback__ = None\ndef f(n): raise Odd(10)", "Odd: 10"),
}  # fmt: skip

PATCHES = {
    name: (knows_visible(f"exec({before!r}, globals()); return {returned}"), said)
    for name, before, returned, said in (
        ("repr", "import builtins\nbuiltins.repr = lambda value: '10'\nassert repr(0) == '10'", "0", WRONG),
        (
            "type",
            "import builtins\nkind = type\nbuiltins.type = lambda *a: int\nassert type('') is int",
            "'10'",
            "a hidden test raises an exception",
        ),
        ("len", "import builtins\nbuiltins.len = lambda value: 10\nassert len([]) == 10", "[]", WRONG),
        ("isinstance", "import builtins\nbuiltins.isinstance = lambda *a: True\nassert isinstance(1, str)", "''", WRONG),
        (
            "enumerate",
            "import builtins\nbuiltins.enumerate = lambda *a, **k: iter(())\nassert not list(enumerate('x'))",
            "[0]",
            WRONG,
        ),
        ("str", "import builtins\nbuiltins.str = int\nassert str is int", "0", WRONG),
        ("import", "import builtins\nbuiltins.__import__ = lambda *a: sys\nassert __import__('json') is sys", "0", WRONG),
        ("build class", "import builtins\nbuiltins.__build_class__ = lambda *a: int\nclass C: pass\nassert C is int", "0", WRONG),
        ("open", "import builtins\nbuiltins.open = lambda *a: sys.stdin\nassert open('x') is sys.stdin", "0", WRONG),
        (
            "print",
            "import builtins\nbuiltins.print = lambda *a: os.write(3, b'0 value 10\\n')\nprint('x')",
            "print(10) and 0",
            WRONG,
        ),
        ("marshal", "import marshal\nmarshal.loads = lambda call: (3,)\nassert marshal.loads(b'') == (3,)", "0 and n", WRONG),
        ("modules", "sys.modules['marshal'] = sys.modules['os'] = sys\nimport marshal\nassert marshal is sys", "0", WRONG),
        ("main", "main = sys.modules['__main__']\nmain.literal = lambda *a: '10'\nmain.is_same = lambda *a: True", "0", WRONG),
        ("own comparison", "sys.modules['__main__'].__dict__.update(num_passed=2, reward=1.0, is_solved=True)", "0", WRONG),
        ("trace", "sys.settrace(lambda *a: None)\nsys.setprofile(lambda *a: None)\nassert sys.gettrace()", "0", WRONG),
    )
}

LIES = {
    name: (f"{before}\ndef f(n):\n    return {returned}", said)
    for name, before, returned, said in (
        ("equal to everything", "class Any:\n    __eq__ = __ne__ = __bool__ = lambda *a: True\n    __hash__ = lambda s: 0",
         "Any()", "an object of type Any"),
        ("class of another", "class Any:\n    __class__ = int\n    __int__ = __index__ = lambda s: 10\n"
         "assert isinstance(Any(), int)", "Any()", "an object of type Any"),
        ("text of another", "class Any:\n    __repr__ = __str__ = lambda s: '10'", "Any()", "an object of type Any"),
        ("name of another", "Any = type('int', (), {'__repr__': lambda s: '10'})", "Any()", "an object of type int"),
        *((f"subclass of {base}", f"class Any({base}):\n    __eq__ = lambda *a: True\n    __repr__ = lambda s: '10'\n"
           "    __hash__ = lambda s: 10", "Any()", "an object of type Any")
          for base in ("int", "float", "str", "list", "tuple", "dict", "set", "bytes", "complex", "frozenset")),
        ("a lie in a list", "class Any(int):\n    __repr__ = lambda s: '10'", "[Any(10)]", "an object of type Any"),
        ("a lie as a key", "class Any(int):\n    __eq__ = lambda *a: True\n    __hash__ = lambda s: 10", "{Any(10): 10}",
         "an object of type Any"),
        ("a type's lie", "class Meta(type):\n    __name__ = property(lambda s: 1 / 0)\n    __eq__ = lambda *a: True\n"
         "    __hash__ = lambda s: hash(int)\nclass Any(int, metaclass=Meta): pass", "Any(10)", "raised ZeroDivisionError"),
        ("a bool for a number", "", "True", "returned True"),
        ("a float for a number", "", "n * n + 1.0", "returned 10.0"),
        ("a text for a number", "", "str(n * n + 1)", "returned '10'"),
        ("not a number", "", "float('nan')", "an object of type float"),
        ("infinity", "", "float('inf')", "returned 1e999"),
        ("a generator", "", "(10 for _ in range(9))", "an object of type generator"),
        ("an endless iterator", "", "__import__('itertools').count()", "an object of type count"),
        ("not implemented", "", "NotImplemented", "an object of type NotImplementedType"),
        ("a line of results", "", "'10\\n0 value 10\\n'", "returned '10"),
        ("a list in itself", "x = []\nx.append(x)", "x", "an object of type list"),
        ("a deep list", "x = []\nfor _ in range(10**5): x = [x]", "x", "an object of type list"),
        ("a list that grows", "import threading\nx = [0]\ndef grow():\n    while True: x.append(0)\n"
         "threading.Thread(target=grow, daemon=True).start()", "x", "f(3) "),
        ("a huge number", "", "1 << 10**6", "an object of type int"),
        ("a huge text", "", "'x' * 10**7", "an object of type str"),
        ("a broken text", "", "'\\ud800'", "returned"),
    )
}  # fmt: skip

KNOWING = {
    "a counter of calls": ("results = iter([10, 17])\ndef f(n): return next(results, None) or 0", WRONG),
    "a table": (knows_visible("return {}.get(n, 10)"), WRONG),
    "results printed": ("for n in range(9): print(n * n + 1)\n" + knows_visible("print(10)"), WRONG),
    "results forged before the call": (FORGE + PASS_VISIBLE + "def f(n): return None", WRONG),
    "results forged after the call": (
        FORGE + "def f(n):\n    if n == 4: forge(1, 'value', 17)\n    return n * n + 1 if n == 3 else None", WRONG),
    "results forged by many": (
        FORGE + PASS_VISIBLE + "for index in range(3):\n    for guess in range(500): forge(index, 'value', guess)\n"
        "def f(n): return 0", WRONG),
    "the result's own line rewritten": (
        "import os\nwrite = os.write\n"
        "os.write = lambda fd, line: write(fd, line.replace(b'value None', b'value 10')) and len(line)\n"
        "def f(n): return 17 if n == 4 else None", WRONG),
    "calls rewritten": (FORGE + "import marshal\ncalls[:] = [marshal.dumps((3,))] * len(calls)\ndef f(n): return n * n + 1",
                        "f(4) returned 10, but 17 was expected"),
    "no calls": (FORGE + "calls.clear()\ndef f(n): return n * n + 1", "f(3) " + ENDED),
    "more results than calls": (FORGE + PASS_VISIBLE + "for index in range(3, 99): forge(index, 'value', 1)\ndef f(n): 0", WRONG),
    "loaded, missing and raised": (
        FORGE + "for kind in ('loaded', 'missing', 'error', 'value', 'solved', 'reward'): forge(-1, kind, 1)\ndef f(n): 0",
        "Exception"),
}  # fmt: skip

CHEATS = {**EARLY_ENDS, **{f"patched {name}": cheat for name, cheat in PATCHES.items()}, **LIES, **KNOWING}


@pytest.mark.parametrize("cheat", CHEATS)
def test_a_cheat_earns_nothing(cheat: str) -> None:
    source, said = CHEATS[cheat]
    judged = verdict(source)
    assert judged.reward == 0.0
    assert said in (judged.feedback or "")


@ON_ONE_KIND
@pytest.mark.parametrize(
    "text",
    [
        "", "None", "True", "...", "[]", "b'10'", "10.0", "1e999", "1j", "50 + 0j", "-" * 5000 + "1", "1" + "+1" * 9000,
        "a" + ".a" * 9000, "f" + "()" * 9000, "[" * 9000, "[" * 90 + "]" * 90, "not " * 9000 + "1", "'a' " * 9000, "9" * 9000,
        "0x" + "f" * 40000, "1" * 40000 + ".0", "1" * 4000 + "+1j", "{[]: 1}", "{**{}}", "__import__('os')._exit(0)", "(yield)",
        "f'{1}'", "lambda: 1", "1if 1else 2", "'\\d'", "\\x00", "'\\ud800'", "# coding: utf-7", "10 # 10", "10\r", "10\x0c",
        "\u0661\u0660",
    ],
    ids=lambda text: ascii(text[:12]),
)  # fmt: skip
def test_a_forged_result_is_no_more_than_a_wrong_one(text: str, recwarn: pytest.WarningsRecorder) -> None:
    """Whatever text it is: the judge reads it as a literal, and neither fails at it nor complains of it."""
    forged = f"if is_hidden:\n    forge(-1, 'loaded')\n    forge(0, 'value', {text!r})\ndef f(n): return None"
    judged = verdict(f"{FORGE}{PASS_VISIBLE}{forged}")
    assert judged.reward == 0.0
    assert judged.feedback == WRONG
    assert [str(warning.message) for warning in recwarn] == []


@ON_ONE_KIND
@pytest.mark.parametrize(
    "text", ["1", "()", "('a', 'b', 1e999)", "('a', 'b', 'c')", "(" * 500, "1" * 4000 + "+1j"], ids=lambda text: text[:12]
)
def test_a_forged_exception_is_no_more_than_an_exception(text: str) -> None:
    judged = verdict(f"{FORGE}forge(0, 'error', {text!r})\ndef f(n): return n * n + 1")
    assert judged.reward == 0.0
    assert judged.feedback is not None
    assert "raised Exception" in judged.feedback


@ON_ONE_KIND
def test_a_forged_result_is_not_larger_than_any_result() -> None:
    """Room is made for the result that is expected, and must not become room in the judge's own memory for another."""
    numbers = list(range(25_000))
    tests = FunctionTests(function="f", visible=(Trial(arguments=(3,), expected=numbers),), hidden=())
    task = Task(id="code/long", env="code", messages=QUESTION, payload=tests)
    assert verdict("def f(n): return list(range(25_000))", task).is_solved
    Path("/proc/self/clear_refs").write_text("5")  # so that the peak begins here
    before = peak_kilobytes()
    for kind in ("0 value", "0 error", "-1 error"):
        forged = f"{FORGE}\ntext = b'[' + b'0,' * 480_000 + b']\\n'\nline = nonce.encode() + b' {kind} ' + text\n"
        judged = verdict(f"{forged}while line: line = line[os.write(3, line):]\ndef f(n): return 0", task)
        assert judged.reward == 0.0
        assert peak_kilobytes() - before < 200_000, f"more than 200 MB for {kind}"


@ON_ONE_KIND
@pytest.mark.parametrize(
    ("expected", "forged"),
    [
        (set(range(60_000)), "'{' + ', '.join(str(i * (2**61 - 1)) for i in range(20_000)) + '}'"),
        (dict.fromkeys(range(60_000), 0), "'{' + ': 0, '.join(str(i * (2**61 - 1)) for i in range(18_000)) + ': 0}'"),
        ("x" * 500_000, "'[' + '0,' * 480_000 + ']'"),
        ("x" * 500_000, "'\\n' * 480_000"),
        ("x" * 500_000, "'\\n'.join(f'{nonce} {index} x 0' for index in range(20_000))"),
        ("x" * 500_000, "'0x' + 'f' * 900_000"),
    ],
    ids=["set", "dict", "zeros", "lines", "records", "digits"],
)
def test_a_forged_result_neither_holds_up_nor_bloats_the_judge(expected: object, forged: str) -> None:
    """It is read outside of the sandbox: 0.4 MB of integers with one hash once took 16 seconds, and zeros a gigabyte."""
    tests = FunctionTests(function="f", visible=(Trial(arguments=(3,), expected=expected),), hidden=())
    task = Task(id="code/forged", env="code", messages=QUESTION, payload=tests)
    Path("/proc/self/clear_refs").write_text("5")  # so that the peak begins here
    before, started = peak_kilobytes(), time.process_time()
    source = f"{FORGE}\nline = nonce.encode() + b' 0 value ' + ({forged}).encode() + b'\\n'\n"
    judged = verdict(f"{source}while line: line = line[os.write(3, line):]\ndef f(n): return 0", task)
    assert judged.reward == 0.0
    assert judged.feedback is not None
    assert time.process_time() - started < 5.0
    assert peak_kilobytes() - before < 100_000


@ON_ONE_KIND
@pytest.mark.parametrize("printed", ["'\\n' * 480_000 + '1'", "'1 ' * 240_000"], ids=["lines", "words"])
def test_what_a_program_prints_neither_holds_up_nor_bloats_the_judge(printed: str) -> None:
    tests = ProgramTests(visible=(ProgramTrial(stdin="3\n", expected="1.5 " * 40_000 + "2"),), hidden=())
    task = Task(id="code/flooded", env="code", messages=QUESTION, payload=tests)
    Path("/proc/self/clear_refs").write_text("5")
    before, started = peak_kilobytes(), time.process_time()
    assert verdict(f"print({printed})", task).reward == 0.0
    assert time.process_time() - started < 5.0
    assert peak_kilobytes() - before < 30_000


def peak_kilobytes() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


SPIES = {
    "standard input": "(sys.stdin.seek(0), sys.stdin.buffer.read())[1]",
    "frames": "[[str(v) for v in f.f_locals.values()] for f in frames()]",
    "frames of a traceback": "[str(f.f_locals) for f in caught()]",
    "inspection": "[str(f.frame.f_locals) for f in __import__('inspect').stack()]",
    "objects": "[o for o in __import__('gc').get_objects() if type(o) in (tuple, list, dict) and n in o]",
    "modules": "sorted(sys.modules)",
    "arguments": "sys.argv + sys.orig_argv",
    "environment": "dict(os.environ)",
    "directory": "[os.listdir('.'), os.listxattr('.'), os.stat('.').st_mtime_ns]",
}


@pytest.mark.parametrize("spy", SPIES)
def test_a_spy_sees_no_hidden_test_where_it_may_speak(spy: str) -> None:
    """It searches all that it saw, of which feedback would show little, for numbers that its source has digit by digit."""
    source = f"""
import os, sys
def frames():
    frame = sys._getframe()
    while frame: yield frame; frame = frame.f_back
def caught():
    try: raise ValueError
    except ValueError as error: frame = error.__traceback__.tb_frame
    while frame: yield frame; frame = frame.f_back
def f(n):
    seen = ascii({SPIES[spy]})
    hidden = ["".join(digits) for digits in {[list(number) for number in HIDDEN]}]
    raise ValueError(f"{{len(seen) > 1}} {{len([number for number in hidden if number in seen])}}")
"""
    judged = verdict(source)
    assert judged.reward == 0.0
    assert judged.feedback is not None
    assert "ValueError: True 0" in judged.feedback


@pytest.mark.parametrize(
    ("leave", "find"),
    [
        ("os.setxattr('.', 'user.note', str(n).encode())", "os.getxattr('.', 'user.note').decode()"),
        ("os.utime('.', (n, n))", "int(os.stat('.').st_mtime)"),
        ("os.chmod('.', 0o700 + n % 64)", "'mode %o' % (os.stat('.').st_mode % 512)"),
        ("open('note', 'w').write(str(n))", "open('note').read()"),
        ("os.environ.update(note=str(n))", "os.environ['note']"),
        ("__import__('builtins').__dict__.update(note=n)", "note"),
        ("os.write(os.memfd_create('note'), b'x')", "os.listdir('/proc/self/fd')"),
        ("open('/dev/shm/note', 'w').write(str(n))", "open('/dev/shm/note').read()"),
    ],
    ids=["attribute", "time", "mode", "file", "environment", "builtins", "memory", "shared memory"],
)
def test_an_answer_leaves_no_word_of_a_hidden_test_to_the_next(leave: str, find: str) -> None:
    """Feedback on a visible test would tell the student what the answer before it was asked in secret."""
    first = verdict(knows_visible(f"{leave}; return 0"))
    assert first.reward == 0.0
    found = verdict(f"import os\ndef f(n):\n    raise ValueError({find})").feedback  # fails if a hidden number stands in it
    assert found is not None
    assert "mode" not in found or "mode 700" in found or "mode 777" in found


PROGRAMS = {
    "results by heart": ("n = input()\nprint({'3': 10.5, '4': 17.5}.get(n, 10.5))", NO_OUTPUT_RIGHT),
    "every result": ("for n in range(9): print(n * n + 1.5)", "was expected"),
    "no output and a good end": ("import sys\nsys.exit(0)", "printed nothing"),
    "leave at once": ("import os\nos._exit(0)", "printed nothing"),
    "a right output and a bad end": ("import sys\nprint(int(input()) ** 2 + 1.5)\nsys.exit(1)", "SystemExit"),
    "a right output and a crash": ("print(int(input()) ** 2 + 1.5, flush=True)\nimport ctypes; ctypes.string_at(0)", "crashed"),
    "a right output and no end": ("import time\nprint(int(input()) ** 2 + 1.5, flush=True)\ntime.sleep(9)", "did not finish"),
    "a bad exit handler": (
        "import atexit\nprint(int(input()) ** 2 + 1.5)\n@atexit.register\ndef late(): print('and more')", "and more"),
    "a bad thread": (
        "import threading\nprint(int(input()) ** 2 + 1.5)\nthreading.Timer(0.1, print, ('and more',)).start()", "and more"),
    "an exception of its own": (
        "class Odd(BaseException):\n    __class__ = SystemExit\n    code = 0\nprint(int(input()) ** 2 + 1.5)\nraise Odd", "Odd"),
    "an exit that lies": (
        "class Zero(int):\n    __eq__ = lambda *a: True\n    __ne__ = lambda *a: True\nprint(0)\nraise SystemExit(Zero(3))",
        "SystemExit"),
    "results forged": ("import os\nfor i in range(9): os.write(3, b'0 value 10.5\\n')", "printed nothing"),
    "results on standard error": ("import sys\nprint(int(input()) ** 2 + 1.5, file=sys.stderr)", "printed nothing"),
    "print replaced": ("import builtins\nbuiltins.print = lambda *a: None\nprint(int(input()) ** 2 + 1.5)", "printed nothing"),
    **{
        f"{said} for a number": (
            f"n = int(input())\nprint({{3: '10.5', 4: '17.5'}}.get(n, {said!r}))", NO_OUTPUT_RIGHT)
        for said in ("nan", "inf", "1e999", "-inf", "", ".", "e", "True", "0x10", "1_0.5", "\u0661.5", "*", ".*", "%f", "\0")
    },
}  # fmt: skip


@ON_ONE_KIND
@pytest.mark.parametrize("cheat", PROGRAMS, ids=ascii)
def test_a_program_that_cheats_earns_nothing(cheat: str) -> None:
    source, said = PROGRAMS[cheat]
    judged = verdict(source, PROGRAM)
    assert judged.reward == 0.0
    assert said in (judged.feedback or "")


SECRET = "rabbit-8831"
"""What the question's own test expects, and what no process of an answer may hold."""
CHECKED = Task(
    id="code/attacked-check",
    env="code",
    messages=QUESTION,
    payload=FunctionTests(
        function="f",
        visible=(Trial(arguments=(3,), expected=10),),
        hidden=(),
        check=Check(
            source=f"for n in range(20, 40):\n    assert candidate(n) == n * n + 1\nassert str(candidate(-1)) != '{SECRET}'\n"
            "assert candidate(candidate(2)) == 26\n",
            names=("candidate", "f"),
        ),
    ),
)


def knows_one(statement: str, before: str = "") -> str:
    """An answer that passes the visible call, and does something else on those of the question's own test."""
    return f"import os, sys\n{before}\ndef f(n):\n    if n == 3: return 10\n    {statement}\n"


ON_CHECKS = {
    "the right values but one": knows_one("return n * n + 1 if n != 37 else 0"),
    "equal to everything": knows_one("return type('Any', (), {'__eq__': lambda *a: True, '__str__': lambda s: ''})()"),
    "an int that lies": knows_one("return type('Any', (int,), {'__eq__': lambda *a: True})(5)"),
    "nothing": knows_one("return None"),
    "an exception that a test may catch": knows_one("raise AssertionError"),
    "an exception of its own": knows_one("raise type('__failed__', (Exception,), {})"),
    "leave": knows_one("os._exit(0)"),
    "exit": knows_one("sys.exit(0)"),
    "a text of the driver": knows_one("return 'passed None'"),
    "a forged end": knows_one("os.write(3, b'0 passed None\\n')"),
    "asserts switched off": knows_one("import builtins; builtins.AssertionError = KeyError; return 0"),
    "results forged": FORGE
    + PASS_VISIBLE
    + "if is_hidden:\n    forge(-1, 'loaded')\n    for i in range(99): forge(i, 'value', 26)\n"
    "    forge(-1, 'passed')\ndef f(n): return 10",
    "results without end": knows_one("return 'x' * 10**7"),
    "results that take long to compare": knows_one("return [[[[0] * 9] * 9] * 9] * 9"),
    "a huge number": knows_one("return 10 ** 3000"),
    "a number too long to be passed on": knows_one("return n * n + 1 if n > 5 else 10 ** 4500"),
    "keys that collide and are passed on": knows_one("return n * n + 1 if n > 5 else {i * (2**61 - 1) for i in range(180)}"),
}


@ON_ONE_KIND
@pytest.mark.parametrize("cheat", ON_CHECKS)
def test_a_questions_own_test_cannot_be_passed_but_by_the_right_values(cheat: str) -> None:
    """It never shares a process with an answer, so there is nothing for an answer to patch, to forge or to leave."""
    assert verdict("def f(n):\n    return n * n + 1", CHECKED).is_solved
    judged = verdict(ON_CHECKS[cheat], CHECKED, most_s=6 * LIMIT_S + 3)
    assert judged.reward == 0.0
    assert judged.feedback is not None
    assert judged.feedback.startswith("All visible tests pass, but a hidden test ")
    assert SECRET not in judged.feedback


@ON_ONE_KIND
@pytest.mark.parametrize("spy", SPIES)
def test_a_spy_sees_nothing_of_what_a_questions_own_test_expects(spy: str) -> None:
    """The test is the visible one here, so all that the answer saw may be told."""
    check = CHECKED.payload.check if isinstance(CHECKED.payload, FunctionTests) else None
    task = Task(
        id="code/spied-check",
        env="code",
        messages=QUESTION,
        payload=FunctionTests(function="f", visible=(), hidden=(), check=check),
    )
    assert verdict("def f(n):\n    return n * n + 1", task).is_solved
    source = f"""
import os, sys
def frames():
    frame = sys._getframe()
    while frame: yield frame; frame = frame.f_back
def caught():
    try: raise ValueError
    except ValueError as error: frame = error.__traceback__.tb_frame
    while frame: yield frame; frame = frame.f_back
def f(n):
    seen = ascii({SPIES[spy]})
    secret = "".join({list(SECRET)!r})
    raise ValueError(f"{{len(seen) > 1}} {{secret in seen}} {{'assert' + ' ' + 'candidate' in seen}}")
"""
    judged = verdict(source, task)
    assert judged.reward == 0.0
    assert "ValueError: True False False" in (judged.feedback or "")


@ON_ONE_KIND
@pytest.mark.parametrize("lie", [name for name in LIES if name.startswith("subclass of") or "lie" in name or "class of" in name])
def test_what_lies_of_itself_is_what_it_holds_where_files_are_compared_as_python_does(lie: str) -> None:
    """A subclass may stand for its base there, by what it holds and never by what it says."""
    assert isinstance(FUNCTION.payload, FunctionTests)
    trials = tuple(
        Trial(arguments=trial.arguments, expected=trial.expected, equality=Equality.python) for trial in FUNCTION.payload.visible
    )
    tests = FunctionTests(function="f", visible=trials, hidden=FUNCTION.payload.hidden)
    assert verdict(LIES[lie][0], Task(id="code/lied-to", env="code", messages=QUESTION, payload=tests)).reward == 0.0


@ON_ONE_KIND
@pytest.mark.parametrize("view", ["bool", "set", "len", "sorted", "list", "tuple"])
def test_a_patched_view_is_worth_no_more_than_the_value_that_it_returns(view: str) -> None:
    trial = Trial(arguments=(7919,), expected=[31, 7] if view in ("list", "sorted") else 31, views=(view,))
    visible = Trial(arguments=(3,), expected=10)
    task = Task(
        id="code/viewed", env="code", messages=QUESTION, payload=FunctionTests(function="f", visible=(visible,), hidden=(trial,))
    )
    assert verdict(knows_one("return [1]", f"import builtins\nbuiltins.{view} = lambda *a: 10"), task).reward == 0.0
