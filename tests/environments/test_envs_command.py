"""``sdpo envs``: what each of its words prints; whatever a user gets wrong comes back as one sentence with exit code 2."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from sdpo.cli import main
from sdpo.environments.words import told_apart

GREETINGS = '''
from sdpo.types import Message, Role, Task, Verdict


class Greetings:
    """Says hello.

    In [brackets], too.
    """

    name = "greetings"

    def __init__(self, *, word: str = "hello", split: str = "none", limits: dict[str, float] | None = None) -> None:
        if not word:
            raise ValueError("word must not be empty")
        self.word, self.split, self.limits = word, split, limits

    def tasks(self, split, seed):
        if split not in ("train", "heldout"):
            raise ValueError(f"greetings has the splits train and heldout; got {split!r}")
        says = f"{split} {seed} {self.word} {self.split} {self.limits}"
        return [
            Task(id=f"{split}/{n}", env="greetings", payload=n, messages=(Message(role=Role.user, content=f"Say {n} {says}"),))
            for n in range(3)
        ]

    def verify(self, task, completion):
        if "blue" in completion:
            raise RuntimeError("never blue")
        return Verdict(reward=0.25, feedback="\\x1b[31mSay [it].")


class Polite(Greetings):
    def verify(self, task, completion):
        return Verdict(reward=0.25, feedback="Say it.")


class Demanding(Greetings):
    """Needs to be told a path."""

    def __init__(self, *, path: str) -> None:
        super().__init__(word=path)


class Broken(Greetings):
    def tasks(self, split, seed):
        raise LookupError("nothing there")


class Lazy(Greetings):
    def tasks(self, split, seed):
        yield from super().tasks(split, seed)
'''
Run = Callable[..., tuple[int, str]]


@pytest.fixture
def greetings(tmp_path: Path) -> str:
    file = tmp_path / "greetings.py"
    file.write_text(GREETINGS)
    return f"{file}:Greetings"


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """The exit code and what was printed, errors included."""
    monkeypatch.setenv("COLUMNS", "200")

    def envs(*words: str) -> tuple[int, str]:
        code = main(["envs", *words])
        shown = capfd.readouterr()
        assert "Traceback" not in shown.err
        assert "\x1b[31mSay" not in shown.out
        return code, " ".join((shown.out + shown.err).split())

    return envs


def test_list_names_every_installed_environment_and_what_it_asks(run: Run) -> None:
    code, shown = run("list")
    assert code == 0
    assert "sdpo.envs.chemistry:Chemistry" in shown
    assert "small molecules" in shown


def test_show_tells_options_with_defaults_splits_with_sizes_and_a_task(run: Run, greetings: str) -> None:
    code, shown = run("show", greetings)
    assert code == 0
    assert "Says hello. In [brackets], too." in shown
    assert "word │ str │ 'hello'" in shown
    assert "limits │ dict[str, float] | None │ None" in shown
    assert "train: 3 tasks" in shown
    assert "heldout: 3 tasks" in shown
    assert "user: Say 0 train 0 hello none None" in shown


def test_show_tells_the_options_of_an_environment_before_it_says_that_one_is_missing(run: Run, greetings: str) -> None:
    demanding = greetings.replace(":Greetings", ":Demanding")
    code, shown = run("show", demanding)
    assert code == 2
    assert "path │ str │ required" in shown
    assert "needs the options path" in shown
    code, shown = run("show", demanding, "path=here")
    assert code == 0
    assert "Say 0 train 0 here" in shown


def test_sample_shows_as_many_tasks_as_asked_for_with_what_is_said_of_some_answers(run: Run, greetings: str) -> None:
    code, shown = run("sample", greetings, "2", "split=heldout", "seed=5", "word=bye")
    assert code == 0
    assert "Say 0 heldout 5 bye" in shown
    assert "Say 1 heldout 5 bye" in shown
    assert "Say 2" not in shown
    assert "nothing │ 0.25 │ [31mSay [it]." in shown
    assert "RuntimeError: never blue" in shown
    assert "2 of 3 tasks of the split 'heldout'" in shown
    assert "3 of 3 tasks" in run("sample", greetings, "99")[1]


def test_a_key_that_is_also_a_setting_of_the_command_can_be_given_as_in_training(run: Run, greetings: str) -> None:
    code, shown = run("sample", greetings, "1", "split=heldout", "env.options.split=mine", "env.options.limits={a: 1e-3}")
    assert code == 0
    assert "Say 0 heldout 0 hello mine {'a': '1e-3'}" in shown


def test_values_of_options_are_read_as_yaml() -> None:
    words = told_apart(["a=1", "b=0.5", "c=[x, y]", "d=true", "e=null", "f=1e-3", "g=a=b", "h='1'", "own=1e3"], ["own"])
    assert words.options == {"a": 1, "b": 0.5, "c": ["x", "y"], "d": True, "e": None, "f": 0.001, "g": "a=b", "h": "1"}
    assert words.settings == {"own": "1e3"}
    nested = told_apart(["size.width=3", "env.options.size.height=4", "env.options.own=5"], ["own"])
    assert nested.options == {"size": {"width": 3, "height": 4}, "own": 5}


def test_check_ends_in_a_summary_and_an_exit_code(run: Run, greetings: str) -> None:
    code, shown = run("check", greetings, "tasks=1")
    assert code == 1
    assert "error │ verify-raises" in shown
    assert "RuntimeError: never blue" in shown
    assert "Greetings: 1 error, 1 warning; 6 tasks and" in shown
    code, shown = run("check", greetings.replace(":Greetings", ":Polite"), "tasks=1")
    assert code == 0
    assert "Polite: 0 errors" in shown


def test_check_prints_json_for_another_program(greetings: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["envs", "check", greetings, "tasks=1", "json=true"]) == 1
    told = json.loads(capfd.readouterr().out)
    assert told["is_sound"] is False
    assert {finding["rule"] for finding in told["findings"]} == {"verify-raises", "feedback-text"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "sdpo envs takes list, show NAME"),
        (["shwo", "code"], "sdpo envs takes list, show NAME"),
        (["show"], "got 'show'"),
        (["show", "chemistri"], "did you mean 'chemistry'?"),
        (["show", "GREETINGS:Absent"], "there is no class 'Absent'"),
        (["show", "GREETINGS:Broken"], "environment 'greetings' raised LookupError: nothing there; sdpo envs check"),
        (
            ["sample", "GREETINGS:Greetings", "two"],
            "(the command's own: split, seed, answer, tasks_limit_s); got 'two'",
        ),
        (["sample", "GREETINGS:Greetings", "split=test"], "got 'test'"),
        (["sample", "GREETINGS:Greetings", "seed=-1"], "seed must be a whole number of at least 0; got '-1'"),
        (["sample", "GREETINGS:Greetings", "wrod=a"], "did you mean 'word'?"),
        (["sample", "GREETINGS:Greetings", "word="], "error: word must not be empty"),
        (["sample", "GREETINGS:Lazy"], "raised TypeError: object of type 'generator' has no len()"),
        (["sample", "GREETINGS:Greetings", "word=''"], "error: word must not be empty"),
        (["sample", "GREETINGS:Greetings", "word=[a"], "the value of an option must be YAML"),
        (["sample", "GREETINGS:Greetings", "word=a", "word.b=c"], "'word' would be both in 'word.b=c'"),
        (["check", "GREETINGS:Greetings", "json=yes"], "json must be true or false; got 'yes'"),
        (["check", "GREETINGS:Greetings", "tasks=0"], "tasks must be a whole number of at least 1; got '0'"),
        (["check", "GREETINGS:Greetings", "word=''"], "error: word must not be empty"),
        (["check", "absent.py:Greetings"], "there is none at"),
        (["new"], "got 'new'"),
        (["new", "a", "b", "c"], "got 'new a b c'"),
    ],
)
def test_what_a_user_gets_wrong_is_answered_with_one_sentence(words: list[str], said: str, run: Run, greetings: str) -> None:
    code, shown = run(*(word.replace("GREETINGS:", greetings.removesuffix("Greetings")) for word in words))
    assert code == 2
    assert said in shown


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "lower-case letters"),
        ("Words", "lower-case letters"),
        ("my-words", "lower-case letters"),
        ("../words", "lower-case letters"),
        ("words_", "lower-case letters"),
        ("wörter", "lower-case letters"),
        ("w" * 41, "at most 40"),
        ("class", "a word of Python's"),
        ("match", "a word of Python's"),
        ("task", "or of the interface"),
        ("chemistry", "is installed already"),
        ("json", "can be imported already"),
        ("numpy", "can be imported already"),
    ],
)
def test_a_name_that_will_not_do_is_refused_and_nothing_is_written(
    name: str, said: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    code, shown = run("new", name)
    assert code == 2
    assert said in shown
    assert not list(tmp_path.glob("here/*"))


def test_new_refuses_a_folder_that_exists_and_leaves_it_alone(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "words"
    folder.mkdir()
    code, shown = run("new", "word_mirror", str(folder))
    assert code == 2
    assert "must not exist yet" in shown
    assert not list(folder.iterdir())


def test_new_leaves_nothing_where_it_cannot_write(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    code, shown = run("new", "word_mirror", str(tmp_path / "file" / "words"))
    assert code == 2
    assert "must be a place where files can be written" in shown
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_new_writes_a_whole_package_and_says_what_comes_next(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "words"
    code, shown = run("new", "word_mirror", str(folder))
    assert code == 0
    assert f"pip install -e {folder}" in shown
    assert "sdpo envs check word_mirror" in shown
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert files == ["README.md", "pyproject.toml", "src/word_mirror/__init__.py", "tests/test_word_mirror.py"]
    assert not [file for file in files if "$" in (folder / file).read_text()]
    assert [path.name for path in folder.parent.iterdir()] == ["words"]
    code, shown = run("sample", f"{folder}/src/word_mirror/__init__.py:WordMirror", "1")
    assert code == 0
    assert "the reference" in shown
