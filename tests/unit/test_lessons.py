"""Groups and hints become rows to learn from."""

import pytest

from sdpo.config import GRPOConfig, PolicyGradientConfig, SDPOConfig
from sdpo.lessons import lessons
from sdpo.types import Attempt, Completion, Finish, Group, Hint, Message, Role, SetAside, Task, Verdict


class WordCounts:
    """A renderer whose hindsight prompt is the lengths of the task's id and of the demonstration."""

    def prompt(self, task: Task) -> tuple[int, ...]:
        return (len(task.id),)

    def hindsight_prompt(self, task: Task, hint: Hint) -> tuple[int, ...]:
        return (len(task.id), len(hint.demonstration or ""))


def completion(*token_ids: int) -> Completion:
    logprobs = tuple(-token_id / 10 for token_id in token_ids)
    return Completion(token_ids=token_ids, logprobs=logprobs, text="", finish=Finish.stop, weights_version=0)


def attempt(reward: float, *token_ids: int) -> Attempt:
    return Attempt(completion=completion(*token_ids), verdict=Verdict(reward=reward))


def group(task_id: str, *attempts: Attempt, set_aside: tuple[SetAside, ...] = ()) -> Group:
    task = Task(id=task_id, env="sums", messages=(Message(role=Role.user, content="?"),))
    return Group(task=task, prompt_ids=(7, 8, len(task_id)), attempts=attempts, set_aside=set_aside)


HINT = Hint(demonstration="four", feedback=None)
GROUPS = (group("a", attempt(0.0, 1, 2), attempt(1.0, 3)), group("bb", attempt(0.5, 4, 5, 6), attempt(0.5, 7)))
HINTS = ((HINT, None), (None, None))


def test_every_attempt_becomes_a_sample_also_without_a_hint():
    samples = lessons(GROUPS, HINTS, WordCounts(), SDPOConfig())
    assert [sample.response_ids for sample in samples] == [(1, 2), (3,), (4, 5, 6), (7,)]
    assert [sample.sampled_logprobs for sample in samples] == [(-0.1, -0.2), (-0.3,), (-0.4, -0.5, -0.6), (-0.7,)]
    assert [sample.task_index for sample in samples] == [0, 0, 1, 1]
    assert [sample.prompt_ids for sample in samples] == [(7, 8, 1), (7, 8, 1), (7, 8, 2), (7, 8, 2)]
    assert all(sample.loss_mask == (True,) * len(sample.response_ids) for sample in samples)


def test_only_samples_with_a_hint_have_a_hindsight_prompt():
    samples = lessons(GROUPS, HINTS, WordCounts(), SDPOConfig())
    assert [sample.teacher_prompt_ids for sample in samples] == [(1, 4), None, None, None]


def test_advantages_are_those_within_the_group():
    samples = lessons(GROUPS, HINTS, WordCounts(), GRPOConfig())
    assert [sample.advantage for sample in samples] == [-0.5, 0.5, 0.0, 0.0]


def test_advantages_are_divided_by_the_deviation_if_asked():
    algorithm = GRPOConfig(policy_gradient=PolicyGradientConfig(divide_by_std=True))
    samples = lessons(GROUPS, HINTS, WordCounts(), algorithm)
    assert [sample.advantage for sample in samples] == pytest.approx([-1.0, 1.0, 0.0, 0.0])


def test_an_empty_completion_is_compared_with_but_not_learned_from():
    samples = lessons((group("a", attempt(0.0), attempt(1.0, 3)),), ((None, None),), WordCounts(), GRPOConfig())
    assert [(sample.response_ids, sample.advantage) for sample in samples] == [((3,), 0.5)]


def test_attempts_set_aside_are_neither_learned_from_nor_compared_with():
    broken = SetAside(completion=completion(9), error="Traceback")
    partly = group("a", attempt(0.0, 1), attempt(1.0, 2), set_aside=(broken,))
    samples = lessons((partly,), ((None, None),), WordCounts(), GRPOConfig())
    assert [(sample.response_ids, sample.advantage) for sample in samples] == [((1,), -0.5), ((2,), 0.5)]


def test_hints_must_match_the_attempts():
    with pytest.raises(ValueError, match="zip"):
        lessons(GROUPS, ((HINT,), (None, None)), WordCounts(), SDPOConfig())
    with pytest.raises(ValueError, match="zip"):
        lessons(GROUPS, ((HINT, None),), WordCounts(), SDPOConfig())


def test_no_groups_give_no_lessons():
    assert lessons((), (), WordCounts(), SDPOConfig()) == ()
