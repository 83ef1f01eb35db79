"""A package outside the repository adds to every seam, each by one file and one line of registration, and is used by name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.integration.conftest import Trainer

pytestmark = pytest.mark.integration

FILES = {
    "rules": '''
class Rules:
    heading = "The house rules:"

    def text(self, group, index):
        return f"Attempt {index} of {len(group.attempts)}: say a letter."
''',
    "vowels": '''
class Vowels:
    def flags(self, text):
        return [(place, place + 1) for place, letter in enumerate(text) if letter in "aeiou"]
''',
    "squares": '''
class Squares:
    """The squared distance of the probabilities."""

    def __init__(self, algorithm):
        self.scale = algorithm.jsd_beta

    def terms(self, student_NK, teacher_NK):
        return self.scale * (student_NK.exp() - teacher_NK.exp()) ** 2
''',
    "notes": '''
import os
import pickle
import uuid


class Files:
    """Through a folder that both sides see."""

    def put(self, bucket):
        path = os.path.join(os.environ["NOTES"], uuid.uuid4().hex)
        with open(path, "wb") as file:
            pickle.dump(bucket, file)
        return path

    def fetch(self, place):
        with open(place, "rb") as file:
            return pickle.load(file)
''',
    "halfway": '''
from dataclasses import dataclass

from sdpo.config import TeacherConfig


@dataclass
class Halfway(TeacherConfig):
    """The policy at the start and now, mixed."""

    share: float = 0.5

    def models(self, parts):
        return [parts.start(weight=1.0 - self.share), parts.now(weight=self.share)]
''',
    "patient": '''
from dataclasses import dataclass

from sdpo.hindsight.hints import hint_of
from sdpo.solving.strategy import Strategy


@dataclass(frozen=True, slots=True, kw_only=True)
class Patient(Strategy):
    """Tells nothing, and learns that it should try again."""

    def hints(self, group, hindsight, seed, remembered):
        return tuple(hint_of(feedback="Try again.") for _ in group.attempts)


PATIENT = Patient(shows_feedback=False, learns=True)
''',
    "greet": '''
from sdpo.commands.command import Command


def run(words):
    print("hello", *words)
    return 7


COMMAND = Command(usage="  sdpo greet [NAME ...]                  say hello\\n", run="mine.greet:run")
''',
}  # fmt: skip
REGISTRATION = """
[sdpo.hints]
rules = mine.rules:Rules
[sdpo.filters]
vowels = mine.vowels:Vowels
[sdpo.divergences]
squares = mine.squares:Squares
[sdpo.teachers]
halfway = mine.halfway:Halfway
[sdpo.weight_syncs]
files = mine.notes:Files
[sdpo.strategies]
patient = mine.patient:PATIENT
[sdpo.commands]
greet = mine.greet:COMMAND
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where processes find an environment's package, made and installed as its author does, and the one of the seams.

    The latter lies as pip would have put it: modules, and beside them what the package registers.
    """
    place = tmp_path_factory.mktemp("site")
    made = tmp_path_factory.mktemp("author")
    subprocess.run([sys.executable, "-m", "sdpo.cli", "envs", "new", "word_mirror", "plugin"], cwd=made, check=True, timeout=120)
    pip = ("pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--no-index")
    subprocess.run([sys.executable, "-m", *pip, "--target", str(place), str(made / "plugin")], check=True, timeout=120)
    (place / "mine").mkdir()
    (place / "mine" / "__init__.py").write_text("")
    for name, text in FILES.items():
        (place / "mine" / f"{name}.py").write_text(text)
    about = place / "mine-0.1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 0.1\n")
    (about / "entry_points.txt").write_text(REGISTRATION)
    return place


def test_a_run_uses_an_environment_a_hint_source_a_token_filter_a_divergence_a_teacher_and_a_weight_sync(
    trainer: Trainer, package: Path, tmp_path: Path
) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    words = trainer.words(
        "num_steps=2", "evaluation.num_attempts=4", "algorithm.divergence=squares", "algorithm.hindsight.sources=[rules]",
        "algorithm.filter.name=vowels", "algorithm.teacher.kind=halfway", "algorithm.teacher.share=0.25",
        "rollout.weight_sync=files", "tracking.credit_share=1",
        "env.options.ignore_case=true", env="word_mirror",
    )  # fmt: skip
    process = trainer.start_from_nothing(words, PYTHONPATH=str(package), NOTES=str(notes))
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output + trainer.logs()
    stored = yaml.safe_load((trainer.runs / "run" / "config.yaml").read_text())
    assert stored["algorithm"]["teacher"] == {"kind": "halfway", "share": 0.25}
    rows = trainer.rows()
    assert [row["hindsight/rules"] for row in rows] == [1.0, 1.0], "every attempt was shown the rules"
    assert all(0.0 < row["divergence"] < 0.5 for row in rows)
    said = [str(attempt["feedback"]) for attempt in trainer.rollouts(1)]
    assert any("of the answer is" in feedback or "letters, but" in feedback for feedback in said), "word_mirror's own feedback"
    assert rows[0]["mismatch"] < 0.05, "the engine serves what was written into the folder"
    measured = trainer.evaluations()[0]
    assert "lift" in measured, measured.keys()
    assert list(notes.iterdir())
    attempts = {(attempt["task_index"], attempt["attempt"]): attempt for attempt in trainer.rollouts(1)}
    for record in trainer.credit(1):
        attempt = attempts[record["task_index"], record["attempt"]]
        first, last = record["marks"]["rules"]
        assert record["hindsight_prompt"][first:last] == f"Attempt {record['attempt']} of 4: say a letter."
        assert attempt["shown"]["rules"] == f"Attempt {record['attempt']} of 4: say a letter."
    learned = sum(value is not None for record in trainer.credit(1) for value in record["teacher"])
    flagged = sum(any(letter in "aeiou" for letter in token) for record in trainer.credit(1) for token in record["tokens"])
    total = sum(len(record["tokens"]) for record in trainer.credit(1))
    assert flagged > 0
    assert learned == total - flagged, "vowels carry no loss"


def test_a_search_uses_a_strategy_and_a_command_is_called(trainer: Trainer, package: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(package), "COLUMNS": "200"}
    sdpo = [sys.executable, "-m", "sdpo.cli"]
    called = subprocess.run([*sdpo, "greet", "you"], env=environment, capture_output=True, text=True, check=False)
    assert (called.returncode, called.stdout) == (7, "hello you\n")
    helped = subprocess.run([*sdpo, "--help"], env=environment, capture_output=True, text=True, check=False)
    assert "sdpo greet [NAME ...]" in helped.stdout
    left_out = ("num_steps", "batch.num_tasks", "evaluation.", "cluster.", "name=")
    words = [word for word in trainer.words() if not word.startswith(left_out)]
    done = subprocess.run(
        [*sdpo, "solve", *words, "strategy=patient", "task=letters/q", "split=heldout", "in_process=true", "budget.attempts=8",
         "name=search", "quiet=true"],
        env=environment, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode in (0, 3), done.stdout + done.stderr
    found = json.loads([line for line in done.stdout.splitlines() if line.startswith("{")][-1])
    assert found["strategy"] == "patient"


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("algorithm.divergence=squarez", "algorithm.divergence must be one of reverse_kl, forward_kl, jsd"),
        (
            "algorithm.hindsight.sources=[rulez]",
            "algorithm.hindsight.sources must be one of majority_vote, or name a hint source",
        ),
        ("algorithm.filter.name=vowelz", "algorithm.filter.name must name a token filter"),
        ("algorithm.teacher.kind=halfwax", "algorithm.teacher.kind must be one of ema, live, frozen"),
        ("rollout.weight_sync=filez", "rollout.weight_sync must be one of object_store"),
    ],
)
def test_a_name_that_nobody_registered_is_refused(trainer: Trainer, word: str, said: str) -> None:
    assert said in " ".join(trainer.run(trainer.words(word, "dry_run=true"), expected=2).split())
