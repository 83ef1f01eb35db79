"""Every logged number: declared once, and computed by hand on a few attempts."""

import math
from dataclasses import replace

import pytest

from sdpo.evaluation.heldout import heldout_metrics
from sdpo.hindsight.hints import hint_of
from sdpo.metrics import ENVIRONMENT_PREFIX, METRICS, Reduction, distinct_share, of_draw, of_groups, of_versions, reduce
from sdpo.types import Attempt, Completion, Draw, Finish, Group, Message, Role, SetAside, Task, Tried, Verdict

TASK = Task(id="sums/1", env="sums", messages=(Message(role=Role.user, content="?"),))


def completion(num_tokens: int, finish: Finish = Finish.stop) -> Completion:
    return Completion(token_ids=(1,) * num_tokens, logprobs=(-1.0,) * num_tokens, text="", finish=finish, weights_version=0)


def attempt(reward: float, num_tokens: int = 1, finish: Finish = Finish.stop, **metrics: float) -> Attempt:
    return Attempt(completion=completion(num_tokens, finish), verdict=Verdict(reward=reward, metrics=metrics))


def group(*attempts: Attempt, num_set_aside: int = 0) -> Group:
    broken = (SetAside(completion=completion(1), error="Traceback"),) * num_set_aside
    return Group(task=TASK, prompt_ids=(1,), attempts=attempts, set_aside=broken)


SHOWN, TOLD = hint_of(demonstration="four", feedback=None), hint_of(demonstration=None, feedback="off by one")
RECALLED = hint_of(demonstration="four", feedback=None, is_remembered=True)
GROUPS = (
    group(attempt(1.0, 2, format_ok=1.0), attempt(0.5, 6, Finish.length, format_ok=0.0), num_set_aside=1),
    group(attempt(0.0, 4, loads_ok=0.25), attempt(0.0, 4)),
    group(attempt(1.0, 4), attempt(1.0, 4)),
    group(num_set_aside=2),
)
HINTS = ((None, SHOWN), (TOLD, TOLD), (RECALLED, hint_of(demonstration="four", feedback="neat")), ())


def test_numbers_of_a_step_are_those_by_hand():
    assert of_groups(GROUPS, HINTS) == pytest.approx(
        {
            "success": 3 / 6,
            "reward": 3.5 / 6,
            "hindsight": 5 / 6,
            "hindsight/demonstration": 3 / 6,
            "hindsight/remembered": 1 / 6,
            "hindsight/feedback": 3 / 6,
            "groups/all_failed": 1 / 3,
            "groups/all_solved": 1 / 3,
            "attempts": 6.0,
            "set_aside": 3.0,
            "answers/distinct": 0.5,
            "response_tokens": 4.0,
            "truncated": 1 / 6,
            "env/format_ok": 0.5,
            "env/loads_ok": 0.25,
        }
    )


def test_answers_are_distinct_within_their_task_and_right_ones_count_too():
    """Three answers of which two are alike but for white space, and one alone; a task without attempts says nothing."""

    def said(*texts: str) -> Group:
        return group(*(replace(attempt(1.0), completion=replace(completion(1), text=text)) for text in texts))

    assert distinct_share([said("a", " a\n", "b"), said("a"), group(num_set_aside=1)]) == pytest.approx((2 / 3 + 1) / 2)
    assert distinct_share([]) == 0.0


def sampled_by(num_tokens: int, *versions: tuple[int, int]) -> Attempt:
    oldest = min(version for version, _ in versions)
    runs = versions if len(versions) > 1 else ()
    return replace(attempt(1.0), completion=replace(completion(num_tokens), weights_version=oldest, versions=runs))


def test_staleness_is_the_age_of_the_weights_in_steps_over_the_policys_tokens():
    """By hand: ages 0 of two tokens, 2 and 1 of three and one, 1 of two."""
    groups = (group(sampled_by(2, (7, 2)), sampled_by(4, (5, 3), (6, 1))), group(sampled_by(2, (6, 2))))
    assert of_versions(groups, 7) == {"staleness": (0 * 2 + 2 * 3 + 1 * 1 + 1 * 2) / 8, "staleness/max": 2.0}
    assert of_versions((group(num_set_aside=1),), 7) == {"staleness": 0.0, "staleness/max": 0.0}


def test_a_step_without_attempts_has_numbers_too():
    nothing = of_groups((group(num_set_aside=2),), ((),))
    assert nothing.pop("set_aside") == 2.0
    assert set(nothing.values()) == {0.0}
    assert not any(math.isnan(value) for value in of_groups((), ()).values())


def test_every_number_of_a_step_and_of_an_evaluation_is_declared():
    named = {*of_groups(GROUPS, HINTS), *of_versions(GROUPS, 1), *heldout_metrics(GROUPS)}
    assert {name for name in named if not name.startswith(ENVIRONMENT_PREFIX)} <= METRICS.keys()


def test_every_declaration_has_a_unit_and_a_meaning():
    assert [name for name, metric in METRICS.items() if not metric.unit or not metric.meaning] == []


def test_no_declared_name_is_an_environments():
    assert [name for name in METRICS if name.startswith(ENVIRONMENT_PREFIX)] == []


def test_updates_are_reduced_as_declared():
    assert METRICS["loss"].reduction is Reduction.mean
    assert METRICS["updates"].reduction is Reduction.sum
    assert METRICS["lr"].reduction is Reduction.last
    updates = [{"loss": 1.0, "updates": 1.0, "lr": 1e-6}, {"loss": 2.0, "updates": 1.0, "lr": 2e-6}]
    assert reduce(updates) == {"loss": 1.5, "updates": 2.0, "lr": 2e-6}


def test_a_mean_is_over_the_updates_that_have_the_number():
    """An update without samples has no loss; it must not count as a loss of zero."""
    assert reduce([{"loss": 1.0, "updates": 1.0}, {"updates_without_samples": 1.0}]) == {
        "loss": 1.0,
        "updates": 1.0,
        "updates_without_samples": 1.0,
    }


def test_no_updates_give_no_numbers():
    assert reduce([]) == {}


def test_an_undeclared_number_is_refused():
    with pytest.raises(KeyError, match="surprise"):
        reduce([{"surprise": 1.0}])


def test_what_was_replaced_is_counted_beside_what_is_learned_from():
    tried = (
        Tried(task="a", rewards=(0.0, 0.0), num_set_aside=1, is_replaced=True),
        Tried(task="b", rewards=(1.0, 1.0, 1.0), is_replaced=True),
        Tried(task="c", rewards=(0.0, 1.0, 0.0)),
        Tried(task="d", rewards=(0.0, 0.0, 0.0)),
    )
    assert of_draw(Draw(tried=tried, num_without_signal=1, numbers={"tasks/tried": 0.5})) == {
        "tasks/tried": 0.5,
        "groups/replaced": 2.0,
        "groups/without_signal": 0.5,
        "success/sampled": 4 / 11,
        "attempts/replaced": 6.0,
    }
    assert of_draw(Draw(tried=tried, num_without_signal=None, numbers={})) == {}
