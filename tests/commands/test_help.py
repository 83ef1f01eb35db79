"""Help says of each command what it takes, from the one home of every default, and says it at once."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from sdpo import __version__
from sdpo.cli import main
from sdpo.commands.help import overview, page, words_about
from sdpo.commands.table import BUILT_IN as COMMANDS
from sdpo.config import Config, EvaluateConfig, LearnerConfig
from sdpo.config.compose import defaults
from sdpo.environments import command as envs
from sdpo.environments import sample
from sdpo.environments.preparing import command as preparing
from sdpo.planning import request
from sdpo.report import view

CONF = Path(__file__).parents[2] / "conf"
WITH_KEYS = [name for name, about in COMMANDS.items() if about.config]
HEAVY = ("torch", "ray", "transformers", "vllm", "deepspeed")


def printed(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    assert main(words) == code
    return capsys.readouterr().out


def test_every_command_of_the_overview_has_a_page_and_no_other() -> None:
    assert set(re.findall(r"^  sdpo (\w+)", overview(), flags=re.MULTILINE)) == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_way_to_ask_gives_the_page_of_that_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = page(command)
    assert text.startswith(f"usage:\n  sdpo {command} ")
    assert not re.search(rf"^  sdpo (?!{command}\b)", text, flags=re.MULTILINE), "another command's line"
    ways = ([command, "--help"], [command, "-h"], ["help", command], [command, "num_steps=3", "--help"])
    for words in ways if command == "train" else ways[:1]:
        assert printed(capsys, *words) == text


def test_without_a_command_help_is_the_overview(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["--help"], ["-h"], ["help"]):
        assert printed(capsys, *words) == overview()


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, "--version") == f"{__version__}\n"


@pytest.mark.parametrize("words", [["help", "bogus"], ["bogus", "--help"]])
def test_a_command_that_does_not_exist_has_no_help(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert "a command must be one of those that `sdpo --help` lists" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("command", WITH_KEYS)
def test_the_keys_shown_exist_and_each_has_its_default_and_some_words(command: str) -> None:
    about = COMMANDS[command]
    known, lines = defaults(about.config, about.words), page(command).splitlines()
    assert len(about.keys) == 10 or set(about.keys) == set(known)
    for key in about.keys:
        text = known[key].text
        words = words_about(known[key].home, key.split(".")[-1])
        assert words, f"{key} has no words below it in {known[key].home.__name__}"
        line = next(line for line in lines if line.startswith((f"  {key}=", f"  {key} ")))
        assert line.startswith(f"  {key}={text} " if text else f"  {key}=… (required)")
        assert words.split()[0] in line


def test_a_default_is_the_dataclass_ones_but_for_what_the_commands_yaml_changes() -> None:
    """`sdpo solve` samples 16 attempts a step and trains adapters."""
    assert defaults("train")["learner.lr"].text == f"{LearnerConfig().lr:g}"
    assert defaults("train")["num_steps"].text == str(Config.num_steps)
    assert defaults("evaluate")["k"].text == str(EvaluateConfig.k)
    said = yaml.safe_load((CONF / "solve.yaml").read_text())
    assert defaults("solve")["batch.group_size"].text == str(said["batch"]["group_size"])
    assert "learner=lora" in page("solve")


@pytest.mark.parametrize("command", WITH_KEYS)
def test_all_choices_of_a_group_are_shown(command: str) -> None:
    text = page(command)
    for entry in yaml.safe_load((CONF / f"{COMMANDS[command].config}.yaml").read_text())["defaults"]:
        for group in entry if isinstance(entry, dict) else ():
            shown = text[text.index(f"\n  {group}=") :].partition("\n\n")[0]
            choices = [file.relative_to(CONF / group).with_suffix("") for file in (CONF / group).rglob("*.yaml")]
            assert choices
            for choice in choices:
                assert str(choice) in shown.split("=", 1)[1] or choice.parent.name == "settings"


def test_what_commands_take_besides_keys_is_what_they_read() -> None:
    """Names and defaults that stand in the text."""
    named = {name: {option.partition("=")[0] for option, _ in about.options} for name, about in COMMANDS.items()}
    assert named["view"] == set(view.SETTINGS)
    assert f"host={view.HOST} port={view.PORT}" in overview()
    assert named["plan"] == set(request._OWN)
    assert named["envs"] == {"OPTION", *sample.SETTINGS, *envs.CHECK_SETTINGS, *preparing.SETTINGS}


@pytest.mark.parametrize("words", [["--version"], ["--help"], ["train", "--help"], ["help", "launch"], ["view", "--help"]])
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    code = f"import sys; from sdpo.cli import main; main({words!r}); print(set({HEAVY!r}) & sys.modules.keys(), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "set()"
    assert done.stdout
