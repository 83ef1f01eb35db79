"""What the constructors refuse, and the few properties of the types."""

import dataclasses
import math

import pytest

from sdpo.hindsight.hints import hint_of
from sdpo.types import (
    Completion,
    Finish,
    Message,
    Role,
    Sample,
    Task,
    Verdict,
    joined_versions,
)

USER, ASSISTANT = Message(role=Role.user, content="2 + 2?"), Message(role=Role.assistant, content="4")
SAMPLE = Sample(
    prompt_ids=(1, 2),
    teacher_prompt_ids=(3,),
    response_ids=(4, 5),
    loss_mask=(True, False),
    sampled_logprobs=(-0.1, -0.2),
    advantage=0.5,
)


@pytest.mark.parametrize("messages", [(), (USER, ASSISTANT), (Message(role=Role.system, content="Add."),)])
def test_a_task_ends_with_the_users_message(messages):
    with pytest.raises(ValueError, match=r"last message must be the user's.*'sums/1'"):
        Task(id="sums/1", env="sums", messages=messages)


def test_a_task_may_hold_a_conversation():
    assert Task(id="sums/1", env="sums", messages=(USER, ASSISTANT, USER)).messages[-1] is USER


@pytest.mark.parametrize("logprobs", [(), (-0.1,), (-0.1, -0.2, -0.3)])
def test_a_completion_has_one_logprob_a_token(logprobs):
    with pytest.raises(ValueError, match=f"got {len(logprobs)} for 2 tokens"):
        Completion(token_ids=(1, 2), logprobs=logprobs, text="", finish=Finish.stop, weights_version=0)


@pytest.mark.parametrize(
    ("versions", "message"),
    [
        (((3, 1),), "must cover the 2 tokens of the policy"),
        (((3, 2), (4, 1)), "must cover the 2 tokens of the policy"),
        (((3, 2), (4, 0)), "in runs of at least one"),
        (((4, 1), (5, 1)), "weights_version is the oldest of its versions; got 3"),
    ],
)
def test_a_completions_versions_cover_what_the_policy_said_and_the_oldest_is_its_own(versions, message):
    with pytest.raises(ValueError, match=message):
        completion(versions=versions)


def completion(**changed):
    """Of three tokens, the middle one the environment's."""
    said = {"token_ids": (1, 2, 3), "logprobs": (-0.1, 0.0, -0.3), "own_mask": (True, False, True)}
    return Completion(**{**said, "text": "", "finish": Finish.stop, "weights_version": 3, **changed})


def test_a_completion_knows_the_version_of_every_token_of_the_policy():
    assert completion().version_runs == ((3, 2),)
    assert completion(versions=((3, 1), (4, 1))).version_runs == ((3, 1), (4, 1))
    assert completion(own_mask=None).num_own_tokens == 3


@pytest.mark.parametrize(
    ("runs", "joined"),
    [
        ([], ()),
        ([(3, 2)], ()),
        ([(3, 2), (3, 1)], ()),
        ([(3, 2), (4, 0)], ()),
        ([(3, 2), (4, 1), (4, 2)], ((3, 2), (4, 3))),
        ([(3, 1), (4, 1), (3, 1)], ((3, 1), (4, 1), (3, 1))),
    ],
)
def test_runs_of_one_version_are_joined_and_one_version_alone_needs_none(runs, joined):
    assert joined_versions(runs) == joined


@pytest.mark.parametrize("reward", [-0.01, 1.01, math.nan, math.inf, -math.inf])
def test_a_reward_lies_between_0_and_1(reward):
    with pytest.raises(ValueError, match=f"got {reward!r}"):
        Verdict(reward=reward)


@pytest.mark.parametrize(("reward", "is_solved"), [(0.0, False), (0.999, False), (1.0, True), (1, True)])
def test_solved_is_the_full_reward(reward, is_solved):
    assert Verdict(reward=reward).is_solved is is_solved


def test_a_hint_says_something():
    with pytest.raises(ValueError, match="demonstration or feedback"):
        hint_of(demonstration=None, feedback=None)


@pytest.mark.parametrize(
    ("demonstration", "feedback", "source"),
    [
        ("four", None, "demonstration"),
        (None, "off by one", "feedback"),
        ("four", "off by one", "both"),
    ],
)
def test_source_of_a_hint_is_what_it_holds(demonstration, feedback, source):
    assert hint_of(demonstration=demonstration, feedback=feedback).kind == source


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"loss_mask": (True,)}, "got 2 tokens, 1 masks, 2 logprobs"),
        ({"sampled_logprobs": (-0.1, -0.2, -0.3)}, "got 2 tokens, 2 masks, 3 logprobs"),
        ({"response_ids": (4,)}, "got 1 tokens, 2 masks, 2 logprobs"),
        ({"response_ids": (), "loss_mask": (), "sampled_logprobs": ()}, "at least one prompt token and one response"),
        ({"prompt_ids": ()}, "at least one prompt token and one response"),
    ],
)
def test_a_sample_has_a_mask_and_a_logprob_for_each_of_its_tokens(changed, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SAMPLE, **changed)


def test_a_hindsight_prompt_is_absent_or_holds_a_token():
    """The first response token is predicted by the last prompt token: without one the row's hidden states are misaligned."""
    with pytest.raises(ValueError, match="prompt token"):
        dataclasses.replace(SAMPLE, teacher_prompt_ids=())


@pytest.mark.parametrize(
    ("changed", "is_distilled"),
    [
        ({}, True),
        ({"distillation_weight": 0.25}, True),
        ({"distillation_weight": 0.0}, False),
        ({"teacher_prompt_ids": None}, False),
        ({"teacher_prompt_ids": None, "distillation_weight": 0.0}, False),
        ({"policy_gradient_weight": 1.0}, True),
    ],
)
def test_the_teacher_scores_what_has_a_hindsight_prompt_and_a_weight(changed, is_distilled):
    assert dataclasses.replace(SAMPLE, **changed).is_distilled is is_distilled


def test_a_row_is_distilled_and_has_no_policy_gradient_unless_it_says_otherwise():
    assert (SAMPLE.distillation_weight, SAMPLE.policy_gradient_weight) == (1.0, 0.0)


@pytest.mark.parametrize("changed", [{}, {"policy_gradient_weight": 1.0}])
def test_a_supervised_row_carries_no_other_loss(changed):
    """No engine sampled it: its log-probabilities are placeholders, and would weigh the other losses."""
    plain = dataclasses.replace(SAMPLE, teacher_prompt_ids=None)
    assert dataclasses.replace(plain, supervised_weight=1.0).is_distilled is False
    with pytest.raises(ValueError, match="a supervised sample carries no distillation and no policy gradient"):
        dataclasses.replace(plain if changed else SAMPLE, supervised_weight=1.0, **changed)


def test_values_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        SAMPLE.advantage = 1.0
