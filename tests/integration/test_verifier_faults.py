"""Verifiers' processes that die or hang: what they owed is judged by another; only an answer that kills twice is set aside."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from sdpo.config import EnvConfig, RolloutConfig, SandboxConfig
from sdpo.errors import MachineError, UserError
from sdpo.rollout.verify import VerifierPool
from sdpo.types import Attempt, Completion, Finish, Prompt, SetAside
from tests.letters import Letters

pytestmark = pytest.mark.integration
TASKS = Letters().tasks("train", 0)
ENVIRONMENT = """
import os, signal, time
from tests.letters import Letters

class Mortal(Letters):
    def verify(self, task, completion):
        time.sleep(0.1)
        if completion == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().verify(task, completion)

class Unborn(Letters):
    def __init__(self):
        os.kill(os.getpid(), signal.SIGKILL)

class Late(Letters):
    def __init__(self):
        try:
            open(__file__ + ".first", "x").close()
        except FileExistsError:
            return
        time.sleep(600)
"""


def pool(name: str, folder: Path, **settings: object) -> VerifierPool:
    (folder / "environments.py").write_text(ENVIRONMENT)
    config = RolloutConfig(num_verifiers=2, **settings)  # type: ignore[arg-type]
    return VerifierPool(EnvConfig(name=f"{folder / 'environments.py'}:{name}"), SandboxConfig(), config, folder)


def asked(*texts: str) -> Iterator[tuple[Prompt, Completion]]:
    for index, text in enumerate(texts):
        prompt = Prompt(token_ids=(1,), seed=index, task_index=0, attempt_index=index)
        yield prompt, Completion(token_ids=(2,), logprobs=(-1.0,), text=text, finish=Finish.stop, weights_version=0)


def pids() -> set[int]:
    """Of all verifiers on this machine."""
    found = psutil.process_iter(["cmdline"])
    return {process.pid for process in found if "VerifierActor" in " ".join(process.info["cmdline"] or ())}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_verifier_that_is_killed_or_stopped_costs_no_attempt(number: int, tmp_path: Path, ray_cluster: None) -> None:
    """A stopped one cannot be told from an environment that hangs: that attempt alone is set aside."""
    verifiers = pool("Mortal", tmp_path, verify_timeout_s=3.0)
    verifiers.wait_until_ready()
    mine = {worker.process.pid for worker in verifiers._workers if worker.process is not None}
    assert mine <= pids()
    answers, began = [], 0.0
    for answer in verifiers.verify(TASKS, asked(*(f"text {index}" for index in range(40)))):
        answers.append(answer)
        if len(answers) == 5:
            began = time.monotonic()
            os.kill(verifiers._workers[0].process.pid, number)
    assert sorted(prompt.attempt_index for prompt, _ in answers) == list(range(40))
    broken = [outcome for _, outcome in answers if isinstance(outcome, SetAside)]
    assert len(broken) == (0 if number == signal.SIGKILL else 1)
    assert len(mine & pids()) == 1, "the old process is gone, and the other one lives"
    print(f"FAULT verifier-{signal.Signals(number).name} recovered_s={time.monotonic() - began:.1f}")


def test_an_answer_that_kills_its_verifier_twice_is_set_aside_and_the_others_are_judged(
    tmp_path: Path, ray_cluster: None
) -> None:
    verifiers = pool("Mortal", tmp_path)
    verifiers.wait_until_ready()
    outcomes = {p.attempt_index: o for p, o in verifiers.verify(TASKS, asked("a", "b", "kill", "c", "d", "e", "f"))}
    assert len(outcomes) == 7
    broken = outcomes.pop(2)
    assert isinstance(broken, SetAside)
    assert "the verifier's process died" in broken.error
    assert all(isinstance(outcome, Attempt) for outcome in outcomes.values())


def test_a_verifier_that_hangs_as_it_begins_costs_no_attempt(tmp_path: Path, ray_cluster: None) -> None:
    """Each of its questions was set aside in turn, as if the environment had been slow over it."""
    verifiers = pool("Late", tmp_path, start_timeout_s=20.0, verify_timeout_s=1.0)
    outcomes = [outcome for _, outcome in verifiers.verify(TASKS, asked("a", "b", "c", "d"))]
    assert len(outcomes) == 4
    assert all(isinstance(outcome, Attempt) for outcome in outcomes)


def test_verifiers_that_cannot_begin_end_the_run_with_a_sentence(tmp_path: Path, ray_cluster: None) -> None:
    verifiers = pool("Unborn", tmp_path, max_restarts=1)
    with pytest.raises(MachineError, match="failed to start 2 times in a row"):
        list(verifiers.verify(TASKS, asked("a")))
    with pytest.raises(UserError, match="must start in a verifier's process"):
        pool("Unborn", tmp_path).wait_until_ready()
