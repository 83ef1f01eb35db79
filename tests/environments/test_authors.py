"""What happens to a new author's environment before it trains: tasks without an end, files beside it, answers of one's own."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from sdpo.cli import main
from sdpo.config import EnvConfig
from sdpo.config.compose import train_config
from sdpo.environments import check
from sdpo.environments.leaks import leak_in
from sdpo.environments.task_rules import SEEDS, Listing, finds_between_splits, tasks_of
from sdpo.envs.base import Message, Role, Task
from sdpo.envs.listing import Endless, Limit, listed, within
from sdpo.envs.registry import make
from sdpo.errors import UserError
from sdpo.preflight import checks
from tests.letters import Letters
from tests.tiny import write_tiny_model

Run = Callable[..., tuple[int, str]]
NEVER = """
import itertools, time
from tests.letters import Letters

class Counted(Letters):
    def tasks(self, split, seed):
        return [number for number in itertools.count()]

class Waiting(Letters):
    def tasks(self, split, seed):
        time.sleep(3600)

class Stubborn(Letters):
    def tasks(self, split, seed):
        while True:
            try:
                time.sleep(0.01)
            except:
                pass

class Deaf(Letters):
    def tasks(self, split, seed):
        return sum(itertools.repeat(1))
"""


@pytest.fixture
def never(tmp_path: Path) -> Path:
    file = tmp_path / "never.py"
    file.write_text(NEVER)
    return file


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """The exit code and what was printed."""
    monkeypatch.setenv("COLUMNS", "200")

    def command(*words: str) -> tuple[int, str]:
        code = main(words)
        shown = capfd.readouterr()
        assert "Traceback" not in shown.err
        return code, " ".join((shown.out + shown.err).split())

    return command


@pytest.mark.parametrize("command", ["show", "sample", "check"])
def test_tasks_that_never_end_are_told_at_once_with_the_place_and_what_to_do(command: str, run: Run, never: Path) -> None:
    """``show`` hung without a word, and ``check`` took 300 s and then gave advice about answers."""
    code, shown = run("envs", command, f"{never}:Counted", "tasks_limit_s=0.5")
    assert code == 2
    assert "tasks('train', 0) of environment 'letters' must return; after 0.5 s of computing it had not" in shown
    assert "and was at line 7 of never.py" in shown
    assert "tasks_limit_s=60" in shown


def test_so_are_tasks_that_wait_for_ever(run: Run, never: Path) -> None:
    code, shown = run("envs", "show", f"{never}:Waiting", "tasks_limit_s=0.5")
    assert code == 2
    assert "after 0.5 s of waiting it had not, and was at line 11 of never.py" in shown


def test_and_a_run_is_refused_before_it_starts(run: Run, never: Path, tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "model")
    code, shown = run(
        "train", "--dry-run", f"model.path={model}", "model.name=tiny", "env=custom", f"env.name={never}:Counted",
        "env.tasks_limit_s=0.5", f"runs_dir={tmp_path / 'runs'}",
    )  # fmt: skip
    assert code == 2
    assert "after 0.5 s of computing it had not" in shown
    assert "env.tasks_limit_s=60" in shown


def test_a_run_may_wait_longer_than_it_may_compute() -> None:
    """A disk that stalls for a moment must not end a run that is started again."""

    class Remote(Letters):
        def tasks(self, split: str, seed: int) -> Sequence[Task]:
            time.sleep(1.0)
            return super().tasks(split, seed)

    config = EnvConfig(name="letters", tasks_limit_s=0.25)
    assert len(checks.tasks_of(Remote(), config, "train", 0)) == 16
    with pytest.raises(ValueError, match="tasks_limit_s must be positive"):
        EnvConfig(name="letters", tasks_limit_s=0.0)


@pytest.mark.full
@pytest.mark.parametrize(("name", "code"), [("Stubborn", 2), ("Deaf", 1)])
def test_what_cannot_be_interrupted_ends_the_process(name: str, code: int, never: Path) -> None:
    """One catches all that is raised in it, the other never lets a signal through."""
    program = [sys.executable, "-m", "sdpo.cli", "envs", "show", f"{never}:{name}", "tasks_limit_s=0.5"]
    done = subprocess.run(program, capture_output=True, text=True, timeout=100, cwd=Path(__file__).parents[2])
    assert done.returncode == code
    assert "never.py" in done.stderr


class Slow(Letters):
    """Honest, and says so."""

    tasks_limit_s = 60.0

    def tasks(self, split: str, seed: int) -> Sequence[Task]:
        until = time.thread_time() + 0.6
        while time.thread_time() < until:
            pass
        return super().tasks(split, seed)


def test_an_environment_that_is_slow_and_says_so_is_waited_for() -> None:
    limit = Limit(computing_s=0.3, waiting_s=0.3)
    assert len(listed(Slow(), "train", 0, limit)) == 16
    with pytest.raises(Endless, match=r"Let it return a sequence that ends.* or write tasks_limit_s = 60 in its class"):
        within(limit, "it", lambda: Slow().tasks("train", 0))


def test_a_limit_leaves_the_timer_of_whoever_set_one() -> None:
    """A test's own time limit is such a timer."""
    rung: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, frame: rung.append(number))
    left = signal.setitimer(signal.ITIMER_REAL, 0.5)
    try:
        within(Limit(computing_s=5.0, waiting_s=5.0), "it", lambda: time.sleep(0.3))
        assert 0.0 < signal.getitimer(signal.ITIMER_REAL)[0] <= 0.3
        time.sleep(0.4)
    finally:
        signal.setitimer(signal.ITIMER_REAL, *left)
        signal.signal(signal.SIGALRM, before)
    assert rung == [signal.SIGALRM]


def test_in_another_thread_nothing_is_limited() -> None:
    made: list[int] = []
    thread = threading.Thread(target=lambda: made.append(len(listed(Slow(), "train", 0, Limit(computing_s=0.1)))))
    thread.start()
    thread.join()
    assert made == [16]


class Million(Letters):
    """A million tasks, each made when it is asked for."""

    def tasks(self, split: str, seed: int) -> Sequence[Task]:
        return Lazily(split)


class Lazily(Sequence[Task]):
    def __init__(self, split: str) -> None:
        self.split, self.num_made = split, 0

    def __len__(self) -> int:
        return 1_000_000

    def __getitem__(self, index: int) -> Task:  # type: ignore[override]
        self.num_made += 1
        content = f"Say {self.split} {index}."
        return Task(id=f"{self.split}/{index}", env="letters", messages=(Message(role=Role.user, content=content),), payload="a")


def test_of_a_million_tasks_the_check_makes_five_thousand_spread_over_all() -> None:
    """``check`` took 57 s, and a dry run over 60 s."""
    listing = tasks_of(Million(), "train", SEEDS[0], Limit())
    assert isinstance(listing, Listing)
    assert (listing.num_tasks, len(listing.tasks)) == (1_000_000, 5_000)
    places = [int(task.id.partition("/")[2]) for task in listing.tasks]
    assert places == sorted(set(places))
    assert places[:2500] == list(range(2500))
    assert places[-1] > 999_000


class Measuring:
    """A renderer that counts."""

    def __init__(self) -> None:
        self.rendered: list[int] = []

    def prompt(self, task: Task) -> tuple[int, ...]:
        self.rendered.append(len(task.messages[0].content))
        return ()


def test_of_very_many_prompts_the_longest_and_some_others_are_rendered_before_a_run() -> None:
    tasks = [
        Task(id=str(n), env="e", messages=(Message(role=Role.user, content="a" * (1 + n % 7 + 90 * (n == 12_345))),))
        for n in range(50_000)
    ]
    renderer = Measuring()
    checks.refuse_long_prompts(renderer, tasks, None)  # type: ignore[arg-type]
    assert len(renderer.rendered) <= checks.MOST_RENDERED
    assert renderer.rendered[0] == max(len(task.messages[0].content) for task in tasks)
    few = Measuring()
    checks.refuse_long_prompts(few, tasks[:100], None)  # type: ignore[arg-type]
    assert len(few.rendered) == 100


def asked(split: str, *questions: str) -> list[Task]:
    return [
        Task(id=f"{split}/{place}", env="e", messages=(Message(role=Role.user, content=question),))
        for place, question in enumerate(questions)
    ]


def test_an_overlap_names_the_task_of_each_split() -> None:
    """It named one id, which only one of the splits had."""
    heldout = asked("heldout", "What is it?", "Why?")
    (same,) = finds_between_splits({0: asked("train", "Who?", "Why? ", "What is  it?")}, heldout, ("train", "heldout"))
    assert same.what == "'train/1' of 'train' and 'heldout/1' of 'heldout' ask the same, and 1 more"
    (alike,) = finds_between_splits({3: asked("train", "WHY ?")}, heldout, ("train", "heldout"))
    assert (alike.severity.value, alike.what) == (
        "warning",
        "'train/0' of 'train' and 'heldout/1' of 'heldout' ask the same but for case and white space",
    )
    with pytest.raises(UserError, match="asks in training task 'train/0' what held-out task 'heldout/1' asks"):
        checks.refuse_overlap(Letters(), asked("train", "Why?"), heldout)
    with pytest.raises(UserError, match="has the id 'heldout/1' in both splits"):
        checks.refuse_overlap(Letters(), heldout[1:], heldout)


def test_molecules_in_other_letters_are_other_molecules() -> None:
    """``c1ccccc1`` is benzene, ``C1CCCCC1`` is not."""
    heldout = asked("heldout", "How many rings has C1CCCCC1?")
    assert not list(finds_between_splits({0: asked("train", "How many rings has c1ccccc1?")}, heldout, ("train", "heldout")))


@pytest.mark.parametrize(
    ("text", "how"),
    [
        ("It is garden.", ""),
        ("It is GARDEN.", " in another case"),
        ("Spell g-a-r-d-e-n.", " letter by letter"),
        ("G A R D E N", " letter by letter"),
        ("Read nedrag from its end.", " backwards"),
        ("It is a gar, den of thieves.", None),
        ("It grows in a yard.", None),
    ],
)
def test_a_leak_is_seen_in_every_disguise(text: str, how: str | None) -> None:
    assert leak_in(text, "<answer>garden</answer>", "Where do flowers grow?") == how
    assert leak_in(text, "<answer>garden</answer>", f"You said: {text}") is None


NEIGHBOUR = """
from dataclasses import dataclass
from tests.letters import Letters

@dataclass(frozen=True)
class Letter:
    letter: str

    def __str__(self):
        return self.letter
"""
BESIDE = """
import dataclasses
from alphabet_beside_it import Letter, Letters

class Beside(Letters):
    def tasks(self, split, seed):
        if split not in ("train", "heldout"):
            raise ValueError(split)
        return [dataclasses.replace(task, payload=Letter(task.payload)) for task in super().tasks(split, seed)]

    def verify(self, task, completion):
        import alphabet_beside_it
        assert isinstance(task.payload, alphabet_beside_it.Letter)
        return super().verify(task, completion)
"""


@pytest.fixture
def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "alphabet_beside_it.py").write_text(NEIGHBOUR)
    (folder / "beside.py").write_text(BESIDE)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "alphabet_beside_it", raising=False)
    return f"{folder / 'beside.py'}:Beside"


def test_a_file_may_import_the_modules_beside_it(beside: str) -> None:
    """The import failed, and the check's process could not restore the tasks."""
    environment = make(beside, {})
    (task, *_) = environment.tasks("train", 0)
    assert environment.verify(task, "a").is_solved  # type: ignore[attr-defined]
    inspection = check(beside, num_tasks=1)
    assert not inspection.errors, str(inspection)


@pytest.mark.parametrize("name", ["my_env", "path/to/file.py:Mine"])
def test_an_environment_of_ones_own_is_no_choice_of_env_and_is_told_its_place(name: str) -> None:
    """``Could not find 'env/my_env'`` was all that was said."""
    with pytest.raises(UserError, match=r"env must be one of chemistry, .*verifiers; got .*env=custom env\.name=" + name):
        train_config([f"env={name}"])
    with pytest.raises(UserError, match=r"did you mean 'chemistry'\?"):
        train_config(["env=chemistri"])


DIALOGUE = """
from tests.letters import Asking, Letters

class Mine(Letters):
    def verify(self, task, completion):
        assert completion == "xyz"
        return super().verify(task, completion)

class Talking(Asking):
    pass
"""


def test_sample_judges_an_answer_of_ones_own_and_plays_a_dialogue(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "talking.py"
    file.write_text(DIALOGUE)
    code, shown = run("envs", "sample", f"{file}:Mine", "1", "answer=xyz")
    assert code == 0
    assert "your answer │ 0 │ There is no a in it. │ │ xyz" in shown
    (tmp_path / "turns.txt").write_text("xyz\n---\nabc\n---\nnever said\n")
    code, shown = run("envs", "sample", f"{file}:Talking", "1", f"answer=@{tmp_path / 'turns.txt'}")
    assert code == 0
    assert "policy │ xyz │ │ environment │ Another with a. │ │ policy │ abc │ │ verdict │ 1" in shown
    assert "never said" not in shown
    code, shown = run("envs", "show", f"{file}:Talking")
    assert "It replies between the policy's turns: train with sampling.max_turns=2 or more." in shown


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("answer=@absent.txt", "answer=@FILE must name a text file that can be read; absent.txt cannot"),
        ("tasks_limit_s=soon", "tasks_limit_s must be a positive number of seconds; got 'soon'"),
        ("tasks_limit_s=0", "tasks_limit_s must be a positive number of seconds; got '0'"),
    ],
)
def test_a_setting_that_will_not_do_is_answered_with_one_sentence(word: str, said: str, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "talking.py"
    file.write_text(DIALOGUE)
    code, shown = run("envs", "sample", f"{file}:Talking", word)
    assert code == 2
    assert said in shown


def test_a_dry_run_says_that_one_turn_leaves_no_place_for_a_reply(run: Run, tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "model")
    file = tmp_path / "talking.py"
    file.write_text(DIALOGUE)
    words = [
        "train", "--dry-run", f"model.path={model}", "model.name=tiny", "env=custom", f"env.name={file}:Talking",
        f"runs_dir={tmp_path / 'runs'}", "sampling.max_prompt_tokens=100", "algorithm.hindsight.max_prompt_tokens=300",
    ]  # fmt: skip
    code, shown = run(*words)
    assert code == 0
    assert "sampling.max_turns=1 leaves the policy only one: its reply() is never called" in shown
    code, shown = run(*words, "sampling.max_turns=2")
    assert code == 0
    assert "is never called" not in shown
