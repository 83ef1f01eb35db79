"""The thread that runs an engine, with an engine of which every step is known."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager

import pytest
import torch

from sdpo.rollout.engine_loop import Abort, EngineLoop, Load, Request, Rest, Sample, Served, WeightsLost
from sdpo.types import Completion, Finish, Prompt, Sampling
from sdpo.weights import PackedWeights, WeightPayload, weight_payload

SAMPLING = Sampling(temperature=1.0, top_p=1.0, max_response_tokens=4)


class Slow:
    """Takes as many steps for a prompt as its seed says; may only go on when it is let."""

    def __init__(self) -> None:
        self.version, self.checksum = -1, ""
        self.may_step = threading.Semaphore(0)
        self.running: dict[str, int] = {}
        self.thread = threading.get_ident()
        self.breaks = False
        self.num_rests = 0

    @property
    def has_work(self) -> bool:
        return bool(self.running)

    def add(self, request_id: str, prompt: Prompt, sampling: Sampling) -> None:
        assert threading.get_ident() == self.thread
        self.running[request_id] = prompt.seed

    def abort(self, request_ids: Iterable[str]) -> None:
        for request_id in request_ids:
            self.running.pop(request_id, None)

    def step(self) -> list[tuple[str, Completion]]:
        assert threading.get_ident() == self.thread
        self.may_step.acquire()
        if self.breaks:
            raise ValueError("the engine broke")
        self.running = {request_id: left - 1 for request_id, left in self.running.items()}
        ended = [request_id for request_id, left in self.running.items() if left == 0]
        self.running = {request_id: left for request_id, left in self.running.items() if left > 0}
        return [(request_id, self.completion()) for request_id in ended]

    def completion(self) -> Completion:
        return Completion(token_ids=(1,), logprobs=(0.0,), text="", finish=Finish.stop, weights_version=self.version)

    def rest(self) -> None:
        assert not self.has_work
        self.num_rests += 1

    def load(self, buckets: Iterable[PackedWeights], *, version: int) -> None:
        assert threading.get_ident() == self.thread
        assert len(list(buckets)) == 2
        self.version, self.checksum = version, f"checksum {version}"


def requests(**seeds: int) -> Sample:
    prompts = [
        Request(id=name, prompt=Prompt(token_ids=(1,), seed=seed, task_index=0, attempt_index=0)) for name, seed in seeds.items()
    ]
    return Sample(requests=tuple(prompts), sampling=SAMPLING)


def weights(version: int, *, lost: bool = False) -> Load:
    payload = weight_payload([("a", torch.ones(100)), ("b", torch.zeros(100))], bucket_bytes=400)
    buckets = (payload.buckets[0], "lost") if lost else payload.buckets
    return Load(payload=WeightPayload(buckets=buckets, checksum=payload.checksum, num_bytes=1), version=version)


def fetch(bucket: object) -> PackedWeights:
    if not isinstance(bucket, PackedWeights):
        raise KeyError(bucket)
    return bucket


@contextmanager
def looped(*, partial: bool = False) -> Iterator[tuple[EngineLoop, Slow]]:
    made: Future[Slow] = Future()

    def make() -> Slow:
        made.set_result(Slow())
        return made.result()

    loop = EngineLoop(make, fetch=fetch, partial=partial)
    loop.wait_until_ready()
    engine = made.result()
    yield loop, engine
    engine.may_step.release(1000)


def taken(loop: EngineLoop, num: int) -> list[tuple[str, int]]:
    """Names and versions of the next ``num`` that end."""
    ended: list[tuple[str, int]] = []
    while len(ended) < num:
        pulse = loop.take(5.0)
        assert pulse.ended, "nothing ended in 5 s"
        ended += [(name, completion.weights_version) for name, completion in pulse.ended]
    return ended


def test_weights_wait_for_what_was_asked_before_them_and_what_is_asked_after_waits_for_them() -> None:
    with looped() as (loop, engine):
        loop.order(0, weights(1)).result(5.0)
        loop.order(1, requests(a=1, b=3))
        loaded = loop.order(2, weights(2))
        loop.order(3, requests(c=1))
        engine.may_step.release()
        assert taken(loop, 1) == [("a", 1)]
        assert not loaded.done()
        engine.may_step.release(10)
        assert taken(loop, 2) == [("b", 1), ("c", 2)]
        assert loaded.result(5.0) == Served(version=2, checksum="checksum 2")


def test_partial_weights_come_between_two_steps() -> None:
    with looped(partial=True) as (loop, engine):
        loop.order(0, weights(1)).result(5.0)
        loop.order(1, requests(a=2))
        loaded = loop.order(2, weights(2))
        engine.may_step.release()
        assert loaded.result(5.0).version == 2
        engine.may_step.release()
        assert taken(loop, 1) == [("a", 2)]


def test_orders_are_obeyed_by_number_whatever_order_they_arrive_in() -> None:
    with looped() as (loop, engine):
        engine.may_step.release(10)
        later = loop.order(1, weights(2))
        last = loop.order(2, requests(a=1))
        assert not later.done()
        loop.order(0, weights(1)).result(5.0)
        assert later.result(5.0).version == 2
        last.result(5.0)
        assert taken(loop, 1) == [("a", 2)]


def test_lost_weights_change_nothing() -> None:
    with looped() as (loop, engine):
        loop.order(0, weights(1)).result(5.0)
        with pytest.raises(WeightsLost):
            loop.order(1, weights(2, lost=True)).result(5.0)
        engine.may_step.release(10)
        loop.order(2, requests(a=1))
        assert taken(loop, 1) == [("a", 1)]


def test_an_aborted_request_does_not_end() -> None:
    with looped() as (loop, engine):
        loop.order(0, requests(a=2, b=2)).result(5.0)
        loop.order(1, Abort(ids=("a",)))
        engine.may_step.release(10)
        assert taken(loop, 1) == [("b", -1)]
        assert loop.take(0.1).ended == ()


def test_an_engine_rests_when_it_is_through_with_what_was_asked_before() -> None:
    with looped() as (loop, engine):
        loop.order(0, requests(a=2))
        rested = loop.order(1, Rest())
        engine.may_step.release()
        assert not rested.done()
        engine.may_step.release(10)
        rested.result(5.0)
        assert engine.num_rests == 1
        loop.order(2, requests(b=1))
        assert [name for name, _ in taken(loop, 2)] == ["a", "b"]


@pytest.mark.parametrize("wait", [lambda loop: loop.take(5.0), lambda loop: loop.wait_until_ready()], ids=["take", "ready"])
def test_what_ends_the_engine_reaches_everybody(wait: Callable[[EngineLoop], object]) -> None:
    with looped() as (loop, engine):
        engine.breaks = True
        loop.order(0, requests(a=1))
        loaded = loop.order(1, weights(1))
        engine.may_step.release()
        with pytest.raises(ValueError, match="the engine broke"):
            loaded.result(5.0)
        with pytest.raises(ValueError, match="the engine broke"):
            wait(loop)
        with pytest.raises(ValueError, match="the engine broke"):
            loop.order(2, requests(b=1))


def test_an_engine_that_cannot_be_made_says_why() -> None:
    def make() -> Slow:
        raise OSError("no such model")

    loop = EngineLoop(make, fetch=fetch, partial=False)
    with pytest.raises(OSError, match="no such model"):
        loop.wait_until_ready()


def test_steps_are_counted() -> None:
    with looped() as (loop, engine):
        loop.order(0, requests(a=3))
        engine.may_step.release(10)
        assert loop.take(5.0).num_steps == 3
