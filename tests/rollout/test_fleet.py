"""What the fleet remembers between calls, on engines that are not there."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

import pytest

from sdpo.config import RolloutConfig
from sdpo.errors import OutOfMemory
from sdpo.rollout import fleet, supervisor
from sdpo.rollout.engine_loop import Request, WeightsLost
from sdpo.rollout.fleet import EngineFleet
from sdpo.rollout.member import Died, Health, News, Started
from sdpo.types import Sampling
from sdpo.weights import WeightPayload

SAMPLING = Sampling(temperature=1.0, top_p=1.0, max_response_tokens=8)
WEIGHTS = WeightPayload(buckets=(), checksum="", num_bytes=0)


def test_weights_that_are_sent_again_make_up_for_lost_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With rollout.staleness every rebuilt learner met the error of the first one's weights again, until the run gave up."""
    lost, served = Future[None](), Future[None]()
    lost.set_exception(WeightsLost("who sent them is gone"))
    served.set_result(None)
    futures = [lost, served]
    asked = SimpleNamespace(load=lambda load: futures.pop(0), ask=lambda prompts, sampling: None)
    monkeypatch.setattr(fleet, "Supervisor", lambda members, config, on_event: asked)
    monkeypatch.setattr(fleet, "Member", lambda *about: None)
    config = RolloutConfig(staleness=1)
    engines = EngineFleet("model", max_model_tokens=16, config=config, seed=0, num_gpus=0.0, logs=tmp_path)
    engines.load(WEIGHTS, version=1)
    with pytest.raises(WeightsLost):
        list(engines.sample((), SAMPLING))
    engines.load(WEIGHTS, version=1)
    assert list(engines.sample((), SAMPLING)) == []


class Coming:
    """An engine that is being started, and answers when ``is_up``."""

    def __init__(self) -> None:
        self.index, self.health, self.num_rests = 0, Health.starting, 0
        self.is_up = self.is_going_to_rest = False
        self.owed: dict[str, object] = {}
        self.loads: list[object] = []

    @property
    def refs(self) -> list[str]:
        return ["ready"] if self.is_up else []

    def hear(self, ref: str) -> Iterator[News]:
        self.is_up = False
        yield Started()

    def rest(self) -> None:
        self.num_rests += 1

    def complaint(self) -> None:
        return None


def test_an_engine_that_comes_back_while_the_others_rest_rests_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """It took the GPU's memory beside the learner that worked there."""
    monkeypatch.setattr(supervisor, "ray", SimpleNamespace(wait=lambda refs, num_returns, timeout: (refs, [])))
    engine = Coming()
    watched = supervisor.Supervisor([engine], RolloutConfig(), lambda sentence: None)  # type: ignore[list-item]
    watched.rest().result(10.0)
    assert engine.num_rests == 0
    engine.is_up = True
    watched.readiness().result(10.0)
    assert engine.num_rests == 1
    watched.close()


class Doomed(Coming):
    """An engine that is killed for memory whenever it is started."""

    def __init__(self) -> None:
        super().__init__()
        self.is_up, self.num_starts = True, 1
        self.num_memory_deaths = self.num_restarts = 0
        self.log = Path("engine-0.log")

    def hear(self, ref: str) -> Iterator[News]:
        self.is_up = False
        yield Died(reason="its process was killed by Ray's memory monitor (95 % of 23.5 GiB used)", is_for_memory=True)

    def bury(self) -> list[Request]:
        self.health = Health.dead
        return []

    def start(self) -> None:
        self.is_up, self.health, self.num_starts = True, Health.starting, self.num_starts + 1


def test_an_engine_that_is_killed_for_memory_twice_is_not_started_a_third_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was, up to rollout.max_restarts, and the user was told that its process had died."""
    monkeypatch.setattr(supervisor, "ray", SimpleNamespace(wait=lambda refs, num_returns, timeout: (refs, [])))
    engine = Doomed()
    watched = supervisor.Supervisor([engine], RolloutConfig(), lambda sentence: None)  # type: ignore[list-item]
    with pytest.raises(
        OutOfMemory, match=r"^engine 0 died twice in a step, so .*: its process was killed by Ray's memory monitor"
    ):
        watched.readiness().result(10.0)
    assert engine.num_starts == 2
    watched.close()
