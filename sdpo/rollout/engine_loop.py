"""One thread that runs an engine for as long as its process lives. Others leave orders and take what has ended.

Orders are obeyed by their numbers, from 0, whatever order they arrive in. New weights are such an order: what was asked before
them is answered first, what is asked after them waits for them. With ``partial`` they are loaded between two steps instead, and
what is being continued goes on under them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from sdpo.errors import LearnerLost
from sdpo.forkserver.marks import mark
from sdpo.types import Completion, Prompt, Sampling
from sdpo.weights import PackedWeights, WeightPayload


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A prompt to be continued once."""

    id: str
    prompt: Prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Continue these."""

    requests: tuple[Request, ...]
    sampling: Sampling


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Serve these weights."""

    payload: WeightPayload
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Abort:
    """Forget these requests."""

    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rest:
    """Give the accelerator's memory back until there is work or weights."""


Order = Sample | Load | Abort | Rest


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What an engine samples with."""

    version: int
    checksum: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulse:
    """A sign of life."""

    ended: tuple[tuple[str, Completion], ...]
    """Completions since the last pulse, by the requests' ids."""
    num_steps: int
    """Steps since the engine began. An engine with work whose number stands still is stuck."""


class WeightsLost(LearnerLost):
    """A piece of a payload could not be fetched, so nothing was changed: whoever made it is gone."""


class Stepped(Protocol):
    """The engine: ``VllmEngine``, or a test's."""

    version: int
    checksum: str

    @property
    def has_work(self) -> bool: ...

    def add(self, request_id: str, prompt: Prompt, sampling: Sampling) -> None: ...

    def abort(self, request_ids: Iterable[str]) -> None: ...

    def step(self) -> list[tuple[str, Completion]]: ...

    def rest(self) -> None: ...

    def load(self, buckets: Iterable[PackedWeights], *, version: int) -> None: ...


class EngineLoop:
    """Every method may be called from any thread, and raises what ended the loop's own."""

    def __init__(self, make: Callable[[], Stepped], *, fetch: Callable[[object], PackedWeights], partial: bool) -> None:
        """``make`` is called on the loop's thread, which is the only one that touches the engine. ``fetch`` turns a payload's
        bucket into weights."""
        self._make, self._fetch, self._partial = make, fetch, partial
        self._news = threading.Condition()
        self._orders: dict[int, tuple[Order, Future[Served]]] = {}
        self._next = 0
        self._ended: list[tuple[str, Completion]] = []
        self._num_steps = 0
        self._is_ready = False
        self._failure: BaseException | None = None
        threading.Thread(target=self._run, name="engine", daemon=True).start()

    def wait_until_ready(self) -> None:
        with self._news:
            self._news.wait_for(lambda: self._is_ready or self._failure is not None)
            self._raise_failure()

    def order(self, number: int, order: Order) -> Future[Served]:
        """Leave an order. The future is done when it is obeyed: for weights, when they are served."""
        done: Future[Served] = Future()
        with self._news:
            self._raise_failure()
            self._orders[number] = order, done
            self._news.notify_all()
        return done

    def take(self, wait_s: float) -> Pulse:
        """What has ended, as soon as something has; nothing, where nothing has after ``wait_s`` seconds."""
        with self._news:
            self._news.wait_for(lambda: bool(self._ended) or self._failure is not None, wait_s)
            self._raise_failure()
            ended, self._ended = tuple(self._ended), []
            return Pulse(ended=ended, num_steps=self._num_steps)

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            engine = self._make()
            mark("engine")
            with self._news:
                self._is_ready = True
                self._news.notify_all()
            while True:
                self._obey(engine)
                if engine.has_work:
                    ended = engine.step()
                    if self._num_steps == 0:
                        mark("first token")
                    with self._news:
                        self._num_steps += 1
                        self._ended += ended
                        if ended:
                            self._news.notify_all()
        except BaseException as error:  # noqa: BLE001 - whatever it is, those who wait must hear of it
            with self._news:
                self._failure = error
                for _, done in self._orders.values():
                    done.set_exception(error)
                self._news.notify_all()

    def _obey(self, engine: Stepped) -> None:
        """Obey everything that is to be obeyed before the next step; wait while there is nothing to do."""
        while True:
            with self._news:
                if not engine.has_work:
                    self._news.wait_for(lambda: self._next in self._orders)
                if self._next not in self._orders:
                    return
                order, done = self._orders[self._next]
                if engine.has_work and (isinstance(order, Rest) or (isinstance(order, Load) and not self._partial)):
                    return
                del self._orders[self._next]
                self._next += 1
            try:
                self._carry_out(order, engine)
            except WeightsLost as error:
                done.set_exception(error)
            except BaseException as error:
                done.set_exception(error)
                raise
            else:
                done.set_result(Served(version=engine.version, checksum=engine.checksum))

    def _carry_out(self, order: Order, engine: Stepped) -> None:
        match order:
            case Sample():
                for request in order.requests:
                    engine.add(request.id, request.prompt, order.sampling)
            case Load():
                engine.load(self._fetched(order.payload), version=order.version)
            case Abort():
                engine.abort(order.ids)
            case Rest():
                engine.rest()

    def _fetched(self, payload: WeightPayload) -> list[PackedWeights]:
        """All buckets, before anything is changed: an engine never has parts of two models because somebody else died.

        They are views on shared memory, which holds the whole payload anyway. Raises WeightsLost where one cannot be fetched.
        """
        try:
            return [self._fetch(bucket) for bucket in payload.buckets]
        except Exception as error:
            why = f"{type(error).__name__}: {error}"[:300]
            raise WeightsLost(f"the learner died, so its weights are not there any more ({why})") from error
