"""Fakes of the protocols, for the loop alone: what they are asked is what the tests look at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sdpo.config import AlgorithmConfig
from sdpo.protocols import StepLog
from sdpo.types import (
    Attempt,
    Completion,
    Draw,
    Evaluation,
    Finish,
    Group,
    Hint,
    Lift,
    Message,
    Metrics,
    Prompt,
    Ranks,
    Role,
    Sampling,
    SetAside,
    Task,
    TokenCredit,
    Update,
    Verdict,
)


def task(name: str) -> Task:
    return Task(id=name, env="fake", messages=(Message(role=Role.user, content=name),))


@dataclass
class FakeEngine:
    """Answers with the attempt's index; remembers loads and prompts."""

    events: list[str]
    version: int = -1
    weights: object = None
    asked: list[Prompt] = field(default_factory=list)

    def load(self, weights: object, *, version: int) -> None:
        self.version, self.weights = version, weights
        self.events.append(f"load {version}" if weights == "weights" else f"load {weights}")

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[tuple[Prompt, Completion]]:
        self.events.append("sample")
        self.asked += prompts
        for prompt in reversed(prompts):
            text = str(prompt.attempt_index)
            yield (
                prompt,
                Completion(
                    token_ids=(1 + prompt.attempt_index, 9),
                    logprobs=(-1.0, -1.0),
                    text=text,
                    finish=Finish.stop,
                    weights_version=self.version,
                ),
            )


@dataclass
class FakeVerifier:
    """Solved for even answers; breaks where it is told to."""

    broken: frozenset[str] = frozenset()

    def verify(
        self, tasks_P: Sequence[Task], completions: Iterable[tuple[Prompt, Completion]]
    ) -> Iterator[tuple[Prompt, Attempt | SetAside]]:
        for prompt, completion in completions:
            if tasks_P[prompt.task_index].id in self.broken:
                yield prompt, SetAside(completion=completion, error="Traceback: the verifier broke")
            else:
                solved = int(completion.text) % 2 == 0
                verdict = Verdict(reward=float(solved), feedback=None if solved else "odd")
                yield prompt, Attempt(completion=completion, verdict=verdict)


class FakeRenderer:
    """One token a character."""

    def prompt(self, task: Task) -> tuple[int, ...]:
        return tuple(map(ord, task.id))

    def text(self, token_ids: Sequence[int]) -> str:
        return "".join(self.words(token_ids))

    def words(self, token_ids: Sequence[int]) -> tuple[str, ...]:
        return tuple(map(chr, token_ids))

    def hindsight_prompt(self, task: Task, hint: Hint) -> tuple[int, ...]:
        return (*self.prompt(task), *map(ord, hint.of("demonstration") or ""), *map(ord, hint.of("feedback") or ""))


@dataclass
class FakeLearner:
    """Counts; its updates are kept to be looked at."""

    events: list[str]
    ranks: Ranks
    step: int = 0
    updates: list[Update] = field(default_factory=list)
    saved: list[Path] = field(default_factory=list)
    scores: list[float | None] = field(default_factory=list)
    """Of the checkpoints in ``saved``."""
    teacher: object | None = None
    """Its weights, where they are not the policy's."""
    algorithms: list[AlgorithmConfig] = field(default_factory=list)
    """Of the updates."""

    def weights(self) -> object:
        return "weights"

    def teacher_weights(self) -> object | None:
        return self.teacher

    def keep_old_logprobs(self, updates: Sequence[Update]) -> None:
        self.events.append("anchor")

    def update(self, update: Update, algorithm: AlgorithmConfig) -> Metrics:
        self.events.append("update")
        self.updates.append(update)
        self.algorithms.append(algorithm)
        return {"updates": 1.0}

    def credit(self) -> Sequence[TokenCredit]:
        return ()

    def finish_step(self, *, follow: bool = True) -> None:
        self.events.append("finish" if follow else "finish, teacher stays")
        self.step += 1

    def refresh_teacher(self) -> None:
        self.events.append("refresh")

    def save(self, path: Path, *, score: float | None) -> None:
        self.events.append("save")
        self.saved.append(path)
        self.scores.append(score)


@dataclass
class FakeReport(StepLog):
    """Keeps what it is told; asks for a stop after ``stop_after`` steps."""

    events: list[str]
    stop_after: int = 10**9
    finished: int = 0
    evaluations: list[int] = field(default_factory=list)
    lifts: list[Lift | None] = field(default_factory=list)
    """Of the evaluations."""
    warnings: list[str] = field(default_factory=list)
    groups_seen: list[tuple[Group, ...]] = field(default_factory=list)
    hints_seen: list[Sequence[Sequence[Hint | None]]] = field(default_factory=list)
    watched: list[tuple[int, int]] = field(default_factory=list)
    """Of each time that completions were waited for: how many came, and how many were to come."""
    judgings: list[float] = field(default_factory=list)
    """Of each step, how long verdicts were waited for after the last completion."""
    draws: list[Draw] = field(default_factory=list)
    takeovers: list[tuple[int, int]] = field(default_factory=list)
    """Of each time that attempts were taken over from a killed run: how many, of how many."""

    @property
    def should_stop(self) -> bool:
        return self.finished >= self.stop_after

    @contextmanager
    def step(self, step: int) -> Iterator[FakeReport]:
        yield self
        self.finished += 1

    @contextmanager
    def evaluating(self, step: int) -> Iterator[FakeReport]:
        yield self

    @contextmanager
    def saving(self, step: int) -> Iterator[None]:
        yield

    def evaluation(self, step: int, evaluation: Evaluation, lift: Lift | None) -> None:
        self.events.append(f"evaluation {step}")
        self.evaluations.append(step)
        self.lifts.append(lift)

    def warn(self, sentence: str) -> None:
        self.warnings.append(sentence)

    def watch(self, completions: Iterable[tuple[Prompt, Completion]], total: int) -> Iterator[tuple[Prompt, Completion]]:
        num = 0
        for num, answer in enumerate(completions, start=1):  # noqa: B007 - counted to the last
            yield answer
        self.watched.append((num, total))

    def taken_over(self, completions: Sequence[Completion], total: int) -> None:
        self.takeovers.append((len(completions), total))

    def judging(self, seconds: float) -> None:
        self.judgings.append(seconds)

    def drawn(self, draw: Draw) -> None:
        self.draws.append(draw)

    def groups(self, groups_P: Sequence[Group], hints_P_G: Sequence[Sequence[Hint | None]]) -> None:
        self.groups_seen.append(tuple(groups_P))
        self.hints_seen.append(hints_P_G)
