"""One engine of the fleet as the driver knows it: what it was asked, what it answered and when, and so whether it lives.

An engine is *starting*, then *refitting* (taking the present weights, before it gets any work), then *ready*. It is *suspect*
when it does not answer. It is *dead* when it died, did not start in time, did not answer for too long, or had work and took no
step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from sdpo.cluster import actors
from sdpo.cluster.deaths import DIED, death, num_memory_kills
from sdpo.config import RolloutConfig
from sdpo.rollout.engine_loop import Abort, Load, Order, Pulse, Request, Rest, Sample, Served, WeightsLost
from sdpo.types import Completion, Sampling

PULSE_S = 1.0
"""An engine with nothing to tell answers after that time."""


class Health(Enum):
    starting = "starting"
    refitting = "refitting"
    ready = "ready"
    suspect = "suspect"
    dead = "dead"


class _Call(Enum):
    """What an engine was asked besides loads."""

    process = "process"
    start = "start"
    pulse = "pulse"
    rest = "rest"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A prompt's completion, from the engine that owed it."""

    request: Request
    completion: Completion


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """It can take weights and work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What it serves now that it has obeyed ``load``."""

    load: Load
    served: Served


@dataclass(frozen=True, slots=True, kw_only=True)
class NotLoaded:
    """The weights were gone before it had all of them; it serves what it served."""

    load: Load
    error: WeightsLost


@dataclass(frozen=True, slots=True, kw_only=True)
class Died:
    """Why an engine is not one any more."""

    reason: str
    is_hopeless: bool = False
    """It could not begin, and would not the next time."""
    is_for_memory: bool = False
    """It was killed because its machine had no memory left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """How an engine does, as far as the driver knows."""

    health: Health
    pid: int | None
    """None until it has said so."""
    version: int | None
    """Version of the weights it serves; None before it was given any."""


News = Ended | Started | Loaded | NotLoaded | Died


class Member:
    """An engine, from its first process to its last. Owned by the supervisor's thread; nothing here waits."""

    def __init__(self, index: int, spawn: Callable[[], Any], config: RolloutConfig, log: Path) -> None:
        """``spawn`` starts the actor."""
        self.index, self.log = index, log
        self._spawn, self._config = spawn, config
        self.num_restarts = 0
        """Restarts without a completion in between."""
        self.num_memory_deaths = 0
        """Times that it was killed for memory since the fleet was given weights last, so within a step."""
        self._has_ever_started = False
        self.start()

    def start(self) -> None:
        """Start a new process in this place."""
        self._actor = self._spawn()
        self._process: actors.Process | None = None
        self.health = Health.starting
        self.owed: dict[str, Request] = {}
        self._version: int | None = None
        self._num_orders = self._num_steps = 0
        self._calls: dict[Any, _Call | Load] = {}
        self._began_at = self._asked_at = self._moved_at = time.monotonic()
        self._num_kills = num_memory_kills()
        self._calls[self._actor.process.remote()] = _Call.process
        self._calls[self._actor.wait_until_ready.remote()] = _Call.start

    @property
    def refs(self) -> list[Any]:
        """Questions that are open."""
        return list(self._calls)

    @property
    def condition(self) -> Condition:
        pid = None if self._process is None else self._process.pid
        return Condition(health=self.health, pid=pid, version=self._version)

    @property
    def loads(self) -> list[Load]:
        """Weights it was given and does not serve yet."""
        return [call for call in self._calls.values() if isinstance(call, Load)]

    @property
    def is_going_to_rest(self) -> bool:
        return _Call.rest in self._calls.values()

    @property
    def has_work(self) -> bool:
        return bool(self.owed or self.loads)

    def give(self, requests: list[Request], sampling: Sampling) -> None:
        if not self.has_work:
            self._moved_at = time.monotonic()
        self.owed.update((request.id, request) for request in requests)
        self._order(Sample(requests=tuple(requests), sampling=sampling))

    def forget(self, ids: list[str]) -> None:
        """Have it forget requests that nobody waits for any more."""
        mine = tuple(request_id for request_id in ids if self.owed.pop(request_id, None) is not None)
        if mine:
            self._order(Abort(ids=mine))

    def load(self, load: Load) -> None:
        if not self.has_work:
            self._moved_at = time.monotonic()
        if self.health is Health.starting:
            self.health = Health.refitting
        self._calls[self._order(load)] = load

    def rest(self) -> None:
        """Have it rest once it is through with what it has."""
        self._calls[self._order(Rest())] = _Call.rest

    def hear(self, ref: Any) -> Iterator[News]:
        """The news in the answer to a question; completions that are not owed any more are dropped."""
        call = self._calls.pop(ref, None)
        if call is None:
            return
        try:
            answer = ray.get(ref)
        except RayTaskError as error:
            if isinstance(error.cause, WeightsLost) and isinstance(call, Load):
                yield NotLoaded(load=call, error=error.cause)
                return
            cause = str(error.cause).partition("\n")[0]
            never_could = (
                call is _Call.start and not self._has_ever_started
            )  # else the memory of the last one may not be free yet
            yield Died(reason=f"{type(error.cause).__name__}: {cause}", is_hopeless=never_could)
            return
        except RayError as error:
            yield self._died(error)
            return
        match call:
            case _Call.process:
                self._process = answer
            case _Call.start:
                self._has_ever_started = True
                self._beat()
                yield Started()
            case _Call.pulse:
                self._beat()
                yield from self._felt(answer)
            case _Call.rest:
                pass
            case Load():
                self._moved_at, self._version = time.monotonic(), answer.version
                yield Loaded(load=call, served=answer)

    def _died(self, error: RayError) -> Died:
        pid = None if self._process is None else self._process.pid
        how = death(error, pid=pid, num_kills_before=self._num_kills)
        if how.words != DIED:
            return Died(reason=f"its process {how.words}", is_for_memory=how.is_for_memory)
        died = isinstance(error, RayActorError)
        return Died(reason=f"its process died{actors.and_lost_nodes()}" if died else f"{type(error).__name__}: {error}")

    def complaint(self) -> Died | None:
        """Died, where it has been starting, silent or stuck for too long; else None. A silent one becomes suspect before."""
        now = time.monotonic()
        if self.health is Health.dead:
            return None
        if _Call.start in self._calls.values():
            limit = self._config.start_timeout_s
            late = now - self._began_at > limit
            reason = f"it did not start within rollout.start_timeout_s={limit:g}"
            return Died(reason=f"{reason}{actors.and_lost_nodes()}") if late else None
        silent_s = now - self._asked_at
        if silent_s > self._config.silence_s:
            return Died(reason=f"it did not answer for rollout.silence_s={self._config.silence_s:g} s")
        if silent_s > self._config.silence_s / 4 and self.health is Health.ready:
            self.health = Health.suspect
        if self.has_work and now - self._moved_at > self._config.stall_timeout_s:
            return Died(reason=f"it had work and took no step for rollout.stall_timeout_s={self._config.stall_timeout_s:g} s")
        return None

    def bury(self) -> list[Request]:
        """End the process for certain. Returns what it still owed."""
        self.health = Health.dead
        actors.kill(self._actor, self._process)
        owed, self.owed = list(self.owed.values()), {}
        self._calls = {}
        return owed

    def _felt(self, pulse: Pulse) -> Iterator[Ended]:
        if pulse.num_steps != self._num_steps:
            self._num_steps, self._moved_at = pulse.num_steps, time.monotonic()
        if self.health is Health.suspect:
            self.health = Health.ready
        for request_id, completion in pulse.ended:
            request = self.owed.pop(request_id, None)
            if request is not None:
                self.num_restarts = 0
                yield Ended(request=request, completion=completion)

    def _beat(self) -> None:
        """Ask for the next sign of life."""
        self._asked_at = time.monotonic()
        self._num_kills = num_memory_kills()
        self._calls[self._actor.take.remote(PULSE_S)] = _Call.pulse

    def _order(self, order: Order) -> Any:
        """Send an order with its number: orders are obeyed as they are given here, whatever order they arrive in."""
        number, self._num_orders = self._num_orders, self._num_orders + 1
        return self._actor.order.remote(number, order)
