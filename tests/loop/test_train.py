"""The loop, on fakes of its protocols: order of events, counts, resume, stop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sdpo.config import BatchConfig, Config, EnvConfig, EvaluationConfig, GRPOConfig, ModelConfig, RolloutConfig, SDPOConfig
from sdpo.errors import UserError
from sdpo.task_stream import TaskStream
from sdpo.train import train
from sdpo.types import Prompt, Task
from tests.loop.fakes import FakeEngine, FakeLearner, FakeRenderer, FakeReport, FakeVerifier, task

TASKS = tuple(task(f"task {index}") for index in range(6))
HELDOUT = tuple(task(f"heldout {index}") for index in range(2))


class Run:
    """One call of train() on fakes."""

    def __init__(
        self, *, first_step: int = 0, stop_after: int = 10**9, broken: frozenset[str] = frozenset(), **changes: object
    ) -> None:
        self.events: list[str] = []
        self.engine, self.learner = FakeEngine(self.events), FakeLearner(self.events, step=first_step)
        self.report = FakeReport(self.events, stop_after=stop_after)
        config = Config(
            num_steps=3,
            name="test",
            algorithm=SDPOConfig(),
            model=ModelConfig(name="fake", path="fake"),
            env=EnvConfig(name="fake"),
            batch=BatchConfig(num_tasks=2, group_size=4, tasks_per_update=1),
            evaluation=EvaluationConfig(num_tasks=2, num_attempts=2),
        )
        self.config = replace(config, **changes)  # type: ignore[arg-type]
        train(
            self.config,
            TaskStream(tasks=TASKS, seed=0),
            HELDOUT,
            self.engine,
            FakeVerifier(broken),
            FakeRenderer(),
            self.learner,
            self.report,
            Path("checkpoints"),
        )

    def training_prompts(self) -> list[Prompt]:
        heldout = {tuple(map(ord, held.id)) for held in HELDOUT}
        return [prompt for prompt in self.engine.asked if prompt.token_ids not in heldout]


def test_a_step_samples_learns_and_hands_the_new_weights_to_the_engine_in_this_order() -> None:
    run = Run(num_steps=1)
    assert run.events == [
        "load 0", "sample", "evaluation 0",
        "sample", "anchor", "update", "update", "finish", "load 1",
        "sample", "evaluation 1", "save",
    ]  # fmt: skip


def test_every_task_gets_its_group_and_every_attempt_a_seed_of_its_own() -> None:
    prompts = Run().training_prompts()
    assert len(prompts) == 3 * 2 * 4
    assert len({prompt.seed for prompt in prompts}) == len(prompts)


def test_a_resumed_run_asks_for_the_batches_that_were_left() -> None:
    whole, rest = Run(), Run(first_step=2)
    assert rest.training_prompts() == whole.training_prompts()[2 * 2 * 4 :]


def test_a_resumed_run_does_not_evaluate_the_start_again() -> None:
    assert Run(first_step=2).report.evaluations == [3]


def test_a_stop_ends_after_the_step_with_a_checkpoint() -> None:
    run = Run(stop_after=1)
    assert run.learner.step == 1
    assert [path.name for path in run.learner.saved] == ["step_000001"]


def test_heldout_tasks_are_never_learned_from() -> None:
    run = Run()
    learned = {group.task.id for groups in run.report.groups_seen for group in groups}
    assert learned <= {known.id for known in TASKS}
    assert learned.isdisjoint(held.id for held in HELDOUT)


def test_failed_attempts_learn_from_a_solved_sibling_and_grpo_from_none() -> None:
    sdpo, grpo = Run(), Run(algorithm=GRPOConfig())
    assert all(update.num_distilled_tokens > 0 for update in sdpo.learner.updates)
    assert all(update.num_distilled_tokens == 0 for update in grpo.learner.updates)
    assert all(update.num_loss_tokens == 4 * 2 for update in grpo.learner.updates)


def test_attempts_set_aside_are_neither_failed_nor_rewarded() -> None:
    one: Task = TaskStream(tasks=TASKS, seed=0).batch(0, 2)[0]
    run = Run(
        num_steps=1,
        broken=frozenset({one.id}),
        rollout=replace(RolloutConfig(), max_set_aside_share=0.6),
    )
    assert [update.num_rows for update in run.learner.updates] == [0, 4]


def test_too_many_attempts_set_aside_stop_the_run_with_the_environments_error() -> None:
    with pytest.raises(UserError, match="the verifier broke"):
        Run(broken=frozenset(known.id for known in TASKS))
