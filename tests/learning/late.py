"""Rollouts that are as stale as ``rollout.staleness`` allows: what a fast fleet beside a slow learner amounts to, repeatably.

``sdpo.attempts.generation.Ahead`` generates the same batches by a thread, each at most as many steps old; how old depends there
on who is faster. Here the loop's own thread generates them, as early as they may be.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from sdpo.attempts.asking import Answered, Answers, Asked, Questions
from sdpo.protocols import StepLog
from sdpo.types import Group


class Late:
    """The Rollouts of a run whose batches are ``staleness`` steps old when they are learned from; the first ones, as old as the
    run."""

    def __init__(self, questions: Questions, answers: Answers, *, staleness: int, num_steps: int) -> None:
        self._questions, self._answers = questions, answers
        self._staleness, self._num_steps = staleness, num_steps
        self._next_step = 0
        self._waiting: dict[int, tuple[Asked, Answered]] = {}

    def of(self, step: int, log: StepLog) -> tuple[Group, ...]:
        last = min(step + self._staleness, self._num_steps - 1)
        for number in range(self._next_step, last + 1):
            what = self._questions.of(number)
            self._waiting[number] = what, self._answers.to(what, log)
        self._next_step = last + 1
        return self._questions.note(*self._waiting.pop(step), log)

    def paused(self) -> AbstractContextManager[None]:
        return nullcontext()

    def close(self) -> None:
        """Nothing is under way."""
