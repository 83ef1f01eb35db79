"""A task's latest demonstrations, the same after a kill as before it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sdpo.config import HindsightConfig, SDPOConfig, TrackingConfig
from sdpo.errors import UserError
from sdpo.hindsight.success_buffer import NOTHING_REMEMBERED, SuccessBuffer, remembered
from sdpo.run.folder import RunFolder
from sdpo.tracking.tracker import Tracker
from sdpo.types import Attempt, Completion, Finish, Group, Message, Role, SetAside, Task, Verdict

KEEPS_TWO = SDPOConfig(hindsight=HindsightConfig(success_buffer=2))


def completion(text: str, *said: Message) -> Completion:
    mask = (True,) if said else None
    return Completion(
        token_ids=(1,), logprobs=(-0.5,), text=text, finish=Finish.stop, weights_version=0, own_mask=mask, turns=said
    )


def attempt(text: str, reward: float, *said: Message) -> Attempt:
    return Attempt(completion=completion(text, *said), verdict=Verdict(reward=reward))


def group(task_id: str, *attempts: Attempt) -> Group:
    task = Task(id=task_id, env="sums", messages=(Message(role=Role.user, content="?"),))
    return Group(task=task, prompt_ids=(1,), attempts=attempts, set_aside=(SetAside(completion=completion("b"), error="T"),))


def said(role: Role, content: str) -> Message:
    return Message(role=role, content=content)


TALK = attempt(
    "<think>hm</think>two\n\nfour", 1.0,
    said(Role.assistant, "<think>hm</think>two"), said(Role.user, "no"), said(Role.assistant, "four"),
)  # fmt: skip
STEPS = (
    (group("a", attempt("1", 1.0), attempt("wrong", 0.0)), group("b", attempt("<think>only", 1.0), attempt("half", 0.5))),
    (group("a", attempt("2", 1.0), attempt("<think>so</think> 3 \u2028\x85\ud800", 1.0)), group("c", TALK)),
    (group("a", attempt("2", 1.0)), group("a", attempt("1", 0.0))),
)
"""Texts with and without thinking, a conversation, characters that end lines for some and that no encoding has."""


def after(steps: int, config: SDPOConfig = KEEPS_TWO) -> SuccessBuffer:
    buffer = remembered(config, ())
    for groups in STEPS[:steps]:
        buffer.remember(groups)
    return buffer


def test_the_latest_are_kept_each_text_once_and_without_its_thinking():
    assert after(1).of("a") == ("1",)
    assert after(2).of("a") == ("2", "3 \u2028\x85\ud800")
    assert after(3).of("a") == ("3 \u2028\x85\ud800", "2")
    assert after(3, SDPOConfig(hindsight=HindsightConfig(success_buffer=1))).of("a") == ("2",)


def test_what_does_not_demonstrate_is_not_remembered():
    """A worthless answer, an unfinished thought, an answer below the reward that demonstrates."""
    assert after(3).of("b") == ()
    assert after(3, SDPOConfig(hindsight=HindsightConfig(success_buffer=2, demonstration_reward=0.5))).of("b") == ("half",)
    assert after(3).of("unheard of") == ()


def test_a_conversation_is_remembered_whole():
    assert after(3).of("c") == ("two\n\n[the reply] no\n\nfour",)


def test_a_buffer_of_size_nothing_remembers_nothing():
    NOTHING_REMEMBERED.remember(STEPS[0])
    assert NOTHING_REMEMBERED.of("a") == after(3, SDPOConfig()).of("a") == ()


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A run that wrote the rollouts of all steps."""
    run = RunFolder(tmp_path)
    run.rollouts.mkdir()
    tracker = Tracker(run, TrackingConfig(tensorboard=False))
    for step, groups in enumerate(STEPS, start=1):
        tracker.rollouts(step, groups, [[None] * len(one.attempts) for one in groups])
    return run


@pytest.mark.parametrize("step", range(len(STEPS) + 1))
def test_a_continued_run_remembers_what_an_uninterrupted_one_would(step: int, folder: RunFolder):
    for config in (KEEPS_TWO, SDPOConfig(hindsight=HindsightConfig(success_buffer=9, demonstration_reward=0.5))):
        found = remembered(config, folder.rollouts_up_to(step))
        assert [found.of(name) for name in "abc"] == [after(step, config).of(name) for name in "abc"]


def test_a_step_whose_rollouts_are_gone_or_broken_is_refused_by_its_file(folder: RunFolder):
    file = folder.rollouts_of(2)
    for text in ("{", json.dumps({"reward": 1.0}) + "\n", "[]", "{}", "3", None):
        file.unlink(missing_ok=True)
        if text is not None:
            file.write_text(text)
        with pytest.raises(UserError, match=r"success_buffer.*step_000002\.jsonl cannot be read"):
            remembered(KEEPS_TWO, folder.rollouts_up_to(3))
        remembered(SDPOConfig(), folder.rollouts_up_to(3))
