"""When batches are generated: by whom, by which weights, for whom not; and what a killed run had of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from sdpo.attempts import asking, conversation, generation
from sdpo.attempts.task_stream import TaskStream
from sdpo.config import AlgorithmConfig, EvaluationConfig, LiftSchedule, RolloutConfig
from sdpo.errors import MachineError, UserError
from sdpo.protocols import Sampler
from sdpo.types import Attempt, Completion, Finish, Group, Metrics, Prompt, Sampling, SetAside, Task, Update, Verdict
from tests.loop.fakes import FakeEngine, FakeLearner, FakeRenderer, FakeVerifier
from tests.loop.run import TASKS, Run, is_heldout

TEACHERS = 66
"""A token that the teacher alone says."""
PATIENCE_S = 20.0


@dataclass
class Counting(FakeEngine):
    """Says with which weights it is as it says it, and counts the training batches it has answered."""

    pause_s: float = 0.0
    num_batches: int = 0
    answered: threading.Condition = field(default_factory=threading.Condition)

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[tuple[Prompt, Completion]]:
        self.asked += prompts
        for prompt in prompts:
            time.sleep(self.pause_s)
            said = TEACHERS if self.weights == "teacher" else 1 + prompt.attempt_index
            completion = Completion(
                token_ids=(said, 9),
                logprobs=(-1.0, -0.1 / (1 + prompt.seed)),
                text=str(prompt.attempt_index),
                finish=Finish.stop,
                weights_version=self.version,
            )
            yield prompt, completion
        if not is_heldout(prompts[0]):
            with self.answered:
                self.num_batches += 1
                self.answered.notify_all()


@dataclass
class Slow(Counting):
    pause_s: float = 0.002


@dataclass
class Waiting(FakeLearner):
    """Does not learn before all batches are there that may be: what is on-policy never gets past its first step."""

    engine: Counting = field(default_factory=lambda: Counting([]))
    staleness: int = 1
    num_steps: int = 5
    first: int = 0

    def update(self, update: Update, algorithm: AlgorithmConfig) -> Metrics:
        expected = min(self.step + 1 + self.staleness, self.num_steps) - self.first
        with self.engine.answered:
            assert self.engine.answered.wait_for(lambda: self.engine.num_batches >= expected, PATIENCE_S), (
                "nothing was overlapped"
            )
        return super().update(update, algorithm)


def ahead(staleness: int, **settings: object) -> Run:
    """A run whose learner waits until the thread has nothing more to do."""

    def introduce(run: Run) -> None:
        if isinstance(run.learner, Waiting):
            assert isinstance(run.engine, Counting)
            run.learner.engine, run.learner.staleness, run.learner.first = run.engine, staleness, run.learner.step

    settings = {"engine": Counting, "learner": Waiting, "num_steps": 5, **settings}
    return Run(started=introduce, rollout=RolloutConfig(staleness=staleness), **settings)  # type: ignore[arg-type]


def versions(groups_P: Sequence[Group]) -> set[int]:
    return {attempt.completion.weights_version for group in groups_P for attempt in group.attempts}


def without_versions(groups_P: Sequence[Group]) -> list[Group]:
    return [
        replace(group, attempts=tuple(replace(a, completion=replace(a.completion, weights_version=0)) for a in group.attempts))
        for group in groups_P
    ]


def is_generating() -> bool:
    return any(thread.name == "rollouts" for thread in threading.enumerate())


@pytest.mark.parametrize("staleness", [1, 2, 3])
def test_batches_are_generated_while_the_learner_works_by_weights_as_old_as_they_may_be(staleness: int) -> None:
    run = ahead(staleness)
    assert [versions(groups_P) for groups_P in run.report.groups_seen] == [{max(0, step - staleness)} for step in range(5)]


@pytest.mark.parametrize("staleness", [1, 3, 9])
def test_the_same_is_asked_in_the_same_order_and_nothing_that_nobody_learns_from(staleness: int) -> None:
    on_policy, stale = Run(num_steps=5), ahead(staleness)
    assert stale.training_prompts() == on_policy.training_prompts()
    assert len(stale.training_prompts()) == 5 * 2 * 4
    assert not is_generating()


def test_on_policy_every_step_learns_from_its_own_weights() -> None:
    run = Run(Counting)
    assert [versions(groups_P) for groups_P in run.report.groups_seen] == [{0}, {1}, {2}]
    assert not is_generating()


class Clock:
    """Stands still but where a verdict is awaited."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()

    def verify(
        self: FakeVerifier, tasks_P: Sequence[Task], completions: Iterable[tuple[Prompt, Completion]]
    ) -> Iterator[tuple[Prompt, Attempt | SetAside]]:
        """Half a second a verdict, three of eight before the last completion."""
        waiting: list[tuple[Prompt, Completion]] = []
        for answer in completions:
            if len(waiting) < 3:
                clock.now += 0.5
            waiting.append(answer)
        for prompt, completion in waiting:
            clock.now += 0.5 if prompt.attempt_index > 0 else 0.0
            yield prompt, Attempt(completion=completion, verdict=Verdict(reward=0.0, feedback="no"))

    for module in (conversation, generation):
        monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(FakeVerifier, "verify", verify)
    return clock


def test_the_time_from_the_last_completion_to_the_last_verdict_is_known(clock: Clock) -> None:
    run = Run(Counting, heldout=())
    assert run.report.judgings == [3.0, 3.0, 3.0]  # 2 tasks with 4 attempts, the first of which is judged at once


@pytest.mark.parametrize(("asked_at", "expected"), [(0.0, 3.0), (101.5, 3.0), (103.25, 1.25), (104.5, 0.0), (999.0, 0.0)])
def test_of_a_batch_that_was_generated_ahead_that_time_counts_which_the_step_waited(
    clock: Clock, asked_at: float, expected: float
) -> None:
    """Completions from 100 to 101.5, verdicts until 104.5."""
    run = Run(Counting, heldout=(), num_steps=1)
    clock.now = 100.0
    questions = asking.Questions(run.config, TaskStream(tasks=TASKS, seed=0), FakeRenderer())
    sampler = Sampler(engine=run.engine, verifier=FakeVerifier(), renderer=FakeRenderer())  # type: ignore[arg-type]
    answers = asking.Answers(run.config, sampler, journal=None)
    batch = generation._Batch(questions.of(0))
    batch.fill(answers)
    run.report.judgings.clear()
    batch.awaited(run.report, asked_at)
    assert run.report.judgings == [expected]


def test_a_step_that_takes_everything_over_waited_for_no_verdict(tmp_path: Path) -> None:
    Run(Counting, journal=tmp_path, num_steps=1, heldout=())
    assert Run(Counting, journal=tmp_path, num_steps=1, heldout=()).report.judgings == []


def test_a_stop_gives_up_what_is_under_way() -> None:
    run = ahead(2, learner=FakeLearner, engine=Slow, stop_after=2)
    assert run.learner.step == 2
    assert [path.name for path in run.learner.saved][-1] == "step_000002"
    assert not is_generating()


def test_what_is_waited_for_is_watched() -> None:
    assert ahead(1).report.watched == Run(num_steps=5).report.watched == [(4, 4), (2, 2), *[(8, 8)] * 5, (4, 4), (2, 2)]


@dataclass
class Breaking(Counting):
    """Dies in the third batch."""

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[tuple[Prompt, Completion]]:
        for number, answer in enumerate(super().sample(prompts, sampling)):
            if self.num_batches == 2 and number == 3:
                raise MachineError("an engine died")
            yield answer


def test_what_goes_wrong_in_the_thread_ends_the_run_at_the_step_that_waits_for_it() -> None:
    events: list[str] = []
    with pytest.raises(MachineError, match="an engine died"):
        ahead(1, engine=Breaking, learner=FakeLearner, events=events)
    assert events.count("finish") == 2
    assert not is_generating()


def test_too_many_attempts_set_aside_stop_a_run_that_is_ahead_too() -> None:
    with pytest.raises(UserError, match="the verifier broke"):
        ahead(1, learner=FakeLearner, broken=frozenset(known.id for known in TASKS))


@dataclass
class Deaf(Counting):
    """Does not take what it is given after the second version."""

    def load(self, weights: object, *, version: int) -> None:
        super().load(weights, version=min(version, 1))


@pytest.mark.parametrize(("staleness", "learned"), [(0, 2), (1, 3), (2, 4)])
def test_what_older_weights_sampled_than_may_is_not_learned_from(staleness: int, learned: int) -> None:
    events: list[str] = []
    with pytest.raises(MachineError, match=f"rollout.staleness={staleness} .*has version 1"):
        ahead(staleness, engine=Deaf, learner=FakeLearner, events=events)
    assert events.count("finish") == learned


@dataclass
class Stuck(Counting):
    """Never answers the second batch."""

    release: threading.Event = field(default_factory=threading.Event)

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[tuple[Prompt, Completion]]:
        if self.num_batches == 1:
            self.release.wait(PATIENCE_S)
        yield from super().sample(prompts, sampling)


@dataclass
class Failing(FakeLearner):
    def update(self, update: Update, algorithm: AlgorithmConfig) -> Metrics:
        raise MachineError("a rank of the learner died")


def test_a_run_that_fails_does_not_wait_for_what_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "GIVE_UP_AFTER_S", 0.05)
    found: list[Run] = []
    began = time.monotonic()
    with pytest.raises(MachineError, match="a rank of the learner died"):
        Run(Stuck, learner=Failing, rollout=RolloutConfig(staleness=1), started=found.append)
    assert time.monotonic() - began < PATIENCE_S / 2
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "rollouts"]
    assert thread.daemon, "it must not keep the process alive"
    assert isinstance(found[0].engine, Stuck)
    found[0].engine.release.set()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


def test_a_batch_that_is_waited_for_is_given_up_when_the_waiting_is_interrupted() -> None:
    @dataclass
    class Slowest(Counting):
        pause_s: float = 0.5  # of a batch of eight: longer than its end is waited for

    def interrupt(run: Run) -> None:
        def watch(completions: Iterable[tuple[Prompt, Completion]], total: int) -> Iterator[tuple[Prompt, Completion]]:
            yield next(iter(completions))
            raise KeyboardInterrupt

        run.report.watch = watch  # type: ignore[method-assign]

    nothing = EvaluationConfig(num_tasks=0)
    with pytest.raises(KeyboardInterrupt):
        Run(Slowest, rollout=RolloutConfig(staleness=1), heldout=(), evaluation=nothing, started=interrupt)
    assert not is_generating()


LIFT_ALWAYS = EvaluationConfig(num_tasks=2, num_attempts=2, every=1, lift=LiftSchedule.always)


@pytest.mark.parametrize("staleness", [1, 3])
def test_the_teacher_never_samples_what_is_learned_from(staleness: int) -> None:
    """A slow engine that answers with whatever weights it has just then: as with rollout.partial."""
    run = ahead(staleness, engine=Slow, learner=FakeLearner, teacher="teacher", evaluation=LIFT_ALWAYS)
    said = {
        attempt.completion.token_ids[0] for groups in run.report.groups_seen for group in groups for attempt in group.attempts
    }
    assert said == {1, 2, 3, 4}
    lifts = [lift for lift in run.report.lifts if lift is not None]
    assert len(lifts) == 6
    assert all(
        attempt.completion.token_ids[0] == TEACHERS for lift in lifts for group in lift.groups for attempt in group.attempts
    )


def test_an_evaluation_does_not_wait_for_the_batches_that_are_ahead() -> None:
    """The policy is looked at with what the engine serves; only another's weights need it alone."""

    @dataclass
    class Blocked(Stuck):
        def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[tuple[Prompt, Completion]]:
            if is_heldout(prompts[0]):
                yield from Counting.sample(self, prompts, sampling)
                self.events.append("looked")
                if self.events.count("looked") == 2:  # the one after the first step: the thread is in its second batch
                    self.release.set()
            else:
                yield from super().sample(prompts, sampling)

    evaluations = EvaluationConfig(num_tasks=2, num_attempts=2, every=1, lift=LiftSchedule.never)
    assert Run(Blocked, rollout=RolloutConfig(staleness=1), evaluation=evaluations).learner.step == 3


# A run that was killed.


class Killed(Exception):
    """As if the process had ended there."""


@dataclass
class KilledVerifier(FakeVerifier):
    """Ends after the eleventh verdict of training: three into the second step."""

    num: int = 0

    def verify(
        self, tasks_P: Sequence[Task], completions: Iterable[tuple[Prompt, Completion]]
    ) -> Iterator[tuple[Prompt, Attempt | SetAside]]:
        for prompt, outcome in super().verify(tasks_P, completions):
            if tasks_P[0] in TASKS:
                self.num += 1
                if self.num == 12:
                    raise Killed
            yield prompt, outcome


def test_a_killed_run_asks_only_for_what_is_missing_and_learns_from_the_same(tmp_path: Path) -> None:
    whole = Run(Counting)
    with pytest.raises(Killed):
        Run(Counting, verifier=KilledVerifier, journal=tmp_path)
    rest = Run(Counting, first_step=1, journal=tmp_path)
    assert rest.report.takeovers == [(3, 8)]
    assert rest.training_prompts() == whole.training_prompts()[8 + 3 :]
    assert rest.report.groups_seen == whole.report.groups_seen[1:]


def test_what_weights_sampled_that_are_learned_anew_is_asked_again(tmp_path: Path) -> None:
    """The last checkpoint is from before the first step."""
    with pytest.raises(Killed):
        Run(Counting, verifier=KilledVerifier, journal=tmp_path)
    again = Run(Counting, journal=tmp_path)
    assert again.report.takeovers == [(8, 8)], "the first step's; of the second none"
    assert again.training_prompts() == Run(Counting).training_prompts()[8:]


def test_a_run_that_is_ahead_takes_over_what_may_be_that_old(tmp_path: Path) -> None:
    """Killed in its second step, when the third one's batch is there as well: both are sampled by weights that the checkpoint
    after the first step descends from or is."""

    @dataclass
    class Dying(Waiting):
        def finish_step(self, *, follow: bool = True) -> None:
            if self.step == 1:
                raise Killed
            super().finish_step(follow=follow)

    whole = ahead(1)
    with pytest.raises(Killed):
        ahead(1, learner=Dying, journal=tmp_path)
    rest = ahead(1, learner=FakeLearner, first_step=1, journal=tmp_path)
    assert rest.report.takeovers == [(8, 8), (8, 8)]
    assert rest.training_prompts() == whole.training_prompts()[3 * 8 :]
    assert without_versions([g for groups in rest.report.groups_seen for g in groups]) == without_versions(
        [g for groups in whole.report.groups_seen[1:] for g in groups]
    )
    assert [versions(groups_P) for groups_P in rest.report.groups_seen[:2]] == [{0}, {1}]


@pytest.mark.parametrize("staleness", [0, 1, 2])
def test_a_run_that_goes_back_to_a_checkpoint_learns_from_nothing_that_came_after_it(staleness: int, tmp_path: Path) -> None:
    """From its fourth step to its second, for whatever reason: what the weights of the second sampled is still there, what later
    ones sampled (here they talk like a teacher) is asked again, since the steps between may end elsewhere."""
    again: list[tuple[Group, ...]] = []

    def go_back(run: Run) -> None:
        def of(step: int, weights: str) -> tuple[Group, ...]:
            run.engine.load(weights, version=step)
            with run.report.step(step + 1) as log:
                return run.rollouts.of(step, log)

        whole = [of(0, "weights"), of(1, "weights"), of(2, "teacher"), of(3, "teacher")]
        again.extend(of(step, "weights") for step in (1, 2, 3, 4))
        assert without_versions(again[0]) == without_versions(whole[1])
        assert run.report.takeovers[0] == (8, 8)
        raise Killed

    with pytest.raises(Killed):
        Run(Slow, rollout=RolloutConfig(staleness=staleness), num_steps=9, journal=tmp_path, started=go_back)
    assert len(again) == 4
    assert all(a.completion.token_ids[0] != TEACHERS for groups in again for group in groups for a in group.attempts)
    assert not is_generating()


def test_attempts_that_were_set_aside_are_asked_again(tmp_path: Path) -> None:
    """The environment may have been mended since: a run that it stopped must be able to go on."""
    with pytest.raises(UserError, match="the verifier broke"):
        Run(Counting, broken=frozenset(known.id for known in TASKS), journal=tmp_path)
    mended = Run(Counting, journal=tmp_path)
    assert mended.report.takeovers == []
    assert mended.report.groups_seen == Run(Counting).report.groups_seen
