"""A run whose verifiers wait no longer than a verdict can take is refused before it starts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sdpo.config import EnvConfig, RolloutConfig
from sdpo.envs.base import TakesTime
from sdpo.errors import UserError
from sdpo.preflight.checks import make_environment, refuse_long_verdicts

LETTERS = f"{Path(__file__).parent.parent / 'letters.py'}:Letters"
OWN = """
from sdpo.types import Message, Role, Task, Verdict


class Slow:
    name = "slow"

    def __init__(self, *, timeout_s: float = 90.0) -> None:
        pass

    def tasks(self, split, seed):
        return [Task(id=split, env="slow", messages=(Message(role=Role.user, content=split),))]

    def verify(self, task, completion):
        return Verdict(reward=0.0, feedback="no")
"""


def refuse(name: str, verify_timeout_s: float, **options: object) -> None:
    env = EnvConfig(name=name, options=options)
    refuse_long_verdicts(make_environment(env), env, RolloutConfig(verify_timeout_s=verify_timeout_s))


def functions(folder: Path, *tests: str) -> str:
    """A file of two problems with these tests."""
    file = folder / "problems.jsonl"
    rows = [{"task_id": n, "text": f"Double it. ({n})", "code": "def f(n): return 2 * n", "test_list": tests} for n in range(2)]
    file.write_text("\n".join(map(json.dumps, rows)))
    return str(file)


@pytest.mark.parametrize(("name", "times"), [("code", 8), ("one_liners", 2)])
def test_an_execution_may_not_take_so_long_that_a_verdict_takes_longer_than_its_verifier_waits(name: str, times: int) -> None:
    """It was accepted, and a looping answer counted as the environment's fault, not as a failure."""
    refuse(name, 60.0, timeout_s=59.0 / times)
    with pytest.raises(UserError) as refused:
        refuse(name, 60.0, timeout_s=60.0 / times)
    said = str(refused.value)
    assert said.startswith("rollout.verify_timeout_s must be longer than a verdict can take")
    assert f"it is 60 s, and one of '{name}' can take 60 s (env.options.timeout_s={60 / times:g} bounds one execution" in said
    assert "Set rollout.verify_timeout_s above 60, or lower env.options.timeout_s." in said


def test_the_default_time_of_an_environment_counts_as_well(tmp_path: Path) -> None:
    refuse("code", 41.0)
    with pytest.raises(UserError, match=r"can take 40 s \(env\.options\.timeout_s=5 bounds one execution"):
        refuse("code", 40.0)
    (tmp_path / "slow.py").write_text(OWN)
    with pytest.raises(UserError, match=r"it is 60 s, and env\.options\.timeout_s=90 is no less"):
        refuse(f"{tmp_path / 'slow.py'}:Slow", 60.0)
    refuse(f"{tmp_path / 'slow.py'}:Slow", 60.0, timeout_s=59.0)


def test_what_the_tests_of_a_file_are_decides_how_long_a_verdict_can_take(tmp_path: Path) -> None:
    path = functions(tmp_path, "assert f(1) == 2", "assert f(2) == 4")
    refuse("code_file", 60.0, path=path, timeout_s=29.0)
    with pytest.raises(UserError, match="can take 60 s"):
        refuse("code_file", 60.0, path=path, timeout_s=30.0)
    path = functions(tmp_path, "assert f(1) == 2", "for n in range(9):\n    assert f(n) == 2 * n")
    with pytest.raises(UserError, match="can take 60 s"):
        refuse("code_file", 60.0, path=path, timeout_s=10.0)


def test_a_file_that_cannot_be_read_is_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"env\.name=code_file: env\.options\.path must name a file"):
        refuse("code_file", 60.0, path=str(tmp_path / "none.jsonl"))


def test_an_environment_without_a_limit_of_its_own_is_not_asked_for_one() -> None:
    assert not isinstance(make_environment(EnvConfig(name=LETTERS)), TakesTime)
    refuse(LETTERS, 1.0)
