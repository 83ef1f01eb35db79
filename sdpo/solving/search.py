"""What is known of a search: the fold of its steps, the same whether they happened just now or are read from disk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from sdpo.config import BudgetConfig, HindsightConfig
from sdpo.hindsight.success_buffer import SuccessBuffer
from sdpo.solving.budget import Spent, exhausted
from sdpo.solving.memory import FeedbackMemory
from sdpo.solving.once import digest
from sdpo.types import Attempt, Completion, Finish, Group, Message, Role, SetAside, Task, Verdict


class Ending(str, Enum):
    """Why a search is over."""

    solved = "solved"
    attempts = "attempts"
    tokens = "tokens"
    seconds = "seconds"
    stale = "stale"
    """The attempts stopped varying."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """An attempt, as it is kept."""

    index: int
    """In its step."""
    text: str
    num_tokens: int
    """That the policy generated."""
    finish: str
    reward: float | None
    """None: it was set aside."""
    feedback: str | None
    """The environment's error for one that was set aside."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    turns: tuple[Message, ...] = ()
    """What was said in turn; empty where there was one turn."""

    @property
    def transcript(self) -> tuple[Message, ...]:
        return self.turns or (Message(role=Role.assistant, content=self.text),)

    @property
    def is_solved(self) -> bool:
        return self.reward is not None and self.reward >= 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What happened in one step of a search."""

    number: int
    """From 1."""
    seconds: float
    attempts: tuple[Tried, ...]
    """By their index; those that had no verdict when the step was cut short are missing."""
    learned_rows: int
    """Attempts that the policy learned from."""

    @property
    def spent(self) -> Spent:
        tokens = sum(tried.num_tokens for tried in self.attempts)
        return Spent(attempts=len(self.attempts), tokens=tokens, seconds=self.seconds)


def tried(answers: Mapping[int, Attempt | SetAside]) -> tuple[Tried, ...]:
    """The attempts of a step as they are kept; ``answers`` by where they were asked."""
    return tuple(_tried(index, answers[index]) for index in sorted(answers))


def _tried(index: int, outcome: Attempt | SetAside) -> Tried:
    completion = outcome.completion
    verdict = outcome.verdict if isinstance(outcome, Attempt) else None
    return Tried(
        index=index,
        text=completion.text,
        num_tokens=completion.num_own_tokens,
        finish=completion.finish.value,
        reward=None if verdict is None else verdict.reward,
        feedback=outcome.error if isinstance(outcome, SetAside) else outcome.verdict.feedback,
        metrics={} if verdict is None else dict(verdict.metrics),
        turns=completion.turns if len(completion.turns) > 1 else (),
    )


class Search:
    """A search as far as it has come."""

    def __init__(self, task: Task, hindsight: HindsightConfig) -> None:
        self._task = task
        self.num_steps = 0
        self.spent = Spent()
        self.memory = FeedbackMemory()
        self.verdicts: dict[str, Verdict] = {}
        """By the digest of what was attempted."""
        self.num_repeats = 0
        """Attempts that said what had been said before."""
        self.num_stale = 0
        """Steps in a row without a new text."""
        self.best: Tried | None = None
        self.latest: Tried | None = None
        """The latest failure with feedback."""
        self.solution: Tried | None = None
        self.solved_at: Spent | None = None
        """What had been spent when the solution was reached. Its own step counts up to it in the order of asking, with all of the
        step's seconds."""
        self.num_learned = 0
        self.successes = SuccessBuffer(size=hindsight.success_buffer, demonstration_reward=hindsight.demonstration_reward)
        self._texts: set[str] = set()

    def absorb(self, step: Step) -> None:
        """A step has happened. Its verdicts are remembered, and the order of what was said is that of asking."""
        is_new = False
        for position, one in enumerate(step.attempts):
            key = digest(one.transcript)
            is_repeat = key in self._texts
            self._texts.add(key)
            is_new = is_new or not is_repeat
            self.num_repeats += is_repeat
            if one.reward is None:
                continue
            verdict = Verdict(reward=one.reward, feedback=one.feedback, metrics=one.metrics)
            self.verdicts[key] = verdict
            self._remember(one, verdict)
            if self.best is None or one.reward > (self.best.reward or 0.0):
                self.best = one
            if one.is_solved and self.solution is None:
                before = Step(number=step.number, seconds=step.seconds, attempts=step.attempts[: position + 1], learned_rows=0)
                self.solution, self.solved_at = one, self.spent.plus(before.spent)
            if not one.is_solved:
                self.memory.add(one.feedback)
                self.latest = one if one.feedback else self.latest
        self.num_steps = step.number
        self.spent = self.spent.plus(step.spent)
        self.num_stale = 0 if is_new else self.num_stale + 1
        self.num_learned += step.learned_rows

    def _remember(self, one: Tried, verdict: Verdict) -> None:
        """Among what demonstrates, if it does; of its tokens nothing is needed for that."""
        completion = Completion(
            token_ids=(), logprobs=(), text=one.text, finish=Finish(one.finish), weights_version=0, turns=one.turns
        )
        attempts = (Attempt(completion=completion, verdict=verdict),)
        self.successes.remember([Group(task=self._task, prompt_ids=(), attempts=attempts)])

    def ending(self, budget: BudgetConfig, stale_steps: int) -> Ending | None:
        """Why it is over; None: it goes on."""
        if self.solution is not None:
            return Ending.solved
        limit = exhausted(budget, self.spent)
        if limit is not None:
            return Ending(limit)
        return Ending.stale if stale_steps and self.num_stale >= stale_steps else None


def absorbed(search: Search, steps: Iterable[Step]) -> Search:
    """The search after these steps."""
    for step in steps:
        search.absorb(step)
    return search
