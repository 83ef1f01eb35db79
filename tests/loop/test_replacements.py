"""Groups without signal are replaced by others: which, how often, and what a killed run has of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from sdpo.config import (
    AlgorithmConfig,
    BatchConfig,
    Blend,
    EvaluationConfig,
    GRPOConfig,
    RolloutConfig,
    SDPOConfig,
    TaskOrderConfig,
)
from sdpo.errors import UserError
from sdpo.types import Attempt, Completion, Group, Prompt, SetAside, Task, Verdict
from tests.loop.fakes import FakeVerifier, task
from tests.loop.run import Run
from tests.loop.test_generation import Counting, Killed

TASKS = tuple(task(f"{kind} {number}") for number in range(8) for kind in ("mixed", "hopeless", "trivial"))
BATCH = BatchConfig(num_tasks=3, group_size=4)
NO_EVALUATION = EvaluationConfig(num_tasks=0)


@dataclass
class ByKind(FakeVerifier):
    """Every second attempt at a mixed task is solved; of others all, or none, and nothing is said of those."""

    def verify(
        self, tasks_P: Sequence[Task], completions: Iterable[tuple[Prompt, Completion]]
    ) -> Iterator[tuple[Prompt, Attempt | SetAside]]:
        for prompt, completion in completions:
            kind = tasks_P[prompt.task_index].id.split()[0]
            solved = prompt.attempt_index % 2 == 0 if kind == "mixed" else kind == "trivial"
            yield prompt, Attempt(completion=completion, verdict=Verdict(reward=float(solved)))


@dataclass
class Critic(ByKind):
    """Says something of each failure."""

    def verify(
        self, tasks_P: Sequence[Task], completions: Iterable[tuple[Prompt, Completion]]
    ) -> Iterator[tuple[Prompt, Attempt | SetAside]]:
        for prompt, outcome in super().verify(tasks_P, completions):
            assert isinstance(outcome, Attempt)
            feedback = None if outcome.verdict.is_solved else "no"
            yield (
                prompt,
                Attempt(completion=outcome.completion, verdict=Verdict(reward=outcome.verdict.reward, feedback=feedback)),
            )


def replacing(
    algorithm: AlgorithmConfig, *, verifier: type[FakeVerifier] = ByKind, staleness: int = 0, **settings: object
) -> Run:
    settings = {"batch": BATCH, "tasks": TASKS, "heldout": (), "evaluation": NO_EVALUATION, **settings}
    return Run(Counting, algorithm=algorithm, verifier=verifier, rollout=RolloutConfig(staleness=staleness), **settings)  # type: ignore[arg-type]


def kinds(groups: Iterable[Group]) -> list[str]:
    return [group.task.id.split()[0] for group in groups]


def grpo(rounds: int) -> GRPOConfig:
    return GRPOConfig(replacement_rounds=rounds)


def test_every_group_without_signal_is_replaced_where_the_rounds_suffice() -> None:
    run = replacing(grpo(20))
    for groups, draw in zip(run.report.groups_seen, run.report.draws, strict=True):
        assert kinds(groups) == ["mixed"] * 3
        assert draw.num_without_signal == 0
        replaced = [one for one in draw.tried if one.is_replaced]
        assert {one.task.split()[0] for one in replaced} <= {"hopeless", "trivial"}
        assert [one.task for one in draw.tried[len(replaced) :]] == [group.task.id for group in groups]
        assert len({one.task for one in draw.tried}) == len(draw.tried), "a step asks no task twice"
    assert len(run.training_prompts()) == sum(len(draw.tried) for draw in run.report.draws) * BATCH.group_size


def test_what_has_signal_stays_where_it_was() -> None:
    first, replaced = replacing(grpo(0)).report.groups_seen, replacing(grpo(20)).report.groups_seen
    for before, after in zip(first, replaced, strict=True):
        assert [old == new for old, new in zip(before, after, strict=True)] == [kind == "mixed" for kind in kinds(before)]


def test_the_default_replaces_nothing_and_says_nothing_of_it() -> None:
    run = replacing(GRPOConfig())
    assert run.report.draws == []
    assert len(run.training_prompts()) == 3 * 3 * BATCH.group_size


@pytest.mark.parametrize("rounds", [1, 2])
def test_no_more_is_generated_than_the_rounds_allow(rounds: int) -> None:
    hopeless = tuple(one for one in TASKS if one.id.startswith("hopeless"))
    run = replacing(grpo(rounds), tasks=hopeless, num_steps=1)
    (draw,) = run.report.draws
    assert len(draw.tried) == 3 * (1 + min(rounds, 2)) - (1 if rounds == 2 else 0), "8 tasks there are"
    assert draw.num_without_signal == 3
    assert [total for _, total in run.report.watched] == [12, 12, 8][: 1 + rounds], "never more at once than at first"


def test_it_ends_when_every_task_has_been_asked() -> None:
    hopeless = tuple(one for one in TASKS if one.id.startswith("hopeless"))
    (draw,) = replacing(grpo(1000), tasks=hopeless, num_steps=1).report.draws
    assert sorted(one.task for one in draw.tried) == sorted(one.id for one in hopeless)


@pytest.mark.parametrize(
    ("algorithm", "verifier", "kept"),
    [
        (SDPOConfig(replacement_rounds=20), ByKind, {"mixed", "trivial"}),  # solved siblings are demonstrations
        (SDPOConfig(replacement_rounds=20), Critic, {"mixed", "trivial", "hopeless"}),
        (SDPOConfig(replacement_rounds=20, routing=Blend(policy_gradient_share=1.0)), Critic, {"mixed"}),
    ],
)
def test_under_sdpo_a_group_of_which_something_is_distilled_stays(
    algorithm: SDPOConfig, verifier: type[FakeVerifier], kept: set[str]
) -> None:
    run = replacing(algorithm, verifier=verifier, num_steps=6)
    assert {kind for groups in run.report.groups_seen for kind in kinds(groups)} == kept
    assert all(draw.num_without_signal == 0 for draw in run.report.draws)


def test_an_environment_that_breaks_ends_the_run_though_its_groups_could_be_replaced() -> None:
    broken = frozenset(one.id for one in TASKS if not one.id.startswith("mixed"))
    with pytest.raises(UserError, match="the verifier broke"):
        replacing(grpo(20), verifier=FakeVerifier, broken=broken)


KILLS = (1, 6, 12, 13, 17, 24, 31)
"""Verdicts after which a run is killed: in the first generation of a step, between two, and in later ones."""


@pytest.mark.parametrize("staleness", [0, 2])
@pytest.mark.parametrize("order", ["epochs", "adaptive"])
@pytest.mark.parametrize("num", KILLS)
def test_a_killed_run_draws_the_same_tasks_and_asks_only_for_what_is_missing(
    num: int, order: str, staleness: int, tmp_path: Path
) -> None:
    batch = BatchConfig(num_tasks=3, group_size=4, order=TaskOrderConfig(name=order))

    @dataclass
    class Mortal(ByKind):
        left: int = num

        def verify(
            self, tasks_P: Sequence[Task], completions: Iterable[tuple[Prompt, Completion]]
        ) -> Iterator[tuple[Prompt, Attempt | SetAside]]:
            for answer in super().verify(tasks_P, completions):
                if self.left == 0:
                    raise Killed
                self.left -= 1
                yield answer

    whole = replacing(grpo(9), staleness=staleness, batch=batch)
    with pytest.raises(Killed):
        replacing(grpo(9), verifier=Mortal, staleness=staleness, batch=batch, journal=tmp_path)
    again = replacing(grpo(9), staleness=staleness, batch=batch, journal=tmp_path)
    assert [draw.tried for draw in again.report.draws] == [draw.tried for draw in whole.report.draws]
    taken = sum(found for found, _ in again.report.takeovers)
    assert len(again.training_prompts()) == len(whole.training_prompts()) - taken
    if staleness == 0:  # what later weights sampled is asked again, since they are learned anew
        assert taken == min(num, len(whole.report.draws[0].tried) * batch.group_size)


@pytest.mark.parametrize("staleness", [0, 1, 2])
@pytest.mark.parametrize("first_step", [1, 2, 4])
def test_a_continued_run_draws_what_an_uninterrupted_one_would(first_step: int, staleness: int) -> None:
    """An order that knew at once what a step tried would draw otherwise where several batches begin together, as they do when a
    run goes on."""
    batch = BatchConfig(num_tasks=3, group_size=4, order=TaskOrderConfig(name="adaptive"))
    whole = replacing(grpo(3), staleness=staleness, batch=batch, num_steps=7)
    tried = [draw.tried for draw in whole.report.draws]
    rest = replacing(grpo(3), staleness=staleness, batch=batch, num_steps=7, first_step=first_step, tried=tried[:first_step])
    assert [draw.tried for draw in rest.report.draws] == tried[first_step:]
    assert [draw.numbers for draw in rest.report.draws] == [draw.numbers for draw in whole.report.draws[first_step:]]
