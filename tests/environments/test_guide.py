"""``docs/environments.md`` leads from nothing to a checked environment: its files and its commands are taken as they stand."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from sdpo.cli import main

GUIDE = (Path(__file__).parents[2] / "docs" / "environments.md").read_text()
GUESSES = "45\n---\n20\n---\n1\n"
"""The first task's number is 1."""


def files() -> dict[str, str]:
    """Python blocks that begin with their file's name."""
    return {found[1]: found[0] for found in re.findall(r"```python\n(# (\w+\.py)\n.*?)```", GUIDE, re.DOTALL)}


def commands() -> list[str]:
    """The lines of blocks without a language."""
    blocks = re.findall(r"^```\n(.*?)^```$", GUIDE, re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.splitlines() if line.startswith("sdpo ")]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in files().items():
        (tmp_path / name).write_text(text)
    (tmp_path / "guesses.txt").write_text(GUESSES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    return tmp_path


def test_the_guide_has_an_environment_of_one_turn_and_one_of_several() -> None:
    assert list(files()) == ["my_environment.py", "my_dialogue.py"]
    assert len(commands()) == 10


def test_the_commands_of_the_guide_run_as_they_stand(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """There was no example with several turns, and its transcript's type stood nowhere."""
    shown = {}
    for line in commands():
        if "--dry-run" in line:
            continue
        words = shlex.split(line, comments=True)[1:]
        assert main(words) == 0, capfd.readouterr()
        shown[" ".join(words)] = " ".join(capfd.readouterr().out.split())
    assert "your answer │ 0" in shown["envs sample my_environment.py:Reverse 1 answer=enotS"]
    for name in ("my_environment.py:Reverse", "my_dialogue.py:Guess", "word_mirror/src/word_mirror/__init__.py:WordMirror"):
        assert f"{name}: 0 errors, 0 warnings" in shown[f"envs check {name}"]
    dialogue = shown["envs sample my_dialogue.py:Guess 1 answer=@guesses.txt"]
    assert re.search(r"policy │ 45 │ .*environment │ My number is smaller\. .*policy │ 1 │.*verdict │ 1", dialogue)


@pytest.mark.full
@pytest.mark.parametrize("line", [line for line in commands() if "--dry-run" in line])
def test_what_the_guide_would_train_is_sound(line: str, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """``make test`` has the same of other environments."""
    assert main(shlex.split(line, comments=True)[1:]) == 0, capfd.readouterr()
    assert "The config is sound" in " ".join(capfd.readouterr().out.split())
