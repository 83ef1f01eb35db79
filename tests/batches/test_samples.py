"""Groups and hints become rows to learn from."""

import dataclasses

import pytest

from sdpo.batches.samples import shaped_reward, shown_hints, training_samples
from sdpo.batches.updates import pack
from sdpo.config import (
    AlgorithmConfig,
    BatchConfig,
    Blend,
    ByGroup,
    ByHint,
    BySuccess,
    BySuccessAndHint,
    Deviation,
    ExternalTeacher,
    GRPOConfig,
    HindsightConfig,
    HintChoice,
    PolicyGradientConfig,
    QuestionWeight,
    SDPOConfig,
    Truncated,
)
from sdpo.hindsight.hints import choose_hints, hint_of
from sdpo.types import Attempt, Completion, Finish, Group, Hint, Message, Ranks, Role, Sample, SetAside, Task, Verdict


class WordCounts:
    """A renderer whose hindsight prompt is the lengths of the task's id and of the demonstration."""

    def prompt(self, task: Task) -> tuple[int, ...]:
        return (len(task.id),)

    def hindsight_prompt(self, task: Task, hint: Hint) -> tuple[int, ...]:
        return (len(task.id), len(hint.of("demonstration") or ""))


def completion(*token_ids: int) -> Completion:
    logprobs = tuple(-token_id / 10 for token_id in token_ids)
    return Completion(token_ids=token_ids, logprobs=logprobs, text="", finish=Finish.stop, weights_version=0)


def attempt(reward: float, *token_ids: int) -> Attempt:
    return Attempt(completion=completion(*token_ids), verdict=Verdict(reward=reward))


def group(task_id: str, *attempts: Attempt, set_aside: tuple[SetAside, ...] = ()) -> Group:
    task = Task(id=task_id, env="sums", messages=(Message(role=Role.user, content="?"),))
    return Group(task=task, prompt_ids=(7, 8, len(task_id)), attempts=attempts, set_aside=set_aside)


HINT = hint_of(demonstration="four", feedback=None)
GROUPS = (group("a", attempt(0.0, 1, 2), attempt(1.0, 3)), group("bb", attempt(0.5, 4, 5, 6), attempt(0.5, 7)))
HINTS = ((HINT, None), (None, None))


def test_every_attempt_becomes_a_sample_also_without_a_hint():
    samples = training_samples(GROUPS, HINTS, WordCounts(), SDPOConfig(), 64)
    assert [sample.response_ids for sample in samples] == [(1, 2), (3,), (4, 5, 6), (7,)]
    assert [sample.sampled_logprobs for sample in samples] == [(-0.1, -0.2), (-0.3,), (-0.4, -0.5, -0.6), (-0.7,)]
    assert [sample.task_index for sample in samples] == [0, 0, 1, 1]
    assert [sample.prompt_ids for sample in samples] == [(7, 8, 1), (7, 8, 1), (7, 8, 2), (7, 8, 2)]
    assert all(sample.loss_mask == (True,) * len(sample.response_ids) for sample in samples)


def test_only_samples_with_a_hint_have_a_hindsight_prompt():
    samples = training_samples(GROUPS, HINTS, WordCounts(), SDPOConfig(), 64)
    assert [sample.teacher_prompt_ids for sample in samples] == [(1, 4), None, None, None]


def test_advantages_are_those_within_the_group():
    samples = training_samples(GROUPS, HINTS, WordCounts(), GRPOConfig(), 64)
    assert [sample.advantage for sample in samples] == [-0.5, 0.5, 0.0, 0.0]


def test_advantages_are_divided_by_the_deviation_if_asked():
    algorithm = GRPOConfig(policy_gradient=PolicyGradientConfig(divide_by_std=True))
    samples = training_samples(GROUPS, HINTS, WordCounts(), algorithm, 64)
    assert [sample.advantage for sample in samples] == pytest.approx([-1.0, 1.0, 0.0, 0.0])


def test_an_empty_completion_is_compared_with_but_not_learned_from():
    samples = training_samples((group("a", attempt(0.0), attempt(1.0, 3)),), ((None, None),), WordCounts(), GRPOConfig(), 64)
    assert [(sample.response_ids, sample.advantage) for sample in samples] == [((3,), 0.5)]


def test_attempts_set_aside_are_neither_learned_from_nor_compared_with():
    broken = SetAside(completion=completion(9), error="Traceback")
    partly = group("a", attempt(0.0, 1), attempt(1.0, 2), set_aside=(broken,))
    samples = training_samples((partly,), ((None, None),), WordCounts(), GRPOConfig(), 64)
    assert [(sample.response_ids, sample.advantage) for sample in samples] == [((1,), -0.5), ((2,), 0.5)]


def test_hints_must_match_the_attempts():
    with pytest.raises(ValueError, match="zip"):
        training_samples(GROUPS, ((HINT,), (None, None)), WordCounts(), SDPOConfig(), 64)
    with pytest.raises(ValueError, match="zip"):
        training_samples(GROUPS, ((HINT, None),), WordCounts(), SDPOConfig(), 64)


def test_no_groups_give_no_samples():
    assert training_samples((), (), WordCounts(), SDPOConfig(), 64) == ()


# Routing: which attempts are distilled, and which get a policy gradient.

FAILED, SOLVED = attempt(0.0, 1), attempt(1.0, 2)
FOUR = group("a", FAILED, FAILED, SOLVED, SOLVED)
"""Failed with and without a hint, solved with and without one."""
FOUR_HINTS = (HINT, None, HINT, None)


def routed(algorithm: AlgorithmConfig) -> list[tuple[float, float]]:
    """Weights of distillation and policy gradient of each of the four."""
    samples = training_samples((FOUR,), (FOUR_HINTS,), WordCounts(), algorithm, 64)
    return [(sample.distillation_weight, sample.policy_gradient_weight) for sample in samples]


def test_grpo_gives_every_attempt_the_policy_gradient_alone():
    assert routed(GRPOConfig()) == [(0.0, 1.0)] * 4


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_blend_gives_every_attempt_both_in_their_shares(share):
    assert routed(SDPOConfig(routing=Blend(policy_gradient_share=share))) == [(1.0 - share, share)] * 4


def test_by_success_the_solved_get_the_policy_gradient_and_the_failed_the_distillation():
    assert routed(SDPOConfig(routing=BySuccess())) == [(1.0, 0.0), (1.0, 0.0), (0.0, 1.0), (0.0, 1.0)]


def test_by_success_and_hint_only_the_failed_who_have_one_get_the_distillation():
    """SRPO: failed attempts without a hint were left out, and go to GRPO."""
    assert routed(SDPOConfig(routing=BySuccessAndHint())) == [(1.0, 0.0), (0.0, 1.0), (0.0, 1.0), (0.0, 1.0)]


def test_by_hint_who_has_one_gets_the_distillation_and_who_has_none_the_policy_gradient():
    assert routed(SDPOConfig(routing=ByHint())) == [(1.0, 0.0), (0.0, 1.0), (1.0, 0.0), (0.0, 1.0)]


def test_by_group_one_whose_rewards_differ_gets_the_policy_gradient_and_one_where_all_are_alike_the_distillation():
    failed, solved = group("a", FAILED, FAILED), group("b", SOLVED, SOLVED)
    algorithm = SDPOConfig(routing=ByGroup())
    samples = training_samples((failed, FOUR, solved), ((HINT, None), FOUR_HINTS, (HINT, HINT)), WordCounts(), algorithm, 64)
    weights = [(sample.distillation_weight, sample.policy_gradient_weight) for sample in samples]
    assert weights == [(1.0, 0.0)] * 2 + [(0.0, 1.0)] * 4 + [(1.0, 0.0)] * 2


def test_an_almost_solved_attempt_is_a_failed_one():
    nearly = group("a", attempt(0.99, 1), attempt(0.0, 2))
    samples = training_samples((nearly,), ((HINT, None),), WordCounts(), SDPOConfig(routing=BySuccess()), 64)
    assert [sample.policy_gradient_weight for sample in samples] == [0.0, 0.0]


class NoRoom(WordCounts):
    """No hint fits beside the question."""

    def hindsight_prompt(self, task: Task, hint: Hint) -> None:
        return None


def test_a_hint_of_which_nothing_is_left_is_none():
    samples = training_samples((FOUR,), (FOUR_HINTS,), NoRoom(), SDPOConfig(routing=ByHint()), 64)
    assert {sample.teacher_prompt_ids for sample in samples} == {None}
    assert {(sample.distillation_weight, sample.policy_gradient_weight) for sample in samples} == {(0.0, 1.0)}


def test_a_hint_counts_where_the_teacher_was_shown_it():
    """hindsight read 1.0 where no hint fitted and nothing was distilled."""
    for renderer, expected in ((WordCounts(), (FOUR_HINTS,)), (NoRoom(), ((None,) * len(FOUR_HINTS),))):
        samples = training_samples((FOUR,), (FOUR_HINTS,), renderer, SDPOConfig(), 64)
        assert shown_hints((FOUR_HINTS,), samples) == expected
    silent = group("a", attempt(1.0), attempt(0.0, 2))
    samples = training_samples((silent,), ((HINT, HINT),), WordCounts(), SDPOConfig(), 64)
    assert shown_hints(((HINT, HINT),), samples) == ((None, HINT),)


def is_distilled(algorithm: AlgorithmConfig) -> list[bool]:
    return [sample.is_distilled for sample in training_samples((FOUR,), (FOUR_HINTS,), WordCounts(), algorithm, 64)]


def test_the_teacher_scores_only_what_is_distilled_and_has_a_hint():
    assert is_distilled(SDPOConfig()) == [True, False, True, False]
    assert is_distilled(SDPOConfig(routing=BySuccess())) == [True, False, False, False]
    assert is_distilled(SDPOConfig(routing=Blend(policy_gradient_share=1.0))) == [False] * 4


def test_without_hindsight_the_teacher_sees_the_students_prompt_for_every_attempt():
    """Generalised knowledge distillation: there is no hint, and no attempt that teaches nothing."""
    algorithm = SDPOConfig(hindsight=HindsightConfig(choice=HintChoice.none), teacher=ExternalTeacher(path="teacher"))
    hints = tuple(choose_hints(one, algorithm.hindsight, "0/0") for one in GROUPS)
    samples = training_samples(GROUPS, hints, NoRoom(), algorithm, 64)
    assert [sample.teacher_prompt_ids for sample in samples] == [sample.prompt_ids for sample in samples]
    assert [sample.distillation_weight for sample in samples] == [1.0] * 4


# Shaping: the last tokens before the length limit cost reward.


@pytest.mark.parametrize(
    ("length", "reward"), [(1, 1.0), (6, 1.0), (7, 0.75), (8, 0.5), (9, 0.25), (10, 0.0), (12, 0.0)], ids=lambda v: str(v)
)
def test_the_last_tokens_before_the_limit_cost_reward_linearly_up_to_one(length, reward):
    config = PolicyGradientConfig(overlong_tokens=4)
    assert shaped_reward(attempt(1.0, *range(length)), config, 10) == pytest.approx(reward)
    assert shaped_reward(attempt(0.5, *range(length)), config, 10) == pytest.approx(reward - 0.5)


def test_without_overlong_tokens_length_costs_nothing():
    assert shaped_reward(attempt(0.5, *range(10)), PolicyGradientConfig(), 10) == 0.5


def test_an_overlong_attempt_is_worse_than_its_sibling_but_no_less_solved():
    """The advantage is of the shaped rewards; what counts as solved is the environment's word."""
    both_solved = group("a", attempt(1.0, *range(5)), attempt(1.0, *range(10)))
    algorithm = SDPOConfig(routing=BySuccess(), policy_gradient=PolicyGradientConfig(overlong_tokens=4))
    samples = training_samples((both_solved,), ((None, None),), WordCounts(), algorithm, 10)
    assert [sample.advantage for sample in samples] == [0.5, -0.5]
    assert [sample.policy_gradient_weight for sample in samples] == [1.0, 1.0]


# Groups whose rewards do not differ.


def weights_of(samples: tuple[Sample, ...]) -> list[float]:
    return [sample.policy_gradient_weight for sample in samples]


def test_uniform_groups_count_unless_they_are_dropped():
    hints = ((None, None), (None, None))
    assert weights_of(training_samples(GROUPS, hints, WordCounts(), GRPOConfig(), 64)) == [1.0, 1.0, 1.0, 1.0]
    dropping = GRPOConfig(policy_gradient=PolicyGradientConfig(drop_uniform_groups=True))
    samples = training_samples(GROUPS, hints, WordCounts(), dropping, 64)
    assert weights_of(samples) == [1.0, 1.0, 0.0, 0.0]
    (update,) = pack(samples, BatchConfig(num_tasks=2), Ranks(num=1, pairs_per_token=100.0), dropping)
    assert (update.num_loss_rows, update.num_loss_tokens) == (2, 2 + 1)


def test_a_dropped_group_is_still_distilled():
    algorithm = SDPOConfig(
        routing=Blend(policy_gradient_share=0.25), policy_gradient=PolicyGradientConfig(drop_uniform_groups=True)
    )
    samples = training_samples((GROUPS[1],), ((HINT, None),), WordCounts(), algorithm, 64)
    assert [(sample.distillation_weight, sample.policy_gradient_weight) for sample in samples] == [(0.75, 0.0)] * 2
    assert [sample.is_distilled for sample in samples] == [True, False]


OVERLONG = PolicyGradientConfig(drop_uniform_groups=True, overlong_tokens=4)
BOTH_FAILED = group("a", attempt(0.0, *range(5)), attempt(0.0, *range(10)))
"""One within the soft limit, one beyond it: shaping makes their rewards differ."""


def test_a_group_is_uniform_by_the_environments_rewards():
    """It was so by those shaped by length: DAPO drops a group that nobody solved, however long its answers are."""
    samples = training_samples((BOTH_FAILED,), ((None, None),), WordCounts(), GRPOConfig(policy_gradient=OVERLONG), 10)
    assert weights_of(samples) == [0.0, 0.0]
    assert len({sample.advantage for sample in samples}) == 2, "kept, they would be told apart by their lengths"


def test_routing_by_group_asks_the_environments_rewards():
    """Two failures of different lengths were taken for a group whose rewards differ, and none of them was distilled."""
    algorithm = SDPOConfig(routing=ByGroup(), policy_gradient=dataclasses.replace(OVERLONG, drop_uniform_groups=False))
    samples = training_samples((BOTH_FAILED,), ((HINT, HINT),), WordCounts(), algorithm, 10)
    assert [sample.is_distilled for sample in samples] == [True, True]


def test_a_group_whose_rewards_differ_by_rounding_is_uniform():
    nearly = group("a", attempt(0.1 + 0.2, 1), attempt(0.3, 2))
    dropping = GRPOConfig(policy_gradient=PolicyGradientConfig(drop_uniform_groups=True, divide_by_std=True))
    samples = training_samples((nearly,), ((None, None),), WordCounts(), dropping, 64)
    assert [(sample.advantage, sample.policy_gradient_weight) for sample in samples] == [(0.0, 0.0)] * 2


def test_either_deviation_can_be_divided_by():
    """Two attempts half a reward from their mean: 0.5 over the population's 0.5, or over the sample's √½."""
    for deviation, expected in ((Deviation.population, 1.0), (Deviation.sample, 0.5**0.5)):
        algorithm = GRPOConfig(policy_gradient=PolicyGradientConfig(divide_by_std=True, deviation=deviation))
        samples = training_samples((GROUPS[0],), ((None, None),), WordCounts(), algorithm, 64)
        assert [sample.advantage for sample in samples] == pytest.approx([-expected, expected])


def test_siblings_hindsight_prompts_are_one_and_the_same_but_for_the_demonstrators():
    """So that the teacher computes what they share once."""

    class Letters(WordCounts):
        def hindsight_prompt(self, task: Task, hint: Hint) -> tuple[int, ...]:
            return tuple(map(ord, f"{hint.of('demonstration')}|{hint.of('feedback')}"))

    solved = [dataclasses.replace(completion(n), text=f"answer {n}") for n in range(3)]
    failed = [dataclasses.replace(completion(n), text="wrong") for n in range(3, 8)]
    attempts = [
        *(Attempt(completion=one, verdict=Verdict(reward=1.0)) for one in solved),
        *(Attempt(completion=one, verdict=Verdict(reward=0.0, feedback=f"wrong since {one.token_ids}")) for one in failed),
    ]
    for seed in range(10):
        mixed = group("a", *attempts)
        samples = training_samples((mixed,), (choose_hints(mixed, HindsightConfig(), f"{seed}"),), Letters(), SDPOConfig(), 64)
        prompts = [sample.teacher_prompt_ids for sample in samples]
        (common,) = set(prompts[3:])
        demonstrators = [index for index, prompt in enumerate(prompts) if prompt != common]
        assert len(demonstrators) == 1
        assert common == tuple(map(ord, f"answer {demonstrators[0]}|None"))


def test_tokens_that_the_environment_wrote_carry_no_loss_and_stay_in_the_row() -> None:
    """Student and teacher both read them: they are in the response, and only the mask leaves them out."""
    spoken = dataclasses.replace(completion(1, 2, 3, 4), own_mask=(True, False, False, True))
    talk = Attempt(completion=spoken, verdict=Verdict(reward=0.0))
    (first, second) = training_samples([group("a", talk, attempt(1.0, 5))], [[HINT, None]], WordCounts(), SDPOConfig(), 64)
    assert first.response_ids == (1, 2, 3, 4)
    assert first.loss_mask == (True, False, False, True)
    assert second.loss_mask == (True,)


# Weights of questions.

WEIGHED = SDPOConfig(question_weight=QuestionWeight.uncertainty)
COURSE = (
    group("half", attempt(0.0, 1), attempt(1.0, 2)),
    group("never", attempt(0.0, 3), attempt(0.9, 4)),
    group("always", attempt(1.0, 5), attempt(1.0, 6)),
    group("a quarter", attempt(0.0, 7), attempt(0.0, 8), attempt(0.0, 9), attempt(1.0, 10)),
    group("unhinted", attempt(0.0, 11), attempt(1.0, 12)),
)
COURSE_HINTS = ((HINT, None), (HINT, HINT), (HINT, HINT), (HINT,) * 4, (None, None))


def distillation_of(samples: tuple[Sample, ...]) -> dict[int, float]:
    """Each task's weight, which all of its attempts have."""
    found = {sample.task_index: sample.distillation_weight for sample in samples}
    assert all(sample.distillation_weight == found[sample.task_index] for sample in samples)
    return found


def test_a_task_counts_by_the_deviation_of_being_solved():
    weights = distillation_of(training_samples(COURSE, COURSE_HINTS, WordCounts(), WEIGHED, 64))
    assert weights[0] / weights[3] == pytest.approx((0.5 * 0.5) ** 0.5 / (0.25 * 0.75) ** 0.5)
    assert (weights[1], weights[2]) == (0.0, 0.0)


def test_the_mean_weight_of_the_tasks_that_are_distilled_is_one():
    """Those without a hint have no part in it, however uncertain they are."""
    samples = training_samples(COURSE, COURSE_HINTS, WordCounts(), WEIGHED, 64)
    distilled = {sample.task_index for sample in samples if sample.is_distilled}
    weights = distillation_of(samples)
    assert distilled == {0, 3}
    assert sum(weights[index] for index in distilled) / len(distilled) == pytest.approx(1.0)
    blended = training_samples(
        COURSE, COURSE_HINTS, WordCounts(), dataclasses.replace(WEIGHED, routing=Blend(policy_gradient_share=0.5)), 64
    )
    assert distillation_of(blended) == pytest.approx({index: 0.5 * weight for index, weight in weights.items()})
    assert weights_of(blended) == [0.5] * len(blended)


def test_a_step_of_certain_tasks_distils_nothing():
    samples = training_samples(COURSE[1:3], COURSE_HINTS[1:3], WordCounts(), WEIGHED, 64)
    assert not any(sample.is_distilled for sample in samples)
    (update,) = pack(samples, BatchConfig(num_tasks=2), Ranks(num=1, pairs_per_token=100.0), WEIGHED)
    assert (update.num_distilled_tokens, update.num_learned_rows) == (0, 0)


def test_tasks_that_are_equally_uncertain_count_as_they_would_without_weights():
    halves = (COURSE[0], COURSE[0])
    assert training_samples(halves, (COURSE_HINTS[0],) * 2, WordCounts(), WEIGHED, 64) == training_samples(
        halves, (COURSE_HINTS[0],) * 2, WordCounts(), SDPOConfig(), 64
    )


# Responses that the length limit has cut off.


def cut_off(reward: float, *token_ids: int) -> Attempt:
    one = attempt(reward, *token_ids)
    return dataclasses.replace(one, completion=dataclasses.replace(one.completion, finish=Finish.length))


CUT = group("a", attempt(1.0, 1, 2), cut_off(0.0, 3, 4, 5), attempt(0.0, 6))
CUT_HINTS = ((None, HINT, HINT),)


def test_a_response_that_was_cut_off_is_learned_from_like_others_unless_it_is_said():
    samples = training_samples((CUT,), CUT_HINTS, WordCounts(), SDPOConfig(), 64)
    assert [(sample.is_distilled, sum(sample.loss_mask)) for sample in samples] == [(False, 2), (True, 3), (True, 1)]


def test_a_masked_response_carries_no_loss_and_is_still_part_of_its_groups_baseline():
    """As TRL's ``mask_truncated_completions`` has it: the mean of a group counts it, the tokens of a loss do not."""
    samples = training_samples((CUT,), CUT_HINTS, WordCounts(), GRPOConfig(truncated=Truncated.mask), 64)
    assert [sample.advantage for sample in samples] == pytest.approx([2 / 3, -1 / 3, -1 / 3])
    assert [sample.loss_mask for sample in samples] == [(True, True), (False, False, False), (True,)]
    (update,) = pack(samples, BatchConfig(num_tasks=1), Ranks(num=1, pairs_per_token=100.0), GRPOConfig())
    assert (update.num_loss_tokens, update.num_loss_rows, update.num_learned_rows) == (3, 3, 2)


def test_a_response_that_is_left_out_is_no_part_of_the_baseline_either():
    samples = training_samples((CUT,), CUT_HINTS, WordCounts(), GRPOConfig(truncated=Truncated.leave_out), 64)
    assert [(sample.attempt_index, sample.advantage) for sample in samples] == [(0, 0.5), (2, -0.5)]
    (update,) = pack(samples, BatchConfig(num_tasks=1), Ranks(num=1, pairs_per_token=100.0), GRPOConfig())
    assert (update.num_loss_tokens, update.num_loss_rows, update.num_learned_rows) == (3, 2, 2)


@pytest.mark.parametrize("truncated", [Truncated.mask, Truncated.leave_out], ids=lambda truncated: truncated.value)
def test_a_response_that_was_cut_off_is_not_distilled_and_no_hint_is_shown_for_it(truncated: Truncated):
    samples = training_samples((CUT,), CUT_HINTS, WordCounts(), SDPOConfig(truncated=truncated), 64)
    assert [sample.attempt_index for sample in samples if sample.is_distilled] == [2]
    assert shown_hints(CUT_HINTS, samples) == ((None, None, HINT),)
    (update,) = pack(samples, BatchConfig(num_tasks=1), Ranks(num=1, pairs_per_token=100.0), SDPOConfig())
    assert (update.num_distilled_tokens, update.num_learned_rows) == (1, 1)


def test_a_group_whose_others_are_alike_is_uniform_only_where_the_one_that_was_cut_off_is_left_out():
    alike = group("a", attempt(1.0, 1, 2), cut_off(0.0, 3, 4, 5), attempt(1.0, 6))
    masked, left_out = (
        training_samples((alike,), ((None, None, None),), WordCounts(), SDPOConfig(routing=ByGroup(), truncated=how), 64)
        for how in (Truncated.mask, Truncated.leave_out)
    )
    assert weights_of(masked) == [1.0, 1.0, 1.0]
    assert weights_of(left_out) == [0.0, 0.0]


def test_a_group_that_was_cut_off_as_a_whole_teaches_nothing():
    whole = group("a", cut_off(0.0, 1), cut_off(1.0, 2))
    for how in (Truncated.mask, Truncated.leave_out):
        samples = training_samples((whole,), ((HINT, HINT),), WordCounts(), SDPOConfig(truncated=how), 64)
        (update,) = pack(samples, BatchConfig(num_tasks=1), Ranks(num=1, pairs_per_token=100.0), SDPOConfig())
        assert (update.num_learned_rows, update.num_distilled_tokens) == (0, 0)
