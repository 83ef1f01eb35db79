"""What the supervisor of a fleet is asked. Whoever asks waits for an answer, and gets an error where there will be none."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import SimpleQueue

from sdpo.rollout.engine_loop import Load, Request
from sdpo.types import Completion, Prompt, Sampling


@dataclass(slots=True, eq=False)
class Job:
    """Continue these prompts."""

    sampling: Sampling
    groups: deque[list[Request]]
    """Not handed out yet."""
    unanswered: set[str]
    outbox: SimpleQueue[tuple[Prompt, Completion] | Exception] = field(default_factory=SimpleQueue)

    def fail(self, error: Exception) -> None:
        self.outbox.put(error)


@dataclass(slots=True, eq=False)
class Cancelled:
    """Nobody waits for the rest of a job."""

    job: Job

    def fail(self, error: Exception) -> None:
        """Nobody waits."""


@dataclass(slots=True, eq=False)
class Awaited:
    """A state that is waited for: ``done`` once it is so."""

    done: Future[None] = field(default_factory=Future)

    def fail(self, error: Exception) -> None:
        self.done.set_exception(error)


@dataclass(slots=True, eq=False)
class Readiness(Awaited):
    """Every engine can sample."""


@dataclass(slots=True, eq=False)
class Resting(Awaited):
    """No engine that lives holds an accelerator's memory, until there is work or weights."""


@dataclass(slots=True, eq=False, kw_only=True)
class Loading(Awaited):
    """Every engine that lives serves these weights."""

    load: Load
    is_served: bool = False
    """Whether one engine at least serves them."""


Question = Job | Cancelled | Readiness | Resting | Loading
