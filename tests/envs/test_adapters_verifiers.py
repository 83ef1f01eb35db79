"""Properties of the environment ``verifiers``, on tasksets written for it. Needs the package verifiers, which is not in the
locked set: it asks for an older openai than vLLM's. ``pip install verifiers==0.4.0`` in an environment of its own runs
these.
"""

from __future__ import annotations

import json
import pickle
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from sdpo.envs.adapters.verifiers import Verifiers, VerifiersTask
from sdpo.envs.base import Environment, Role, Task

IS_INSTALLED = find_spec("verifiers") is not None and find_spec("verifiers.v1") is not None
needs_package = pytest.mark.skipif(not IS_INSTALLED, reason="the package verifiers (0.4) is not installed")

REVERSAL = """
import verifiers.v1 as vf

__all__ = ["Reversal"]


class Data(vf.TaskData):
    answer: str


class Reverse(vf.Task[Data]):
    @vf.reward(weight=0.8)
    async def exact(self, trace) -> float:
        return float(trace.last_reply == self.data.answer)

    @vf.reward(weight=0.2)
    async def short(self, trace) -> float:
        return float(len(trace.last_reply) < 20)

    @vf.metric
    async def letters(self, trace) -> float:
        return float(len(trace.last_reply))


class Config(vf.TasksetConfig):
    words: list[str] = ["stone", "river", "cloud", "apple", "light", "night", "north", "south", "early", "later"]


class Reversal(vf.Taskset[Reverse, Config]):
    def load(self):
        for word in self.config.words:
            yield Reverse(Data(prompt=f"Write {word} backwards.", system_prompt="Be short.", answer=word[::-1]), self.config.task)
"""
NEEDS_SETUP = REVERSAL.replace(
    "    @vf.metric", "    async def setup(self, trace, runtime) -> None:\n        return None\n\n    @vf.metric"
).replace("async def exact(self, trace)", "async def exact(self, trace, runtime)")


@pytest.fixture
def tasksets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sdpo_reversal.py").write_text(REVERSAL)
    (tmp_path / "sdpo_needy.py").write_text(NEEDS_SETUP)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("sdpo_reversal", "sdpo_needy"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def answer_of(task: Task) -> str:
    assert isinstance(task.payload, VerifiersTask)
    return str(json.loads(task.payload.record)["answer"])


@needs_package
@pytest.mark.usefixtures("tasksets")
def test_a_tasksets_tasks_and_rewards_are_the_environments() -> None:
    env = Verifiers(taskset="sdpo-reversal", heldout_options={"words": ["moon", "sun"]})
    assert isinstance(env, Environment)
    train, heldout = env.tasks("train", 0), env.tasks("heldout", 0)
    assert (len(train), len(heldout)) == (10, 2)
    assert pickle.loads(pickle.dumps(train)) == train
    for task in (*train, *heldout):
        assert [message.role for message in task.messages] == [Role.system, Role.user]
        right = env.verify(task, answer_of(task))
        assert right.is_solved
        assert right.feedback is None
        assert right.metrics["letters"] == len(answer_of(task))
        wrong = env.verify(task, "no idea")
        assert wrong.reward == pytest.approx(0.2)
        assert wrong.feedback == "The answer earned 0.2 of 1. By criterion: exact 0, short 1."


@needs_package
@pytest.mark.usefixtures("tasksets")
def test_a_share_is_held_out_and_the_order_follows_the_seed() -> None:
    env = Verifiers(taskset="sdpo_reversal", heldout_share=0.3)
    train, heldout = env.tasks("train", 0), env.tasks("heldout", 0)
    assert len(train) + len(heldout) == 10
    assert {task.messages for task in train}.isdisjoint(task.messages for task in heldout)
    assert [task.id for task in train] == [task.id for task in env.tasks("train", 0)]


@needs_package
@pytest.mark.usefixtures("tasksets")
@pytest.mark.parametrize("completion", ["", "\0", "\ud800", "x" * 1_000_000, "[" * 100_000])
def test_any_text_is_scored(completion: str) -> None:
    env = Verifiers(taskset="sdpo_reversal", heldout_options={})
    assert env.verify(env.tasks("train", 0)[0], completion).reward < 1


@needs_package
@pytest.mark.usefixtures("tasksets")
@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"taskset": "no_such_taskset"}, "must be able to load the taskset 'no_such_taskset'"),
        ({"taskset": "sdpo_needy"}, "needs setup, a runtime for exact: choose a single-turn one"),
        ({"taskset": "sdpo_reversal", "options": {"wrods": []}}, "wrods"),
        ({"taskset": "sdpo_reversal", "heldout_share": 2.0, "heldout_options": None}, "between 0 and 1"),
        ({"taskset": "sdpo_reversal", "heldout_share": 0.5}, "exactly one"),
        ({"taskset": "sdpo_reversal", "max_tasks": 0}, "at least 1"),
    ],
)
def test_what_cannot_be_served_is_refused_by_name(options: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Verifiers(**{"heldout_options": {}, **options})  # type: ignore[arg-type]


@pytest.mark.skipif(IS_INSTALLED, reason="the package verifiers is installed")
def test_without_the_package_it_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"needs the package verifiers, 0\.4 or newer"):
        Verifiers(taskset="any", heldout_share=0.5)
