"""What does a step learn from, and when is it generated?

``OnPolicy`` generates when the step asks, by the weights that it starts from. ``Ahead`` does so up to ``rollout.staleness`` steps
before, in a thread of its own, while the learner works on earlier steps.

The thread asks the engine and the verifiers. It renders what follows in a conversation, and the tasks that stand in for others
(``algorithm.replacement_rounds``). The loop's thread draws and renders the step's own tasks, and has the terminal.
Several threads at once may ask engine and verifiers, which answer each without waiting for what another does with its answers.
So the thread ends its batch by itself, whatever the loop does or waits for.

``Ahead``, with k = ``rollout.staleness``; a queue's name stands in brackets::

    the loop's thread                                         the thread "rollouts"
      of(s): batches up to s + k are drawn and rendered         waits at [asked]; one batch after the other:
      | each new _Batch                                         |
      +--------------------> [asked], first in, first out ----->+ fill(): the whole batch, all of its turns and replacements
                                                                |   sample: gate held --> EngineFleet
      waits at [events] of batch s                              |     waits at its outbox for completions
      | <------------------- [events], one for each batch <-----+   verify, reply --> VerifierPool
      v                        completions, then the groups     |     waits for replies and verdicts
      learns from batch s; meanwhile the thread goes on with s + 1 .. s + k, which wait whole in [events]
      load(version s + 1): does not wait; engines serve it before anything that is asked from then on
      of(s + 1): batch s + k + 1 may begin
      paused(): waits for the gate, so until nothing is being sampled; then the thread waits for it

``OnPolicy``, k = 0: the loop's thread fills its batch itself; ``load`` waits until all engines serve the weights.

Shapes: P tasks a step.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from queue import SimpleQueue
from threading import Event, Lock, Thread
from traceback import clear_frames

from sdpo.attempts.asking import Answered, Answers, Asked, Questions
from sdpo.attempts.task_stream import TaskStream
from sdpo.config import Config
from sdpo.hindsight.hindsight import Hindsight
from sdpo.protocols import Engine, Rollouts, Sampler, Watcher
from sdpo.run.journal import Journal
from sdpo.types import Completion, Group, Prompt, Sampling

GIVE_UP_AFTER_S = 2.0
"""So long is waited for the thread to notice that nobody will learn from its batch; it does with the next completion."""


def rollouts_of(
    run: Config,
    tasks: TaskStream,
    sampler: Sampler,
    journal: Journal | None = None,
    hindsight: Hindsight | None = None,
) -> Rollouts:
    """As ``rollout.staleness`` says. Without a journal a killed run asks a whole step again. ``hindsight``: as in ``Answers``."""
    questions = Questions(run, tasks, sampler.renderer)
    if run.rollout.staleness == 0:
        return OnPolicy(questions, Answers(run, sampler, journal, hindsight))
    gate = Lock()
    answers = Answers(run, replace(sampler, engine=_Gated(sampler.engine, gate)), journal, hindsight)
    return Ahead(questions, answers, gate, staleness=run.rollout.staleness, num_steps=run.num_steps)


class OnPolicy:
    """The Rollouts of a run whose steps learn from what the weights that they start from sampled."""

    def __init__(self, questions: Questions, answers: Answers) -> None:
        self._questions, self._answers = questions, answers

    def of(self, step: int, log: Watcher) -> tuple[Group, ...]:
        what = self._questions.of(step)
        return self._questions.note(what, self._answers.to(what, log), log)

    def paused(self) -> AbstractContextManager[None]:
        return nullcontext()

    def close(self) -> None:
        """Nothing is under way."""


class Ahead:
    """The Rollouts of a run in which a thread generates one batch after the other, at most ``staleness`` steps ahead.

    When step s asks, the engine serves version s or was sent it before anything that is asked from then on. So the batches up to
    s + staleness may begin. None is sampled by weights that are more than ``staleness`` steps old when it is learned from.
    """

    def __init__(self, questions: Questions, answers: Answers, gate: Lock, *, staleness: int, num_steps: int) -> None:
        """``gate`` is held while a batch is being sampled."""
        self._questions, self._answers, self._gate = questions, answers, gate
        self._staleness, self._num_steps = staleness, num_steps
        self._next_step = 0
        self._under_way: dict[int, _Batch] = {}
        self._asked: SimpleQueue[_Batch | None] = SimpleQueue()
        self._thread = Thread(target=self._generate, name="rollouts", daemon=True)  # it must not keep the process alive
        self._thread.start()

    def of(self, step: int, log: Watcher) -> tuple[Group, ...]:
        asked_at = time.monotonic()
        if step not in self._under_way:  # the first one, or one that the run has gone back to
            self._give_up()
            self._next_step = step
        last = min(step + self._staleness, self._num_steps - 1)  # what nobody will learn from is not generated
        for number in range(self._next_step, last + 1):
            self._under_way[number] = _Batch(self._questions.of(number))
            self._asked.put(self._under_way[number])
        self._next_step = last + 1
        batch = self._under_way[step]
        try:
            return self._questions.note(batch.what, batch.awaited(log, asked_at), log)
        finally:
            batch.is_given_up.set()  # where the waiting was interrupted; else it is whole
            del self._under_way[step]

    @contextmanager
    def paused(self) -> Iterator[None]:
        with self._gate:
            yield

    def close(self) -> None:
        self._give_up()
        self._asked.put(None)
        self._thread.join(GIVE_UP_AFTER_S)

    def _give_up(self) -> None:
        for batch in self._under_way.values():
            batch.is_given_up.set()
        self._under_way.clear()

    def _generate(self) -> None:
        while (batch := self._asked.get()) is not None:
            if not batch.is_given_up.is_set():
                batch.fill(self._answers)


class _Gated:
    """The engine as the thread asks it: never while it is lent to the teacher. Nor is it lent while it answers: a completion may
    go on across a load (``rollout.partial``), and would be the teacher's from there on."""

    def __init__(self, engine: Engine, gate: Lock) -> None:
        self._engine, self._gate = engine, gate

    def load(self, weights: object, *, version: int) -> None:
        raise AssertionError("weights are the loop's to load")

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[tuple[Prompt, Completion]]:
        with self._gate:
            yield from self._engine.sample(prompts, sampling)


@dataclass(frozen=True, slots=True)
class _Round:
    """So many completions follow."""

    total: int


@dataclass(frozen=True, slots=True)
class _TakenOver:
    """``Watcher.taken_over``"""

    completions: Sequence[Completion]
    total: int


@dataclass(frozen=True, slots=True)
class _Judged:
    """``Watcher.judging``, and when that was over; time.monotonic() seconds."""

    seconds: float
    ended: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Filled:
    """The batch, and when it was generated; time.monotonic() seconds."""

    answered: Answered
    began: float
    ended: float


_Event = _Round | tuple[Prompt, Completion] | _TakenOver | _Judged | _Filled | BaseException


class _GivenUp(Exception):
    """Nobody will learn from the batch."""


class _Batch(Watcher):
    """A step's answers on their way from the thread to the loop."""

    def __init__(self, what: Asked) -> None:
        self.what = what
        self.is_given_up = Event()
        self._events: SimpleQueue[_Event] = SimpleQueue()

    def fill(self, answers: Answers) -> None:
        """The thread's side."""
        began = time.monotonic()
        try:
            answered = answers.to(self.what, self)
            self._events.put(_Filled(answered=answered, began=began, ended=time.monotonic()))
        except BaseException as error:  # noqa: BLE001 - the loop waits for the batch, and raises whatever kept it from coming
            clear_frames(error.__traceback__)  # lets go of what was being sampled, and with it of the gate
            self._events.put(error)

    def watch(self, completions: Iterable[tuple[Prompt, Completion]], total: int) -> Iterator[tuple[Prompt, Completion]]:
        self._events.put(_Round(total))
        for answer in completions:
            if self.is_given_up.is_set():
                raise _GivenUp
            self._events.put(answer)
            yield answer

    def taken_over(self, completions: Sequence[Completion], total: int) -> None:
        self._events.put(_TakenOver(completions, total))

    def judging(self, seconds: float) -> None:
        self._events.put(_Judged(seconds, ended=time.monotonic()))

    def awaited(self, log: Watcher, asked_at: float) -> Answered:
        """The loop's side: the batch, once it is whole; until then ``log`` is told of the answers."""
        self._event = self._events.get()
        while not isinstance(self._event, _Filled | BaseException):
            if isinstance(self._event, _TakenOver):
                log.taken_over(self._event.completions, self._event.total)
                self._event = self._events.get()
            elif isinstance(self._event, _Judged):  # as far as the step was there to wait
                log.judging(max(0.0, min(self._event.seconds, self._event.ended - asked_at)))
                self._event = self._events.get()
            else:
                assert isinstance(self._event, _Round)
                for _ in log.watch(self._arrivals(), self._event.total):
                    pass
        if isinstance(self._event, BaseException):
            raise self._event
        log.ahead(max(0.0, min(asked_at, self._event.ended) - self._event.began))
        return self._event.answered

    def _arrivals(self) -> Iterator[tuple[Prompt, Completion]]:
        """Up to the next event of another kind, which is kept."""
        self._event = self._events.get()
        while isinstance(self._event, tuple):
            yield self._event
            self._event = self._events.get()
