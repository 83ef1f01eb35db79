"""The loop, on fakes of its protocols: order of events, counts, resume, stop."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from sdpo.attempts.task_stream import TaskStream
from sdpo.config import (
    EvaluationConfig,
    GRPOConfig,
    HindsightConfig,
    HintChoice,
    LearnerConfig,
    LiftSchedule,
    OnLowLift,
    PolicyGradientConfig,
    RolloutConfig,
    SamplingConfig,
    SDPOConfig,
    TrackingConfig,
)
from sdpo.errors import UserError
from sdpo.hindsight.success_buffer import remembered
from sdpo.run.folder import RunFolder
from sdpo.tracking.tracker import Tracker
from sdpo.types import Attempt, Completion, Prompt, Sampling, SetAside, Task, Verdict
from tests.loop.fakes import FakeEngine, FakeVerifier, task
from tests.loop.run import HELDOUT, TASKS, Run


def test_a_step_samples_learns_and_hands_the_new_weights_to_the_engine_in_this_order() -> None:
    run = Run(num_steps=1)
    assert run.events == [
        "load 0", "sample", "sample", "evaluation 0",
        "sample", "anchor", "update", "update", "finish", "load 1",
        "sample", "sample", "evaluation 1", "save",
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


def test_a_checkpoint_knows_the_success_of_its_own_step_and_none_where_nobody_looked() -> None:
    """Two of four steps are looked at: half of the fake's answers are even, and so solved."""
    run = Run(num_steps=4, evaluation=EvaluationConfig(num_tasks=2, num_attempts=2, every=2))
    assert run.report.evaluations == [0, 2, 4]
    assert [path.name for path in run.learner.saved] == [f"step_{step:06d}" for step in (1, 2, 3, 4)]
    assert run.learner.scores == [None, 0.5, None, 0.5]


def test_without_heldout_tasks_no_checkpoint_has_a_score() -> None:
    run = Run(heldout=(), evaluation=EvaluationConfig(num_tasks=0))
    assert run.report.evaluations == []
    assert run.learner.scores == [None, None, None]


def test_a_steps_samples_are_learned_from_in_every_epoch_and_scored_once_before() -> None:
    def thrice(run: Run) -> None:
        run.config.learner = LearnerConfig(num_epochs=3)

    run = Run(num_steps=2, started=thrice)
    of_learner = [event for event in run.events if event in ("anchor", "update", "finish")]
    assert of_learner == (["anchor"] + ["update"] * 6 + ["finish"]) * 2
    for first in (0, 6):
        taken = run.learner.updates[first : first + 6]
        assert [update.epoch for update in taken] == [0, 0, 1, 1, 2, 2]
        assert [sorted(update.index for update in taken[place : place + 2]) for place in (0, 2, 4)] == [[0, 1]] * 3


def test_rows_are_dealt_to_the_ranks_that_the_learner_has() -> None:
    run = Run(num_ranks=2)
    assert run.learner.updates
    assert all(len(update.micro_batches) == 2 for update in run.learner.updates)


class LongWinded(FakeEngine):
    """Every attempt is a token longer than the one before; the first has one."""

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[tuple[Prompt, Completion]]:
        for prompt, completion in super().sample(prompts, sampling):
            num = 1 + prompt.attempt_index
            yield prompt, replace(completion, token_ids=(9,) * num, logprobs=(-1.0,) * num)


def test_the_runs_length_limit_shapes_the_reward() -> None:
    """Even attempts are solved; with the limit at four tokens, of which each costs a quarter: 0.75, -0.5, 0.25, -1."""
    shaping = GRPOConfig(policy_gradient=PolicyGradientConfig(overlong_tokens=4))
    run = Run(LongWinded, num_steps=1, algorithm=shaping, sampling=SamplingConfig(max_response_tokens=4))
    for update in run.learner.updates:
        (batches,) = update.micro_batches
        found = {float(a) for batch in batches for a in batch.advantages_N}
        assert found == {0.75 + 0.125, -0.5 + 0.125, 0.25 + 0.125, -1.0 + 0.125}


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
    assert all(update.num_loss_tokens == 0 for update in sdpo.learner.updates)


def test_attempts_set_aside_are_neither_failed_nor_rewarded() -> None:
    one: Task = TaskStream(tasks=TASKS, seed=0).batch(0, 2)[0]
    run = Run(
        num_steps=1,
        broken=frozenset({one.id}),
        rollout=replace(RolloutConfig(), max_set_aside_share=0.6),
    )
    assert [update.num_learned_rows for update in run.learner.updates] == [0, 4]


def test_too_many_attempts_set_aside_stop_the_run_with_the_environments_error() -> None:
    with pytest.raises(UserError, match="the verifier broke"):
        Run(broken=frozenset(known.id for known in TASKS))


def test_the_teacher_answers_under_hindsight_prompts_with_its_own_weights_and_the_policy_is_served_again() -> None:
    run = Run(num_steps=1, teacher="teacher")
    assert run.events == [
        "load 0", "sample", "load teacher", "sample", "load 0", "evaluation 0",
        "sample", "anchor", "update", "update", "finish", "load 1",
        "sample", "load teacher", "sample", "load 1", "evaluation 1", "save",
    ]  # fmt: skip
    hindsight = [prompt.token_ids for prompt in run.engine.asked if prompt.token_ids[-3:] == tuple(map(ord, "odd"))]
    assert hindsight == [tuple(map(ord, f"{held.id}odd")) for held in HELDOUT] * 2


class Mute(FakeEngine):
    """Does not get to the end of what it is asked as the teacher."""

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[tuple[Prompt, Completion]]:
        for answered in super().sample(prompts, sampling):
            yield answered
            if self.weights == "teacher":
                raise RuntimeError("mute")


def test_the_engine_has_the_policys_weights_again_also_where_the_teacher_failed() -> None:
    events: list[str] = []
    with pytest.raises(RuntimeError, match="mute"):
        Run(Mute, teacher="teacher", events=events)
    assert events == ["load 0", "sample", "load teacher", "sample", "load 0"]


def test_lift_is_measured_at_both_ends_unless_asked_for_otherwise_and_for_grpo_never() -> None:
    def measured(**changes: object) -> list[bool]:
        return [lift is not None for lift in Run(**changes).report.lifts]  # type: ignore[arg-type]

    def evaluations(lift: LiftSchedule) -> EvaluationConfig:
        return EvaluationConfig(num_tasks=2, num_attempts=2, every=1, lift=lift)

    assert measured(evaluation=evaluations(LiftSchedule.first_and_last)) == [True, False, False, True]
    assert measured(evaluation=evaluations(LiftSchedule.first)) == [True, False, False, False]
    assert measured(evaluation=evaluations(LiftSchedule.always)) == [True] * 4
    assert measured(evaluation=evaluations(LiftSchedule.never)) == [False] * 4
    assert measured(algorithm=GRPOConfig()) == [False] * 2


def test_a_run_without_lift_is_warned_of_refused_or_begun() -> None:
    """Failed attempts are told so and fail again, where the other half succeeds: a lift of -100%."""
    four = (*HELDOUT, task("heldout 2"), task("heldout 3"))
    (warning,) = Run(heldout=four).report.warnings
    assert "from 100.0% to 0.0%" in warning
    assert Run().report.warnings == [], "of two tasks nothing is known"
    assert Run(heldout=four, algorithm=SDPOConfig(on_low_lift=OnLowLift.ignore)).report.warnings == []
    assert Run(heldout=four, algorithm=SDPOConfig(min_lift=-1.0)).report.warnings == []
    assert Run(heldout=four, first_step=2).report.warnings == [], "it has begun long ago"
    events: list[str] = []
    with pytest.raises(UserError, match=r"lift is -100\.0%"):
        Run(heldout=four, algorithm=SDPOConfig(on_low_lift=OnLowLift.refuse), events=events)
    assert events == ["load 0", "sample", "sample", "evaluation 0"], "what was found is kept, and nothing is learned"


def test_the_environments_answer_to_the_attempted_task_is_what_the_teacher_is_shown() -> None:
    asking = SDPOConfig(hindsight=HindsightConfig(choice=HintChoice.reference))
    run = Run(algorithm=asking, references=lambda task: f"the answer to {task.id}")
    for groups, hints_P_G in zip(run.report.groups_seen, run.report.hints_seen, strict=True):
        for group, hints in zip(groups, hints_P_G, strict=True):
            assert {hint and hint.of("demonstration") for hint in hints} == {f"the answer to {group.task.id}"}


class Forgetful(FakeVerifier):
    """Calls everything wrong after the first epoch's three steps."""

    def verify(
        self, tasks_P: Sequence[Task], completions: Iterable[tuple[Prompt, Completion]]
    ) -> Iterator[tuple[Prompt, Attempt | SetAside]]:
        for prompt, outcome in super().verify(tasks_P, completions):
            if isinstance(outcome, Attempt) and outcome.completion.weights_version >= 3:
                outcome = replace(outcome, verdict=Verdict(reward=0.0))
            yield prompt, outcome


@pytest.mark.parametrize("killed_after", [1, 3, 4])
def test_a_resumed_run_shows_the_same_remembered_successes(killed_after: int, tmp_path: Path) -> None:
    algorithm = SDPOConfig(hindsight=HindsightConfig(success_buffer=2))
    settings = {"num_steps": 6, "algorithm": algorithm, "verifier": Forgetful}
    whole = Run(successes=remembered(algorithm, ()), **settings)  # type: ignore[arg-type]
    hints = [[hint for of_group in hints_P_G for hint in of_group] for hints_P_G in whole.report.hints_seen]
    assert [all(hint is not None and hint.is_remembered for hint in of_step) for of_step in hints] == [False] * 3 + [True] * 3

    folder = RunFolder(tmp_path)
    folder.rollouts.mkdir()
    tracker = Tracker(folder, TrackingConfig(tensorboard=False))
    for step in range(killed_after):
        tracker.rollouts(step + 1, whole.report.groups_seen[step], whole.report.hints_seen[step])
    recalled = remembered(algorithm, folder.rollouts_up_to(killed_after))
    rest = Run(first_step=killed_after, successes=recalled, **settings)  # type: ignore[arg-type]
    assert rest.report.hints_seen == whole.report.hints_seen[killed_after:]
