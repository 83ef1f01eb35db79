"""One call of train() on fakes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from sdpo.attempts.generation import rollouts_of
from sdpo.attempts.task_stream import TaskStream
from sdpo.config import BatchConfig, Config, EnvConfig, EvaluationConfig, ModelConfig, SDPOConfig
from sdpo.guards.fold import Guards
from sdpo.hindsight.hindsight import Hindsight
from sdpo.hindsight.hints import no_reference
from sdpo.hindsight.success_buffer import NOTHING_REMEMBERED, SuccessBuffer
from sdpo.protocols import Sampler
from sdpo.run.journal import Journal
from sdpo.train import train
from sdpo.types import Prompt, Ranks, Task, Tried
from tests.loop.fakes import FakeEngine, FakeLearner, FakeRenderer, FakeReport, FakeVerifier, task

TASKS = tuple(task(f"task {index}") for index in range(6))
HELDOUT = tuple(task(f"heldout {index}") for index in range(2))


class Run:
    """A run from its first step to its end, or to what it raises."""

    def __init__(
        self,
        engine: type[FakeEngine] = FakeEngine,
        *,
        first_step: int = 0,
        stop_after: int = 10**9,
        broken: frozenset[str] = frozenset(),
        heldout: tuple[Task, ...] = HELDOUT,
        num_ranks: int = 1,
        teacher: object | None = None,
        events: list[str] | None = None,
        verifier: type[FakeVerifier] = FakeVerifier,
        learner: type[FakeLearner] = FakeLearner,
        references: Callable[[Task], str | None] = no_reference,
        successes: SuccessBuffer = NOTHING_REMEMBERED,
        journal: Path | None = None,
        tasks: tuple[Task, ...] = TASKS,
        tried: Sequence[Sequence[Tried]] = (),
        started: Callable[[Run], None] = lambda run: None,
        **changes: object,
    ) -> None:
        """``tried``: what the steps before ``first_step`` tried.

        ``events`` is a list to be filled, for one that outlives a failure; ``started`` is called before the first step."""
        self.events: list[str] = [] if events is None else events
        ranks = Ranks(num=num_ranks, pairs_per_token=100.0)
        self.engine, self.learner = engine(self.events), learner(self.events, ranks=ranks, step=first_step)
        self.learner.teacher = teacher
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
        sampler = Sampler(engine=self.engine, verifier=verifier(broken), renderer=FakeRenderer())  # type: ignore[arg-type]
        kept = None if journal is None else Journal(journal, step=first_step)
        order, lag = self.config.batch.order, self.config.rollout.staleness
        stream = TaskStream(tasks=tasks, seed=0, order=order, lag=lag, tried=tried)
        hindsight = Hindsight(run=self.config, references=references, successes=successes)
        self.rollouts = rollouts_of(self.config, stream, sampler, kept, hindsight)
        try:
            started(self)
            train(
                self.config,
                self.rollouts,
                heldout,
                sampler,
                self.learner,
                self.report,
                Path("checkpoints"),
                Guards(self.config),
                references=references,
                successes=successes,
            )
        finally:
            self.rollouts.close()

    def training_prompts(self) -> list[Prompt]:
        return [prompt for prompt in self.engine.asked if not is_heldout(prompt)]


def is_heldout(prompt: Prompt) -> bool:
    """Of an evaluation, under a hindsight prompt too."""
    return prompt.token_ids[: len("heldout")] == tuple(map(ord, "heldout"))
