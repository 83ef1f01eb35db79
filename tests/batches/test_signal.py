"""Which groups teach anything."""

from __future__ import annotations

import itertools

import pytest

from sdpo.batches.samples import training_samples
from sdpo.batches.signal import has_signal
from sdpo.config import (
    AlgorithmConfig,
    Auxiliary,
    Blend,
    ByGroup,
    ByHint,
    BySuccess,
    BySuccessAndHint,
    ExternalTeacher,
    GRPOConfig,
    HindsightConfig,
    HintChoice,
    PolicyGradientConfig,
    QuestionWeight,
    SDPOConfig,
)
from sdpo.hindsight.hints import choose_hints, hint_of
from sdpo.types import Attempt, Group, Hint, Task, Verdict
from tests.batches.test_samples import WordCounts, attempt, completion, group

ALGORITHMS = [
    GRPOConfig(),
    GRPOConfig(policy_gradient=PolicyGradientConfig(drop_uniform_groups=True)),
    SDPOConfig(),
    SDPOConfig(hindsight=HindsightConfig(solved_get_hints=False)),
    SDPOConfig(hindsight=HindsightConfig(choice=HintChoice.feedback_only)),
    SDPOConfig(question_weight=QuestionWeight.uncertainty),
    SDPOConfig(teacher=ExternalTeacher(path="another"), hindsight=HindsightConfig(choice=HintChoice.none)),
    *(SDPOConfig(routing=routing) for routing in (Blend(policy_gradient_share=0.5), BySuccess(), ByHint(), ByGroup())),
    SDPOConfig(routing=BySuccessAndHint()),
    SDPOConfig(routing=Auxiliary(), loss="evidence"),
    SDPOConfig(teacher=ExternalTeacher(path="another"), hindsight=HindsightConfig(choice=HintChoice.none), routing=ByHint()),
]


def told(reward: float, feedback: str | None, *token_ids: int) -> Attempt:
    return Attempt(completion=completion(*token_ids), verdict=Verdict(reward=reward, feedback=feedback))


def hints(group: Group, algorithm: AlgorithmConfig) -> tuple[Hint | None, ...]:
    return (None,) * len(group.attempts) if algorithm.hints is None else choose_hints(group, algorithm.hints, "0")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_group_has_signal_where_one_of_its_samples_carries_a_gradient(algorithm: AlgorithmConfig) -> None:
    for rewards in itertools.product((0.0, 0.5, 1.0), repeat=3):
        for feedback in (None, "no"):
            one = group(
                "a", *(told(reward, feedback if reward < 1.0 else None, 1 + place) for place, reward in enumerate(rewards))
            )
            hints_G = hints(one, algorithm)
            samples = training_samples((one,), (hints_G,), WordCounts(), algorithm, 64)  # type: ignore[arg-type]
            distils = getattr(algorithm, "loss", "") != "evidence"  # which adds no loss of its own
            carries = any(
                (distils and s.is_distilled) or (s.policy_gradient_weight != 0.0 and s.advantage != 0.0) for s in samples
            )
            assert has_signal(one, hints_G, algorithm, WordCounts()) is carries, (rewards, feedback)  # type: ignore[arg-type]


def test_length_makes_no_difference_between_attempts_that_the_environment_rewards_alike() -> None:
    """A reward that is shaped by length differs in every group of truncated attempts, though all of them failed."""
    algorithm = GRPOConfig(policy_gradient=PolicyGradientConfig(overlong_tokens=4))
    one = group("a", attempt(0.0, 1, 2, 3, 4), attempt(0.0, 1))
    assert not has_signal(one, (None, None), algorithm, WordCounts())  # type: ignore[arg-type]


def test_rewards_that_differ_by_a_rounding_are_alike() -> None:
    one = group("a", attempt(0.1 + 0.2, 1), attempt(0.3, 2), attempt(0.3, 3))
    assert not has_signal(one, (None,) * 3, GRPOConfig(), WordCounts())  # type: ignore[arg-type]


def test_attempts_that_said_nothing_and_groups_that_were_set_aside_have_none() -> None:
    assert not has_signal(group("a"), (), GRPOConfig(), WordCounts())  # type: ignore[arg-type]
    assert not has_signal(group("a", attempt(0.0), attempt(1.0)), (None, None), GRPOConfig(), WordCounts())  # type: ignore[arg-type]


def test_a_hint_of_which_nothing_fits_is_none() -> None:
    class Narrow(WordCounts):
        def hindsight_prompt(self, task: Task, hint: Hint) -> None:  # type: ignore[override]
            return None

    one = group("a", attempt(0.0, 1), attempt(1.0, 2))
    assert not has_signal(one, (hint_of(demonstration="four"), None), SDPOConfig(), Narrow())  # type: ignore[arg-type]
    # By its routing an attempt without a hint has the policy gradient: such groups were thrown away.
    by_hint = SDPOConfig(routing=ByHint())
    assert has_signal(one, (hint_of(demonstration="four"), None), by_hint, Narrow())  # type: ignore[arg-type]
