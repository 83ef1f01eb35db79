"""What the training loop may ask of a machine. Another way of running is another class behind one of these."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sdpo.config import AlgorithmConfig
from sdpo.types import (
    Attempt,
    Completion,
    Draw,
    Evaluation,
    Group,
    Hint,
    Lift,
    Metrics,
    Prompt,
    Ranks,
    Reply,
    Sample,
    Sampling,
    SetAside,
    Task,
    TokenCredit,
    Update,
)
from sdpo.weights import PackedWeights, WeightPayload

Weights = WeightPayload
"""A whole model's parameters, as a learner makes them and an engine serves them; the loop does not look into them."""


class TokenFilter(Protocol):
    """Says which parts of a response nothing is learned from: ``algorithm.filter``."""

    def flags(self, text: str) -> Sequence[tuple[int, int]]:
        """Half-open ranges of the characters of ``text``, a response, that are masked."""
        ...


class TaskOrder(Protocol):
    """Says which tasks a step asks: ``batch.order``.

    It is made with the number of training tasks, the seed and ``batch.order.options``. What it says depends on these, on the step
    and on what it has learned, and on nothing else: a resumed run makes another one, and tells it the same.
    """

    learns: bool
    """Whether it is told what became of the tasks."""

    def positions(self, step: int, num_before: int, num: int) -> Iterator[int]:
        """Positions in the split: the ``num`` tasks that are asked after ``step`` finished steps, which asked ``num_before``.

        Then those that may stand in for one of them, each once and none of the former.
        """
        ...

    def learn(self, tried: Sequence[tuple[int, Sequence[float]]]) -> None:
        """What a step tried: each task's position, with the rewards of its attempts. Told step by step, in order. Before
        ``positions`` of a step it is told all of those that are more than ``rollout.staleness`` steps older."""
        ...

    def numbers(self) -> Metrics:
        """What the latest positions say of it: keys ``tasks/...`` of ``sdpo.metrics``."""
        ...


class WeightSync(Protocol):
    """How parameters get from the learner's ranks to the engines, bucket by bucket: ``rollout.weight_sync``.

    It is made without arguments, in the process of each rank and of each engine.
    """

    def put(self, bucket: PackedWeights) -> object:
        """In a rank's process: leave the bucket somewhere, and return its place, which is pickled and passed to every engine."""
        ...

    def fetch(self, place: object) -> PackedWeights:
        """In an engine's process: the bucket at ``place``. Raises where it is gone; the engine then serves what it served."""
        ...


class Engine(Protocol):
    """Samples completions with the weights it was given last."""

    def load(self, weights: Weights, *, version: int) -> None:
        """Serve ``weights`` from now on; completions carry ``version``."""
        ...

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[tuple[Prompt, Completion]]:
        """One completion for each prompt, in the order in which they end."""
        ...


class Verifier(Protocol):
    """Judges completions while others are still being generated."""

    def reply(
        self, tasks_P: Sequence[Task], completions: Iterable[tuple[Prompt, Completion]]
    ) -> Iterator[tuple[Prompt, Reply | SetAside]]:
        """What the environment says to each completion, in the order in which it says it."""
        ...

    def verify(
        self, tasks_P: Sequence[Task], completions: Iterable[tuple[Prompt, Completion]]
    ) -> Iterator[tuple[Prompt, Attempt | SetAside]]:
        """One attempt for each completion, in the order in which verdicts arrive. ``Prompt.task_index`` says whose it is."""
        ...


class Renderer(Protocol):
    """Turns messages into token ids; the only user of the chat template."""

    def prompt(self, task: Task) -> tuple[int, ...]:
        """[S] the student's prompt. Raises UserError if it is longer than the run allows."""
        ...

    def reply(self, text: str, *, after: int) -> tuple[int, ...]:
        """What stands between the policy's turn, whose last token is ``after``, and its next one: the environment's ``text``
        among the template's own tokens."""
        ...

    def text(self, token_ids: Sequence[int]) -> str:
        """What the tokens spell, special ones included."""
        ...

    def words(self, token_ids: Sequence[int]) -> Sequence[str]:
        """The same token by token."""
        ...

    def hindsight_prompt(self, task: Task, hint: Hint) -> tuple[int, ...] | None:
        """[Q] the teacher's prompt, cut to the run's limit without touching the question; None where no hint is left."""
        ...

    def with_feedback(self, task: Task, feedbacks: Sequence[str]) -> Task:
        """The task with its question followed by those of ``feedbacks`` that fit, the oldest, the first ones, left out first."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampler:
    """What attempts are made with: the renderer writes a task's prompt, the engine answers it, the verifier judges the answer."""

    engine: Engine
    verifier: Verifier
    renderer: Renderer


class Learner(Protocol):
    """Holds the policy, the teacher and the optimizer."""

    @property
    def step(self) -> int:
        """Steps finished; also the version of the weights."""
        ...

    @property
    def ranks(self) -> Ranks: ...

    def weights(self) -> Weights:
        """The policy as it is now."""
        ...

    def teacher_weights(self) -> Weights | None:
        """The teacher as it is now; None where it has the policy's own weights, and where no one model samples as it does."""
        ...

    def keep_old_logprobs(self, updates: Sequence[Update]) -> None:
        """Keep what the policy says before the step's first update: the π_old of the importance ratios."""
        ...

    def update(self, update: Update, algorithm: AlgorithmConfig) -> Metrics:
        """One optimizer step; a counted no-op where nothing carries a gradient, or where a number is not finite."""
        ...

    def credit(self) -> Sequence[TokenCredit]:
        """What student and teacher said of the tokens of some of the attempts that the step has learned from, in order."""
        ...

    def finish_step(self, *, follow: bool = True) -> None:
        """The teacher follows the policy, unless it shall not; the step counts as done."""
        ...

    def refresh_teacher(self) -> None:
        """The teacher's own weights become the policy's as they are."""
        ...

    def save(self, path: Path, *, score: float | None) -> None:
        """A checkpoint of everything, atomically: ``path`` is whole or is not there. ``score``: held-out success, if known."""
        ...


class Watcher(Protocol):
    """Is told how sampling goes. A class that derives from it does nothing about what it does not override."""

    def phase(self, name: str) -> None:
        """What is done from now on; the time until the next phase of a step is logged as ``time/NAME_s``."""
        return

    def watch(self, completions: Iterable[tuple[Prompt, Completion]], total: int) -> Iterator[tuple[Prompt, Completion]]:
        """The same completions, counted as they pass."""
        ...

    def taken_over(self, completions: Sequence[Completion], total: int) -> None:
        """What a run that was killed had sampled for the step, of ``total`` attempts that it learns from."""
        return

    def judging(self, seconds: float) -> None:
        """How long verdicts were waited for when the last completion was there."""
        return

    def ahead(self, seconds: float) -> None:
        """How long the step's attempts were generated before it asked for them."""
        return

    def drawn(self, draw: Draw) -> None:
        """How the step came to its groups. Not called where it learns from the first that it asked, whatever became of them."""
        return


class StepLog(Watcher, Protocol):
    """Receives what one step reports while it runs."""

    def groups(self, groups_P: Sequence[Group], hints_P_G: Sequence[Sequence[Hint | None]]) -> None:
        """What was attempted, and what hindsight there is."""
        return

    def update(self, metrics: Metrics) -> None:
        """What one optimizer step says of itself."""
        return

    def credit(self, samples: Sequence[Sample], credits: Sequence[TokenCredit]) -> None:
        """What hindsight says of single tokens of the groups; ``samples`` are all rows that were made of them."""
        return


class Rollouts(Protocol):
    """What steps learn from."""

    def of(self, step: int, log: Watcher) -> tuple[Group, ...]:
        """[P] the groups of the step after ``step`` finished ones. The engine must have been given that version of the weights.
        Steps are asked for in order, from the last checkpoint's on where the run goes back to it. Raises what their generation
        raised."""
        ...

    def paused(self) -> AbstractContextManager[None]:
        """While it lasts nothing that will be learned from is being sampled, so that the engine may serve other weights."""
        ...

    def close(self) -> None:
        """Nothing more will be asked for: what is under way is given up."""
        ...


class Report(Protocol):
    """Tells people how the run goes, and keeps it."""

    def step(self, step: int) -> AbstractContextManager[StepLog]: ...

    def evaluating(self, step: int) -> AbstractContextManager[Watcher]:
        """Around an evaluation after ``step`` steps."""
        ...

    def evaluation(self, step: int, evaluation: Evaluation, lift: Lift | None) -> None:
        """What was found after ``step`` steps; no lift where it was not looked for."""
        ...

    def warn(self, sentence: str) -> None:
        """Something that the user should not miss."""
        ...

    def saving(self, step: int) -> AbstractContextManager[None]:
        """Around a checkpoint after ``step`` steps."""
        ...

    @property
    def should_stop(self) -> bool:
        """Whether somebody, or an alarm, asked the run to end after the step."""
        ...
