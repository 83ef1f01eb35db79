"""Properties of the environment ``reasoning_gym``: every dataset, its scores, and what answers that are programs can do."""

from __future__ import annotations

import os
import pickle
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import version
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path

import pytest

from sdpo.envs.base import Environment, Task

if find_spec("reasoning_gym") is None:
    pytest.skip("the package reasoning-gym is not installed", allow_module_level=True)

from sdpo.envs.adapters.reasoning_gym import ReasoningGym
from sdpo.envs.adapters.reasoning_gym.known import EASILY_FOOLED, NEEDING, REFUSED, VERSION, WITHOUT_REFERENCE
from sdpo.envs.adapters.reasoning_gym.plain import EXECUTING, MAX_PLAIN_CHARS, refusal
from sdpo.envs.adapters.reasoning_gym.scoring import PACKAGE, WORKER, Puzzle, Score, Unscored, dataset_names, score, worker
from sdpo.envs.sandbox.helpers import Helper, Limits

DATASETS = [name for name in dataset_names() if name not in REFUSED]
SLOW = {"knight_swap", "futoshiki", "quantum_lock", "sudoku", "arc_agi", "polynomial_equations"}
"""Their puzzles take a second and more to make."""
TIERED = [
    pytest.param(
        name,
        marks=()
        if name in {*EXECUTING, *EASILY_FOOLED, *WITHOUT_REFERENCE, *NEEDING} or (place % 3 == 0 and name not in SLOW)
        else pytest.mark.full,
    )
    for place, name in enumerate(DATASETS)
]
"""Without ``full``: those that need something of their own, and a third of the others, which all take the same way."""
OPTIONS: dict[str, object] = {"seed": 0, "size": 10}
QUICK = Limits(wall_s=2.0, memory_bytes=1 << 29)

ATTACKS = (
    "__import__('os').system('touch {marker}')",
    "[__import__('os').system('touch {marker}')]",
    "[*map(__import__('os').system, ['touch {marker}'])]",
    "(lambda: open('{marker}', 'w').close())()",
    "[x for x in [open('{marker}', 'w')]]",
    "[].__class__.__base__.__subclasses__()",
    "().__class__.__mro__[1].__subclasses__()[0]",
    'eval(\'open("{marker}", "w")\')',
    'exec(\'open("{marker}", "w")\')',
    "sin.__globals__['__builtins__']['open']('{marker}', 'w')",
    "sin(open('{marker}', 'w'))",
    'f\'{{open("{marker}", "w")}}\'',
    '[f\'{{open("{marker}", "w")}}\']',
    "(a := open('{marker}', 'w'))",
    "open('{marker}', 'w') if 1 else 2",
    "1 if open('{marker}', 'w') else 2",
    "Symbol('x', **{{}})",
    'S(\'open("{marker}", "w")\')',
    'N(\'open("{marker}", "w")\')',
    "\ufeffopen('{marker}', 'w')",
    "ｏｐｅｎ('{marker}', 'w')",
    "1;open('{marker}', 'w')",
    "1\nopen('{marker}', 'w')",
    "1 #\\\nopen('{marker}', 'w')",
)
CHEATS = {
    "binary_matrix": ("oracle_answer", "[[c for c in r.split()] for r in oracle_answer.split(chr(10))]", "entry['answer']"),
    "countdown": ("entry", "answer", "float.fromhex('0x1')"),
    "intermediate_integration": ("entry['answer']", "Integral(1, x)", "metadata"),
    "n_queens": ("valid_solutions", "entry['metadata']['solutions'][0]", "[*entry['metadata']['solutions'][0]]"),
    "polynomial_multiplication": ("entry['answer']", "parse_expr(entry['answer'])", "target_poly"),
    "puzzle24": ("24", "12+12", "lambda: 24", "len('6 6 6 6')"),
    "simple_integration": ("entry['answer']", "Integral(1, x)", "integrand"),
    "spiral_matrix": ("oracle_answer", "oracle_answer.split()", "[*oracle_answer.split()]"),
    "string_insertion": ("oracle_answer", "[*oracle_answer]", "entry['answer']"),
}
"""Per dataset that executes answers: how to read the right one out of its scorer's own variables."""


@pytest.fixture(scope="module")
def another_worker() -> Iterator[Helper]:
    """Another process, as another verifier would have."""
    other = Helper(WORKER, PACKAGE)
    yield other
    other.close()


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """A file that an attack would like to write, where every user may."""
    tmp_path.chmod(0o777)
    return tmp_path / "was-here"


SIZE = 10
SIZES = {"knight_swap": 4, "futoshiki": 5, "quantum_lock": 5, "complex_arithmetic": 20}
"""Of datasets that take long to make, and of one whose first ten questions all fall into one split."""


def environment(dataset: str, size: int | None = None, **options: object) -> ReasoningGym:
    size = size or SIZES.get(dataset, SIZE)
    return ReasoningGym(dataset=dataset, size=size, heldout_share=0.5, **options)  # type: ignore[arg-type]


def first_task(dataset: str) -> Task:
    return environment(dataset).tasks("train", 0)[0]


def puzzle_of(task: Task) -> Puzzle:
    assert isinstance(task.payload, Puzzle)
    return task.payload


def tagged(answer: str) -> str:
    return f"Let me think.\n<answer>{answer}</answer>"


def test_the_version_is_the_one_that_was_looked_through() -> None:
    """Which scorers execute answers, and what is wrong with which dataset, was found by reading that version."""
    assert version("reasoning-gym") == VERSION
    assert len(DATASETS) + len(REFUSED) == 106


@pytest.mark.parametrize("dataset", TIERED)
def test_every_dataset_makes_the_same_tasks_in_every_process_and_marks_its_own_answer_right(
    dataset: str, another_worker: Helper
) -> None:
    if dataset in NEEDING and find_spec(NEEDING[dataset]) is None:
        with pytest.raises(ValueError, match=f"needs the package {NEEDING[dataset]}"):
            environment(dataset)
        return
    warned: AbstractContextManager[object] = (
        pytest.warns(UserWarning, match="easily fooled") if dataset in EASILY_FOOLED else nullcontext()
    )
    with warned:
        env = environment(dataset)
    train, heldout = env.tasks("train", 0), env.tasks("heldout", 0)
    assert train
    assert heldout
    assert {task.id for task in train}.isdisjoint(task.id for task in heldout)
    assert {task.messages for task in train}.isdisjoint(task.messages for task in heldout)
    for split, tasks in (("train", train), ("heldout", heldout)):
        options = {"seed": 0, "size": SIZES.get(dataset, SIZE)}
        _, made = another_worker.ask(("puzzles", dataset, options, split, 0.5))
        assert isinstance(made, list)
        asked = [(task.messages[-1].content, puzzle_of(task).reference) for task in tasks]
        made_there = {(question, answer) for question, answer, _ in made}
        assert set(asked) <= made_there
        assert dataset == "intermediate_integration" or len(asked) == len(made_there)
    for task in (*train[:3], *heldout[:3]):
        reference = puzzle_of(task).reference
        assert (reference is None) == (dataset in WITHOUT_REFERENCE)
        if reference is not None:
            verdict = env.verify(task, tagged(reference))
            assert verdict.is_solved, (task, verdict)
            assert verdict.feedback is None
        wrong = env.verify(task, tagged("surely not this"))
        assert not wrong.is_solved
        assert wrong.feedback is not None
        assert len(wrong.feedback) < 300
        assert reference is None or len(reference) < 4 or reference not in wrong.feedback


def test_a_different_seed_makes_other_puzzles_and_the_tasks_seed_only_another_order() -> None:
    first, second = environment("basic_arithmetic"), environment("basic_arithmetic", seed=1)
    assert {task.id for task in first.tasks("train", 0)} != {task.id for task in second.tasks("train", 0)}
    one, other = (environment("basic_arithmetic", size=40).tasks("train", seed) for seed in (0, 1))
    assert [task.id for task in one] != [task.id for task in other]
    assert sorted(task.id for task in one) == sorted(task.id for task in other)


def test_options_reach_the_datasets_config() -> None:
    tasks = environment("letter_counting", options={"min_words": 3, "max_words": 3}).tasks("train", 0)
    assert all(len(task.messages[-1].content.split(": ", 1)[1].split('"')[1].split()) == 3 for task in tasks)


def test_a_partial_score_is_the_reward_and_a_threshold_makes_it_all_or_nothing() -> None:
    env = environment("countdown")
    task = env.tasks("train", 0)[0]
    assert env.verify(task, tagged("1 + 1")).reward == 0.05
    assert environment("countdown", threshold=0.05).verify(task, tagged("1 + 1")).reward == 1.0
    assert environment("countdown", threshold=0.06).verify(task, tagged("1 + 1")).reward == 0.0
    assert environment("countdown", threshold=0.06).verify(task, tagged("1 + 1")).metrics["score"] == 0.05


def test_a_score_just_short_of_full_never_reads_as_full() -> None:
    env = environment("basic_arithmetic")
    task = env.tasks("train", 0)[0]
    verdict = env.verify(task, tagged(f"{puzzle_of(task).reference} "))
    assert verdict.is_solved
    padded = env.verify(task, tagged(f"{puzzle_of(task).reference} apples"))
    assert 0.1 < padded.reward < 1
    assert padded.feedback is not None
    assert "scored 1 of 1" not in padded.feedback


@pytest.mark.parametrize(
    ("completion", "complaint"),
    [
        ("It is 4.", "no answer to read"),
        ("<answer>4", "never closed"),
        ("4</answer>", "never opened"),
        ("<answer> </answer>", "empty"),
        ("", "no answer to read"),
        (tagged("9" * 30_000), "too long"),
    ],
)
def test_what_is_no_answer_gets_nothing_and_is_told_why(completion: str, complaint: str) -> None:
    env = environment("basic_arithmetic")
    verdict = env.verify(env.tasks("train", 0)[0], completion)
    assert verdict.reward == 0.0
    assert verdict.feedback is not None
    assert complaint in verdict.feedback


def test_without_tags_the_whole_completion_is_the_answer() -> None:
    env = environment("basic_arithmetic", tags=False)
    task = env.tasks("train", 0)[0]
    assert len(task.messages) == 1
    assert env.verify(task, f" {puzzle_of(task).reference}\n").is_solved
    assert not env.verify(task, tagged(str(puzzle_of(task).reference))).is_solved


@pytest.mark.filterwarnings("ignore:reasoning-gym's dataset")
@pytest.mark.parametrize("dataset", EXECUTING)
def test_an_answer_that_is_a_program_gets_nothing_and_does_nothing(dataset: str, marker: Path) -> None:
    env = environment(dataset)
    task = env.tasks("train", 0)[0]
    baseline = env.verify(task, tagged("0")).reward
    for attack in (*ATTACKS, *CHEATS[dataset]):
        verdict = env.verify(task, tagged(attack.format(marker=marker) if "{marker}" in attack else attack))
        assert verdict.reward <= baseline, attack
        assert verdict.feedback is not None
        assert not marker.exists(), attack


@pytest.mark.filterwarnings("ignore:reasoning-gym's dataset")
@pytest.mark.parametrize("dataset", EXECUTING)
def test_the_right_answers_of_the_datasets_that_execute_them_are_plain(dataset: str) -> None:
    env = environment(dataset, size=30)
    for task in (*env.tasks("train", 0), *env.tasks("heldout", 0)):
        reference = puzzle_of(task).reference
        assert reference is not None
        assert refusal(dataset, reference) is None, reference


@pytest.mark.parametrize("answer", ["[[0, 1], [1, 0]]", "((0, 1), (1, 0))", "['A', 'B']", "[-1.5, 2]", "[]"])
def test_a_plain_list_may_be_scored(answer: str) -> None:
    assert refusal("binary_matrix", answer) is None


@pytest.mark.parametrize("answer", ["(1 + 2)*3 - -4/5", "1+1+1+1", "(((7)))"])
def test_plain_arithmetic_may_be_scored(answer: str) -> None:
    assert refusal("puzzle24", answer) is None


@pytest.mark.parametrize(
    "answer", ["x**2/2 + C", "-3*exp(2*x)*sin(x) + log(x) + C", "E**x + pi*sqrt(x) + C", "x**(1/2)", "2.5*x"]
)
def test_plain_algebra_may_be_scored(answer: str) -> None:
    assert refusal("simple_integration", answer) is None


@pytest.mark.parametrize(
    "answer", ["9**9**9", "x**99999", "2^3", "2x", "x!", "factorial(9)", "S(1)", "I", "x.y", "sin", "sin(x, y)", "1,2"]
)
def test_algebra_that_is_not_plain_is_refused(answer: str) -> None:
    assert refusal("simple_integration", answer) is not None


@pytest.mark.parametrize("dataset", EXECUTING)
@pytest.mark.parametrize(
    "unit",
    ["(", "[", "-", "1+", "1**", "1 if ", "lambda:", "not ", "[[1],", "x,", "\0", "𝟙", "\ud800", "a.", '"', "f'{", "\\\n", "9"],
)
def test_a_long_or_deep_text_is_judged_at_once(dataset: str, unit: str) -> None:
    started = time.monotonic()
    for length in (1, 190, MAX_PLAIN_CHARS // len(unit), 1_000_000 // len(unit)):
        refusal(dataset, unit * length)
        refusal(dataset, unit * length + "1")
    assert time.monotonic() - started < 2


@pytest.mark.parametrize(
    "dataset", ["basic_arithmetic", "codeio", "game_of_life", "propositional_logic", "sokoban", "word_ladder"]
)
def test_no_completion_makes_verify_raise_or_wait(dataset: str) -> None:
    env = environment(dataset, timeout_s=3.0)
    task = env.tasks("train", 0)[0]
    hostile = (
        "\0",
        "\ud800",
        "[" * 10_000,
        '{"a":' * 4_000,
        "9" * 19_000,
        "∀x∃y\u202e",
        "(((",
        "nan",
        "-inf",
        "%s%n{}{0.__class__}",
        "null",
    )
    started = time.monotonic()
    for answer in hostile:
        verdict = env.verify(task, tagged(answer))
        assert verdict.reward < 1
        assert verdict.feedback
    assert env.verify(task, "<answer>" * 125_000).reward == 0
    assert time.monotonic() - started < 20


class TestWalls:
    """If the check for plain answers had a hole: the scorer of a list is given programs, past that check."""

    dataset = "spiral_matrix"

    def outcome(self, program: str, limits: Limits = QUICK) -> Score | Unscored:
        return score(puzzle_of(first_task(self.dataset)), OPTIONS, program, limits)

    def test_it_does_run_there(self) -> None:
        """Else the tests below would prove nothing."""
        assert self.outcome("exec('import time; time.sleep(60)')") == Unscored(reason="it did not end within 2 seconds")
        assert self.outcome("oracle_answer.split()") == Score(value=0.1)

    def test_it_writes_no_file(self, marker: Path) -> None:
        marker.write_text("untouched")
        other = marker.with_name("other")
        for program in (
            f"open({str(other)!r}, 'w').write('x')",
            f"open({str(marker)!r}, 'w').write('x')",
            f"open({str(marker)!r}, 'a').write('x')",
            f"__import__('os').unlink({str(marker)!r})",
            f"__import__('os').rename({str(marker)!r}, {str(other)!r})",
            f"__import__('os').mkdir({str(other)!r})",
            f"__import__('os').symlink('/', {str(other)!r})",
        ):
            self.outcome(program)
            assert marker.read_text() == "untouched", program
            assert not other.exists(), program

    def test_it_starts_no_process_and_stops_none(self, marker: Path) -> None:
        pid = worker()._process.pid
        for program in (
            f"__import__('os').system('touch {marker}')",
            f"__import__('subprocess').run(['touch', {str(marker)!r}])",
            f"__import__('os').fork() or open({str(marker)!r}, 'w')",
            "__import__('os').kill(__import__('os').getppid(), 9)",
            f"__import__('os').kill({os.getpid()}, 9)",
        ):
            self.outcome(program)
            assert not marker.exists()
        assert worker()._process.pid == pid
        assert worker()._process.poll() is None

    def test_it_reaches_no_network(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(0.5)
            port = server.getsockname()[1]
            self.outcome(f"__import__('socket').create_connection(('127.0.0.1', {port}))")
            with pytest.raises(TimeoutError):
                server.accept()

    def test_it_stops_at_its_limits(self) -> None:
        started = time.monotonic()
        assert isinstance(self.outcome("all(True for _ in iter(int, 1))"), Unscored)  # for ever, in no memory
        assert self.outcome("[0] * 10**9") == Score(value=0.0)  # a MemoryError, which that scorer catches
        assert isinstance(self.outcome("__import__('os')._exit(0)"), Unscored)
        assert isinstance(self.outcome("__import__('ctypes').string_at(0)"), Unscored)
        assert time.monotonic() - started < 10

    def test_its_environment_is_empty_of_the_trainers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SECRET_TOKEN", "hush")
        fresh = Helper(WORKER, PACKAGE)
        try:
            entry = puzzle_of(first_task(self.dataset)).entry
            program = "oracle_answer.split() if 'SECRET_TOKEN' in __import__('os').environ else []"
            reply = fresh.ask(("score", self.dataset, OPTIONS, entry, program, 5.0, 1 << 29))
        finally:
            fresh.close()
        assert reply == ("score", 0.0)


def test_a_worker_that_died_is_replaced() -> None:
    env = environment("basic_arithmetic")
    task = env.tasks("train", 0)[0]
    worker()._process.kill()
    worker()._process.wait()
    with pytest.raises(RuntimeError, match=r"has died|ended with"):
        env.verify(task, tagged("1"))
    assert env.verify(task, tagged(str(puzzle_of(task).reference))).is_solved


def test_threads_get_the_verdicts_of_their_own_answers() -> None:
    env = environment("basic_arithmetic", size=24)
    tasks = env.tasks("train", 0)
    with ThreadPoolExecutor(4) as threads:
        verdicts = list(threads.map(lambda task: env.verify(task, tagged(str(puzzle_of(task).reference))), tasks))
    assert all(verdict.is_solved for verdict in verdicts)


def verdicts_of_right_answers(tasks: list[Task]) -> list[float]:
    env = environment("basic_arithmetic", size=24)
    return [env.verify(task, tagged(str(puzzle_of(task).reference))).reward for task in tasks]


def test_a_forked_process_does_not_talk_over_its_parents_worker() -> None:
    tasks = list(environment("basic_arithmetic", size=24).tasks("train", 0))
    with get_context("fork").Pool(2) as pool:
        there = pool.map_async(verdicts_of_right_answers, [tasks, tasks])
        here = verdicts_of_right_answers(tasks)
        assert [here, here] == there.get(timeout=60)
    assert set(here) == {1.0}


def test_tasks_survive_pickling_and_it_is_an_environment() -> None:
    env = environment("basic_arithmetic")
    assert isinstance(env, Environment)
    tasks = env.tasks("train", 0)
    assert pickle.loads(pickle.dumps(tasks)) == tasks


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"dataset": "basic_arithmetik"}, r"got 'basic_arithmetik' \(did you mean 'basic_arithmetic'\?\)"),
        ({"dataset": "composite"}, "'composite' is not served: it mixes"),
        ({"dataset": "countdown", "options": {"seed": 1}}, "may not hold 'seed'"),
        ({"dataset": "countdown", "options": {"x": {1, 2}}}, "texts, numbers"),
        ({"dataset": "countdown", "size": 1}, "size must lie in"),
        ({"dataset": "countdown", "heldout_share": 1.0}, "heldout_share must lie between"),
        ({"dataset": "countdown", "threshold": 0.0}, "threshold must lie in"),
        ({"dataset": "countdown", "timeout_s": 0.0}, "timeout_s must lie in"),
        ({"dataset": "countdown", "memory_bytes": 1}, "memory_bytes must be at least"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        ReasoningGym(**options)  # type: ignore[arg-type]


def test_an_option_that_the_dataset_does_not_take_is_refused_with_its_own_words() -> None:
    with pytest.raises(ValueError, match="no_such_option"):
        environment("countdown", options={"no_such_option": 1}).tasks("train", 0)
    with pytest.raises(ValueError, match="split must be one of train, heldout"):
        environment("countdown").tasks("test", 0)
    with pytest.raises(ValueError, match="no puzzle of"):
        ReasoningGym(dataset="countdown", size=2, heldout_share=1e-9).tasks("heldout", 0)
