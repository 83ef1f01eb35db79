"""Alarms reach the learner, the records and the screen: the loop with the run's own report, on fakes of the machines."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from rich.console import Console

from sdpo.attempts.generation import rollouts_of
from sdpo.attempts.task_stream import TaskStream
from sdpo.commands import outcome
from sdpo.config import (
    BatchConfig,
    CheckpointConfig,
    Config,
    EmaTeacher,
    EnvConfig,
    EvaluationConfig,
    Guard,
    GuardsConfig,
    ModelConfig,
    Response,
    SDPOConfig,
    TrackingConfig,
    Truncated,
)
from sdpo.guards.fold import Guards, folded
from sdpo.learner import checkpoint
from sdpo.learner.checkpoint import Counters
from sdpo.protocols import Sampler
from sdpo.run.folder import RunFolder, records
from sdpo.terminal.live import Terminal
from sdpo.terminal.stop_request import StopRequest
from sdpo.tracking.run_report import RunReport
from sdpo.tracking.tracker import Tracker
from sdpo.train import train
from sdpo.types import Attempt, Completion, Finish, Group, Prompt, Ranks, Sampling, Verdict
from tests.loop.fakes import FakeEngine, FakeLearner, FakeRenderer, FakeVerifier, task

TASKS = tuple(task(f"task {index}") for index in range(6))
HELDOUT = tuple(task(f"heldout {index}") for index in range(4))


@dataclass
class Forgetful(FakeEngine):
    """Solves everything with the first three versions of its weights, and nothing from then on."""

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[tuple[Prompt, Completion]]:
        for prompt, completion in super().sample(prompts, sampling):
            yield prompt, replace(completion, text="0" if self.version < 3 else "1")


@dataclass
class SavingLearner(FakeLearner):
    """Writes the counters of its checkpoints."""

    keep_best: int = 1

    def save(self, path: Path, *, score: float | None) -> None:
        super().save(path, score=score)
        checkpoint.begin(path)
        checkpoint.commit(path, Counters(step=self.step, num_updates=self.step, score=score))
        checkpoint.prune(path.parent, keep=2, keep_best=self.keep_best)


@dataclass
class Run:
    """A run in a folder, which may be called again."""

    path: Path
    response: Response
    config: Config = field(init=False)
    events: list[str] = field(default_factory=list)
    screen: Console = field(default_factory=lambda: Console(file=io.StringIO(), width=120))

    def __post_init__(self) -> None:
        self.config = Config(
            num_steps=8,
            name="run",
            algorithm=SDPOConfig(teacher=EmaTeacher()),
            model=ModelConfig(name="fake", path="fake"),
            env=EnvConfig(name="fake"),
            batch=BatchConfig(num_tasks=2, group_size=4),
            evaluation=EvaluationConfig(every=1, num_tasks=4, num_attempts=2),
            checkpoint=CheckpointConfig(keep_best=1),
            guards=GuardsConfig(response=self.response, responds_to=[Guard.heldout], repeat_after=2),
            tracking=TrackingConfig(tensorboard=False),
        )
        self.folder = RunFolder(self.path)

    def __call__(self, *, stop_after: int = 10**9) -> FakeLearner:
        """Continues where it stopped; a stop is asked for in that step, as by a signal."""
        for folder in (self.folder.rollouts, self.folder.checkpoints):
            folder.mkdir(parents=True, exist_ok=True)
        done = checkpoint.checkpoints(self.folder.checkpoints)
        first = checkpoint.counters_of(done[-1]).step if done else 0
        self.folder.forget_after(first)
        guards = folded(self.config, records(self.folder.metrics), records(self.folder.evaluations))
        stop, terminal = StopRequest(), Terminal(self.screen, "run", 8)
        learner = SavingLearner(self.events, ranks=Ranks(num=1, pairs_per_token=100.0), step=first)

        class Engine(Forgetful):
            def load(self, weights: object, *, version: int) -> None:
                super().load(weights, version=version)
                stop.is_set = version >= stop_after

        report = RunReport(terminal, Tracker(self.folder, self.config.tracking), stop, guards)
        sampler = Sampler(engine=Engine(self.events), verifier=FakeVerifier(), renderer=FakeRenderer())  # type: ignore[arg-type]
        rollouts = rollouts_of(self.config, TaskStream(tasks=TASKS, seed=0), sampler)
        train(self.config, rollouts, HELDOUT, sampler, learner, report, self.folder.checkpoints, guards)
        return learner

    @property
    def said(self) -> str:
        assert isinstance(self.screen.file, io.StringIO)
        return self.screen.file.getvalue()

    def guards_of_steps(self, guard: Guard) -> list[int]:
        return [int(str(alarm["step"])) for alarm in records(self.folder.alarms) if alarm["guard"] == guard.value]


@pytest.mark.parametrize(
    ("truncated", "counted"), [(Truncated.learn, None), (Truncated.mask, 2.0), (Truncated.leave_out, 2.0)], ids=str
)
def test_attempts_that_nothing_is_learned_from_because_they_were_cut_off_are_counted(
    truncated: Truncated, counted: float | None, tmp_path: Path
) -> None:
    run = Run(tmp_path / "run", Response.warn)
    run.folder.rollouts.mkdir(parents=True)
    guards = Guards(replace(run.config, algorithm=SDPOConfig(truncated=truncated)))
    tracker = Tracker(run.folder, run.config.tracking)
    report = RunReport(Terminal(run.screen, "run", 1), tracker, StopRequest(), guards)
    attempts = tuple(
        Attempt(
            completion=Completion(token_ids=(1,), logprobs=(-1.0,), text="", finish=finish, weights_version=0),
            verdict=Verdict(reward=0.0),
        )
        for finish in (Finish.length, Finish.stop, Finish.length)
    )
    with report.step(1) as log:
        log.groups((Group(task=TASKS[0], prompt_ids=(1,), attempts=attempts),), ((None,) * 3,))
    (row,) = records(run.folder.metrics)
    assert row.get("truncated/unlearned") == counted


def test_an_alarm_is_said_and_recorded(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", Response.warn)
    assert run().step == 8
    assert run.guards_of_steps(Guard.heldout) == [3, 5, 7]
    assert "ALARM after step 3 · heldout: held-out success should stay above" in run.said
    counts = {record["step"]: record["alarms"] for record in records(run.folder.evaluations)}
    assert [step for step, num in counts.items() if num] == [3, 5, 7]
    assert all("alarms" in row for row in records(run.folder.metrics))
    outcome.show(run.screen, run.folder)
    assert run.said.count("ALARM after step 3") == 2
    assert not outcome.ended_by_alarm(run.screen, run.folder, run.config)


def test_a_teacher_is_refreshed_before_the_checkpoint_of_the_step(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", Response.refresh_teacher)
    run()
    around = [run.events[index + 1] for index, event in enumerate(run.events) if event == "refresh"]
    assert around == ["save"] * 3


def test_a_frozen_teacher_stays_frozen_after_a_kill(tmp_path: Path) -> None:
    whole, cut = Run(tmp_path / "whole", Response.freeze_teacher), Run(tmp_path / "cut", Response.freeze_teacher)
    whole()
    cut(stop_after=5)
    cut()
    follows = [["teacher stays" in event for event in run.events if event.startswith("finish")] for run in (whole, cut)]
    assert follows[0] == follows[1] == [False] * 3 + [True] * 5


def test_a_raised_policy_gradient_reaches_the_learner_and_survives_a_kill(tmp_path: Path) -> None:
    whole, cut = Run(tmp_path / "whole", Response.raise_policy_gradient), Run(tmp_path / "cut", Response.raise_policy_gradient)
    learned = whole().algorithms
    again = [*cut(stop_after=4).algorithms, *cut().algorithms]
    assert [algorithm.routing.policy_gradient_share for algorithm in learned] == [0.0] * 3 + [0.25] * 2 + [0.5] * 2 + [0.75]  # type: ignore[attr-defined]
    assert again == learned
    assert [row["policy_gradient_share"] for row in records(whole.folder.metrics)] == [0.0] * 3 + [0.25] * 2 + [0.5] * 2 + [0.75]


def test_a_run_that_stops_at_its_best_names_it_and_is_not_continued(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", Response.stop_at_best)
    assert run().step == 3
    assert outcome.ended_by_alarm(run.screen, run.folder, run.config)
    best = json.loads(run.folder.best.read_text())
    assert (best["step"], best["heldout/success"], best["alarm"]["step"]) == (2, 1.0, 3)
    assert Path(best["checkpoint"]).name == "step_000002"
    assert "best checkpoint is" in run.said
    assert "guards.response=warn" in run.said
    run.config.guards.response = Response.warn
    assert not outcome.ended_by_alarm(run.screen, run.folder, run.config)
    assert run().step == 8
    assert not run.folder.best.exists()


def test_a_run_that_stops_leaves_the_checkpoint_from_before_the_alarm_as_its_newest(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", Response.stop)
    assert run().step == 3
    assert [path.name for path in checkpoint.checkpoints(run.folder.checkpoints)][-1] == "step_000002"
    assert outcome.ended_by_alarm(run.screen, run.folder, run.config)
    assert "step_000002" in run.said
    assert not run.folder.best.exists()


@pytest.mark.parametrize("response", [Response.stop, Response.stop_at_best])
def test_a_stop_before_any_checkpoint_says_that_the_start_is_the_best(response: Response, tmp_path: Path) -> None:
    run = Run(tmp_path / "run", response)
    run.folder.path.mkdir()
    lines = [{"step": step, "heldout/success": success, "heldout/success_se": 0.0} for step, success in ((0, 1.0), (1, 0.0))]
    run.folder.evaluations.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert outcome.ended_by_alarm(run.screen, run.folder, run.config)
    assert "as the run began with it" in run.said


def test_alarms_of_steps_that_are_run_again_are_forgotten(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", Response.warn)
    run()
    run.folder.forget_after(4)
    assert run.guards_of_steps(Guard.heldout) == [3]
