"""Properties of ``sdpo.envs.registry``: what a spec may be, and what a refusal says."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from sdpo.envs.base import Conversational, Environment, SingleTurn
from sdpo.envs.registry import available, find_class, make

SMALL_ENVIRONMENT = """
from dataclasses import dataclass

from sdpo.types import Message, Role, Task, Verdict


@dataclass(frozen=True, slots=True)
class Payload:
    number: int


class Parrot:
    name = "parrot"

    def __init__(self, *, word: str, times: int = 1) -> None:
        if times < 1:
            raise ValueError(f"times must be at least 1; got {times}")
        if word == "crash":
            raise KeyError("word")
        self.word = word

    def tasks(self, split, seed):
        message = Message(role=Role.user, content=self.word)
        return [Task(id="parrot/1", env=self.name, messages=(message,), payload=Payload(1))]

    def verify(self, task, completion):
        return Verdict(reward=float(completion == self.word))


class Mute:
    name = "mute"
"""


@pytest.fixture
def parrot_file(tmp_path: Path) -> Path:
    path = tmp_path / "parrots.py"
    path.write_text(SMALL_ENVIRONMENT)
    return path


def test_installed_environments_are_listed_by_name_with_their_class() -> None:
    assert available()["chemistry"] == "sdpo.envs.chemistry:Chemistry"
    assert list(available()) == sorted(available())


@pytest.mark.parametrize("spec", ["chemistry", "sdpo.envs.chemistry:Chemistry"])
def test_a_name_and_a_module_path_make_the_same_environment(spec: str) -> None:
    environment = make(spec, {"families": ["rings"]})
    assert isinstance(environment, Environment)
    assert {task.id.split("/")[1] for task in environment.tasks("heldout", 0)} == {"rings"}


def test_a_file_makes_an_environment_whose_payloads_can_be_pickled(parrot_file: Path) -> None:
    environment = make(f"{parrot_file}:Parrot", {"word": "hello"})
    (task,) = environment.tasks("train", 0)
    assert environment.verify(task, "hello").is_solved
    assert pickle.loads(pickle.dumps(task)) == task


def test_a_relative_path_names_the_same_file(parrot_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(parrot_file.parent)
    here = make("parrots.py:Parrot", {"word": "hello"})
    assert type(here) is type(make(f"{parrot_file}:Parrot", {"word": "hello"}))


def test_an_unknown_name_is_refused_with_the_nearest_and_the_list() -> None:
    with pytest.raises(ValueError, match=r"got 'chemistri' \(did you mean 'chemistry'\?\); installed are .*chemistry"):
        make("chemistri", {})


@pytest.mark.parametrize("spec", [":Chemistry", "sdpo.envs.chemistry:", ":"])
def test_half_a_spec_is_refused(spec: str) -> None:
    with pytest.raises(ValueError, match="must name a module and a class"):
        make(spec, {})


@pytest.mark.parametrize("spec", ["", "chem istry"])
def test_a_spec_that_is_no_name_is_refused_as_an_unknown_one(spec: str) -> None:
    with pytest.raises(ValueError, match="env must be an installed environment's name"):
        make(spec, {})


@pytest.mark.parametrize("module", ["no_such_module_anywhere", ".relative", "a..b"])
def test_a_module_that_cannot_be_imported_is_refused_with_the_original_error(module: str) -> None:
    with pytest.raises(ValueError, match=r"importing .* raised \w+Error: .*: correct the name"):
        make(f"{module}:Class", {})


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"there is none at .*absent\.py"):
        make(f"{tmp_path / 'absent.py'}:Class", {})


def test_a_broken_file_is_refused_with_the_original_error_and_read_again_once_mended(tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text("1 / 0\n")
    with pytest.raises(ValueError, match="raised ZeroDivisionError: division by zero"):
        make(f"{path}:Parrot", {})
    path.write_text(SMALL_ENVIRONMENT + "# mended\n")
    assert make(f"{path}:Parrot", {"word": "hello"}).name == "parrot"


def test_a_missing_class_is_refused_with_the_nearest_and_those_defined(parrot_file: Path) -> None:
    with pytest.raises(ValueError, match=r"no class 'Parot' \(did you mean 'Parrot'\?\); it defines Payload, Parrot, Mute"):
        make(f"{parrot_file}:Parot", {})


def test_an_option_the_constructor_does_not_take_is_refused_with_the_nearest_and_those_accepted(
    parrot_file: Path,
) -> None:
    with pytest.raises(ValueError, match=r"got 'wrod' \(did you mean 'word'\?\); it accepts word, times"):
        make(f"{parrot_file}:Parrot", {"wrod": "hello"})
    with pytest.raises(ValueError, match=r"got 'family' \(did you mean 'families'\?\); it accepts families"):
        make("chemistry", {"family": "rings"})
    with pytest.raises(ValueError, match="got 'word'; it accepts none"):
        make(f"{parrot_file}:Mute", {"word": "hello"})


def test_a_missing_option_is_refused(parrot_file: Path) -> None:
    with pytest.raises(ValueError, match="needs the options word; got times"):
        make(f"{parrot_file}:Parrot", {"times": 2})


def test_the_constructors_own_refusal_comes_through_unchanged(parrot_file: Path) -> None:
    with pytest.raises(ValueError, match=r"^times must be at least 1; got 0$"):
        make(f"{parrot_file}:Parrot", {"word": "hello", "times": 0})


def test_any_other_error_of_the_constructor_becomes_a_sentence(parrot_file: Path) -> None:
    with pytest.raises(ValueError, match="that raised KeyError: 'word'"):
        make(f"{parrot_file}:Parrot", {"word": "crash"})


def test_an_object_that_is_not_an_environment_is_refused_with_what_it_lacks(parrot_file: Path) -> None:
    with pytest.raises(ValueError, match=r"must be an Environment, with name, tasks .*; its class Mute lacks tasks, verify"):
        make(f"{parrot_file}:Mute", {})


def test_a_class_is_found_without_being_made(parrot_file: Path) -> None:
    assert find_class(f"{parrot_file}:Parrot").__doc__ is None  # making it would need the option word
    with pytest.raises(ValueError, match="did you mean 'Parrot'"):
        find_class(f"{parrot_file}:Parot")


def test_an_environment_that_replies_must_judge_the_conversation_too(tmp_path: Path) -> None:
    """It was given the policy's turns glued together, by the method of environments of one turn."""
    path = tmp_path / "talk.py"
    path.write_text(f"{SMALL_ENVIRONMENT}\nclass Talk(Parrot):\n    def reply(self, task, transcript):\n        return None\n")
    with pytest.raises(ValueError, match=r"for several turns: name, tasks, reply and judge.*its class Talk lacks judge"):
        make(f"{path}:Talk", {"word": "hello"})


def test_an_environment_that_judges_conversations_needs_no_verify(tmp_path: Path) -> None:
    path = tmp_path / "talk.py"
    members = (
        "def reply(self, task, transcript):\n        return None\n    def judge(self, task, transcript):\n        return None"
    )
    path.write_text(f"class Talk:\n    name = 'talk'\n    def tasks(self, split, seed):\n        return []\n    {members}\n")
    environment = make(f"{path}:Talk", {})
    assert isinstance(environment, Conversational)
    assert not isinstance(environment, SingleTurn)
