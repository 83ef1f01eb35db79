"""Verifiers that several threads ask at once: who answers whom, and who waits for whom."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue

import pytest

from sdpo.config import EnvConfig, RolloutConfig, SandboxConfig
from sdpo.envs.registry import make
from sdpo.rollout.verify import VerifierPool
from sdpo.types import Attempt, Completion, Finish, Prompt, SetAside
from tests.letters import Letters

pytestmark = pytest.mark.integration
TINY = Path(__file__).parent.parent / "letters.py"
TASKS = Letters().tasks("train", 0)


def asked(*letters: str) -> Iterator[tuple[Prompt, Completion]]:
    """Of the task of each letter, an answer that says it."""
    for index, letter in enumerate(letters):
        prompt = Prompt(token_ids=(1,), seed=index, task_index="abcdefghijklmnop".index(letter), attempt_index=index)
        yield prompt, Completion(token_ids=(2,), logprobs=(-1.0,), text=letter, finish=Finish.stop, weights_version=0)


def pool(environment: str, tmp_path: Path, **settings: object) -> VerifierPool:
    config = RolloutConfig(**settings)  # type: ignore[arg-type]
    made = VerifierPool(EnvConfig(name=f"{TINY}:{environment}"), SandboxConfig(), config, tmp_path)
    made.wait_until_ready()
    return made


def texts(answers: Iterator[tuple[Prompt, Attempt | SetAside]]) -> list[str]:
    return sorted(outcome.completion.text for _, outcome in answers)


def test_a_call_is_answered_while_another_ones_engine_is_stuck_and_each_gets_its_own_answers(
    tmp_path: Path, ray_cluster: None
) -> None:
    verifiers = pool("Thoughtful", tmp_path)
    is_released, of_thread = threading.Event(), SimpleQueue[list[str]]()

    def stuck() -> Iterator[tuple[Prompt, Completion]]:
        yield from asked("a", "b", "c")
        assert is_released.wait(60.0)
        yield from asked("d", "e")

    thread = threading.Thread(target=lambda: of_thread.put(texts(verifiers.verify(TASKS, stuck()))), daemon=True)
    thread.start()
    assert texts(verifiers.verify(TASKS, asked("k", "l", "m"))) == ["k", "l", "m"]
    is_released.set()
    assert of_thread.get(timeout=60.0) == ["a", "b", "c", "d", "e"]


def test_a_call_that_is_abandoned_leaves_nothing_to_the_next(tmp_path: Path, ray_cluster: None) -> None:
    verifiers = pool("Thoughtful", tmp_path)
    abandoned = verifiers.verify(TASKS, asked("a", "b", "c", "d"))
    next(abandoned)
    abandoned.close()
    assert texts(verifiers.verify(TASKS, asked("k", "l"))) == ["k", "l"]


def test_a_verdict_that_takes_too_long_is_the_misfortune_of_the_call_that_asked_for_it(tmp_path: Path, ray_cluster: None) -> None:
    """Letter a hangs; what waited behind it in the same process is asked again, whoever asked it."""
    verifiers = pool("Hanging", tmp_path, num_verifiers=1, verify_timeout_s=2.0)
    of_thread = SimpleQueue[list[tuple[Prompt, Attempt | SetAside]]]()
    thread = threading.Thread(target=lambda: of_thread.put(list(verifiers.verify(TASKS, asked("a", "b")))), daemon=True)
    thread.start()
    assert all(isinstance(outcome, Attempt) for _, outcome in verifiers.verify(TASKS, asked("k", "l")))
    outcomes = {outcome.completion.text: outcome for _, outcome in of_thread.get(timeout=60.0)}
    assert isinstance(outcomes["a"], SetAside)
    assert "no verdict within" in outcomes["a"].error
    assert isinstance(outcomes["b"], Attempt)


BESIDE = """
import dataclasses
from letters_beside_it import Letter, Letters

class Beside(Letters):
    def tasks(self, split, seed):
        return [dataclasses.replace(task, payload=Letter(task.payload)) for task in super().tasks(split, seed)]
"""
NEIGHBOUR = """
from tests.letters import Letters

class Letter(str):
    pass
"""


def test_an_environment_in_a_file_imports_its_neighbours_in_a_verifier_too(
    tmp_path: Path, ray_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its folder was on no process's path."""
    (tmp_path / "letters_beside_it.py").write_text(NEIGHBOUR)
    (tmp_path / "beside.py").write_text(BESIDE)
    monkeypatch.setattr(sys, "path", list(sys.path))
    name = f"{tmp_path / 'beside.py'}:Beside"
    tasks = make(name, {}).tasks("train", 0)
    assert type(tasks[0].payload).__module__ == "letters_beside_it"
    verifiers = VerifierPool(EnvConfig(name=name), SandboxConfig(), RolloutConfig(num_verifiers=1), tmp_path)
    verifiers.wait_until_ready()
    assert texts(verifiers.verify(tasks, asked("a", "b"))) == ["a", "b"]
