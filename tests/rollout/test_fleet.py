"""What the fleet remembers between calls, on engines that are not there."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

import pytest

from sdpo.config import RolloutConfig
from sdpo.rollout import fleet, supervisor
from sdpo.rollout.engine_loop import WeightsLost
from sdpo.rollout.fleet import EngineFleet
from sdpo.rollout.member import Health, News, Started
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
