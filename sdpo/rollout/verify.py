"""Verifiers as Ray actors: judge each completion as it ends, survive an environment that raises, hangs or dies."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import ray
from ray.exceptions import GetTimeoutError, RayError

from sdpo.cluster.actors import Process, kill, start, this_process
from sdpo.cluster.deaths import DIED, death, num_memory_kills
from sdpo.config import EnvConfig, RolloutConfig, SandboxConfig, SandboxIsolation
from sdpo.envs import registry, sandbox
from sdpo.envs.base import Environment
from sdpo.envs.children import deaf_alone
from sdpo.envs.judging import reply_of, told_at_length, verdict_of
from sdpo.errors import MachineError, UserError
from sdpo.forkserver.marks import mark
from sdpo.run.logs import redirect_output, tail
from sdpo.types import Attempt, Completion, Prompt, Reply, SetAside, Task

_Answer = tuple[Prompt, Attempt | Reply | SetAside]
_MISSED = {"judge": "verdict", "reply": "reply"}


def judge(environment: Environment, task: Task, completion: Completion) -> Attempt | SetAside:
    """The attempt, or the environment's own failure with its traceback: neither an exception nor an odd verdict is a verdict."""
    try:
        verdict = verdict_of(environment, task, completion.transcript)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever an environment raises is its fault, is counted, and must not stop the run
        return _broken(task, completion, error)
    return Attempt(completion=completion, verdict=verdict)


def reply(environment: Environment, task: Task, completion: Completion) -> Reply | SetAside:
    """What the environment says between two turns, or its own failure."""
    try:
        text = reply_of(environment, task, completion.transcript)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - as in judge
        return _broken(task, completion, error)
    return Reply(completion=completion, text=text)


def _broken(task: Task, completion: Completion, error: BaseException) -> SetAside:
    return SetAside(completion=completion, error=f"task {task.id!r}: {told_at_length(error)}")


class VerifierActor:
    """An environment in a process of its own."""

    def __init__(self, log: Path, env: EnvConfig, asked: SandboxConfig) -> None:
        redirect_output(log)
        deaf_alone()
        kind = None if asked.isolation is SandboxIsolation.auto else sandbox.Isolation(asked.isolation.value)
        sandbox.use(sandbox.Settings(isolation=kind, allow_weak=asked.allow_weak))
        self._environment = registry.make(env.name, env.options)
        mark("environment")

    def process(self) -> Process:
        return this_process()

    def judge(self, task: Task, completion: Completion) -> Attempt | SetAside:
        return judge(self._environment, task, completion)

    def reply(self, task: Task, completion: Completion) -> Reply | SetAside:
        return reply(self._environment, task, completion)


class _Question(NamedTuple):
    """What a verifier's process is asked."""

    method: str
    """``"judge"`` or ``"reply"``"""
    prompt: Prompt
    task: Task
    completion: Completion
    answers: deque[_Answer]
    """The queue that the answer goes into: that of the call that asked."""
    has_killed: bool = False
    """Whether a process died over it. One may die of itself, or be killed; a second time, the question is at fault."""


class _Owed(NamedTuple):
    """A question under way."""

    ref: ray.ObjectRef[Attempt | Reply | SetAside]
    question: _Question


@dataclass(slots=True)
class _Worker:
    """An actor and what it still owes, oldest first; it works on the oldest."""

    actor: Any
    """Handle on a VerifierActor."""
    starting: ray.ObjectRef[Process] | None
    """Its answer that it is there; None once that has come. The time limit of a verdict begins only then."""
    process: Process | None = None
    """Known once it is there."""
    owed: deque[_Owed] = field(default_factory=deque)
    since: float = 0.0
    """When the oldest became the oldest, as far as was seen; time.monotonic() seconds."""
    num_kills: int = field(default_factory=num_memory_kills)
    """``num_memory_kills`` when it was asked last."""


class VerifierPool:
    """The Verifier of the loop, over ``config.num_verifiers`` actors.

    Several threads may ask at once. Their questions wait in the same queues, and whoever looks for answers hands out everybody's.
    The lock is held for no longer than a look takes. So no call waits for what another one's completions wait for.
    """

    def __init__(self, env: EnvConfig, asked: SandboxConfig, config: RolloutConfig, logs: Path) -> None:
        self._env, self._sandbox = env, asked
        self._config = config
        self._log = logs / "verifier.log"
        self._lock = Lock()
        self._num_failed_starts = 0
        """Failed starts in a row."""
        self._workers = [self._start() for _ in range(config.num_verifiers)]

    def wait_until_ready(self) -> None:
        """Returns once every verifier has its environment. Raises UserError with a verifier's last words where one has not."""
        for worker in self._workers:
            if worker.starting is None:
                continue
            try:
                worker.process = ray.get(worker.starting, timeout=self._config.start_timeout_s)
            except (RayError, GetTimeoutError) as error:
                raise UserError(
                    f"environment {self._env.name!r} must start in a verifier's process within rollout.start_timeout_s="
                    f"{self._config.start_timeout_s:g} s; it did not ({type(error).__name__}). The end of {self._log}:\n"
                    f"{tail(self._log)}"
                ) from error
            worker.starting = None

    def verify(
        self, tasks_P: Sequence[Task], completions: Iterable[tuple[Prompt, Completion]]
    ) -> Iterator[tuple[Prompt, Attempt | SetAside]]:
        """One attempt for each completion, in the order in which verdicts arrive."""
        for prompt, outcome in self._each("judge", tasks_P, completions):
            assert not isinstance(outcome, Reply)
            yield prompt, outcome

    def reply(
        self, tasks_P: Sequence[Task], completions: Iterable[tuple[Prompt, Completion]]
    ) -> Iterator[tuple[Prompt, Reply | SetAside]]:
        """What the environment says to each completion, in the order in which it says it."""
        for prompt, outcome in self._each("reply", tasks_P, completions):
            assert not isinstance(outcome, Attempt)
            yield prompt, outcome

    def _each(self, method: str, tasks_P: Sequence[Task], completions: Iterable[tuple[Prompt, Completion]]) -> Iterator[_Answer]:
        answers: deque[_Answer] = deque()
        num_asked = num_answered = 0
        for prompt, completion in completions:
            with self._lock:
                task = tasks_P[prompt.task_index]
                question = _Question(method=method, prompt=prompt, task=task, completion=completion, answers=answers)
                self._submit(self._least_busy(), question)
                self._hand_out()
            num_asked += 1
            while answers:
                num_answered += 1
                yield answers.popleft()
        while num_answered < num_asked:
            self._wait(0.1)
            with self._lock:
                self._hand_out()
            while answers:
                num_answered += 1
                yield answers.popleft()

    def _start(self) -> _Worker:
        actor = start(VerifierActor, self._log, self._env, self._sandbox, kind="verifier")
        return _Worker(actor=actor, starting=actor.process.remote())

    def _least_busy(self) -> _Worker:
        return min(self._workers, key=lambda worker: len(worker.owed))

    def _submit(self, worker: _Worker, question: _Question) -> None:
        if not worker.owed:
            worker.since = time.monotonic()
        worker.num_kills = num_memory_kills()
        ref = getattr(worker.actor, question.method).remote(question.task, question.completion)
        worker.owed.append(_Owed(ref=ref, question=question))

    def _wait(self, wait_s: float) -> None:
        """Wait until a worker has an answer, for whichever call, and at most ``wait_s`` seconds."""
        with self._lock:
            heads = [worker.owed[0].ref for worker in self._workers if worker.owed]
        if heads:
            ray.wait(heads, num_returns=1, timeout=wait_s)

    def _hand_out(self) -> None:
        """Hand every answer that is there to whoever asked; replace workers that died or took too long."""
        heads = {worker.owed[0].ref: worker for worker in self._workers if worker.owed}
        if not heads:
            return
        ready, late = ray.wait(list(heads), num_returns=len(heads), timeout=0.0)
        for ref in ready:
            worker = heads[ref]
            question = worker.owed[0].question
            try:
                outcome = ray.get(ref)
            except RayError as error:
                self._note_start(worker)
                self._outlive(worker, f"the verifier's process {self._how(worker, error)}")
                continue
            worker.owed.popleft()
            worker.since, self._num_failed_starts = time.monotonic(), 0
            question.answers.append((question.prompt, outcome))
        for worker in (heads[ref] for ref in late):
            self._note_start(worker)
            if time.monotonic() - worker.since <= self._limit_s(worker):
                continue
            if worker.starting is not None:
                self._outlive(worker, "the verifier's process did not start")
            else:
                missed = _MISSED[worker.owed[0].question.method]
                limit = f"rollout.verify_timeout_s={self._config.verify_timeout_s:g} s"
                self._set_aside(worker, f"the environment gave no {missed} within {limit}")

    def _how(self, worker: _Worker, error: RayError) -> str:
        """The end of a sentence on what happened to a worker."""
        pid = None if worker.process is None else worker.process.pid
        how = death(error, pid=pid, num_kills_before=worker.num_kills)
        return how.words if how.words != DIED else f"died: {type(error).__name__}: {error}"

    def _note_start(self, worker: _Worker) -> None:
        if worker.starting is not None and ray.wait([worker.starting], timeout=0.0)[0]:
            with suppress(RayError):  # it died instead
                worker.process = ray.get(worker.starting)
                worker.starting = None
                worker.since = time.monotonic()

    def _limit_s(self, worker: _Worker) -> float:
        return self._config.verify_timeout_s if worker.starting is None else self._config.start_timeout_s

    def _outlive(self, worker: _Worker, error: str) -> None:
        """Replace a worker that died over its oldest question: that is asked once more, then set aside.

        One that has never begun died of something else. Raises MachineError where none begins any more.
        """
        if worker.starting is not None:
            self._num_failed_starts += 1
            if self._num_failed_starts > self._config.max_restarts:
                raise MachineError(
                    f"a verifier's process failed to start {self._num_failed_starts} times in a row (rollout.max_restarts="
                    f"{self._config.max_restarts}). The end of {self._log}:\n{tail(self._log)}"
                )
            self._replace(worker, [owed.question for owed in worker.owed])
        elif worker.owed[0].question.has_killed:
            self._set_aside(worker, error)
        else:
            first, *others = [owed.question for owed in worker.owed]
            self._replace(worker, [first._replace(has_killed=True), *others])

    def _set_aside(self, worker: _Worker, error: str) -> None:
        """Set aside what the worker was working on; a new process in its place is asked the rest again."""
        failed, *others = [owed.question for owed in worker.owed]
        self._replace(worker, others)
        what = f"task {failed.task.id!r}: {error}"
        failed.answers.append((failed.prompt, SetAside(completion=failed.completion, error=what)))

    def _replace(self, worker: _Worker, questions: Sequence[_Question]) -> None:
        """Put a new process in the worker's place, and ask it these."""
        kill(worker.actor, worker.process)
        successor = self._start()
        worker.actor, worker.starting, worker.process = successor.actor, successor.starting, None
        worker.owed.clear()
        for question in questions:
            self._submit(worker, question)
        worker.since = time.monotonic()
