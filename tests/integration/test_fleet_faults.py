"""Engines that die, hang or lose their weights, for certain and at the worst moment: every prompt is answered once, with the same
tokens as if nothing had happened, and an engine that comes back serves the present weights before it gets any work."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray
from transformers import AutoModelForCausalLM

from sdpo.cluster.actors import start
from sdpo.config import Dtype, RolloutConfig
from sdpo.errors import MachineError, UserError
from sdpo.rollout.engine_loop import WeightsLost
from sdpo.rollout.fleet import EngineFleet
from sdpo.rollout.member import Condition, Health
from sdpo.types import Prompt, Sampling
from sdpo.weights import WeightPayload, weight_payload

pytestmark = pytest.mark.integration
SILENCE_S = 6.0
PROMPTS = [
    Prompt(token_ids=tuple(range(5, 25 + task)), seed=100 * task + attempt, task_index=task, attempt_index=attempt)
    for task in range(4)
    for attempt in range(8)
]
SAMPLING = Sampling(temperature=1.0, top_p=1.0, max_response_tokens=150)
Tokens = dict[int, tuple[int, ...]]


class Fleet:
    """Two engines, and what they said of themselves."""

    def __init__(self, model: Path, logs: Path) -> None:
        self.model, self.told = model, list[str]()
        config = RolloutConfig(num_engines=2, dtype=Dtype.float32, kv_cache_gib=1, silence_s=SILENCE_S, restart_backoff_s=0.1)
        self.engines = EngineFleet(
            str(model), max_model_tokens=300, config=config, seed=0, num_gpus=0.0, logs=logs, on_event=self.told.append
        )
        self.version = 0
        self.engines.wait_until_ready()
        self.engines.load(self.weights(), version=0)
        self.undisturbed = self.sample(lambda: None)

    def weights(self) -> WeightPayload:
        model = AutoModelForCausalLM.from_pretrained(self.model)
        return weight_payload(model.named_parameters(), bucket_bytes=100_000, put=ray.put)

    def sample(self, disturb: Callable[[], None]) -> Tokens:
        """By seed; ``disturb`` is called when the first has ended."""
        tokens: Tokens = {}
        for prompt, completion in self.engines.sample(PROMPTS, SAMPLING):
            if not tokens:
                disturb()
            assert prompt.seed not in tokens, "an attempt came twice"
            assert completion.weights_version == self.version
            tokens[prompt.seed] = completion.token_ids
        return tokens

    def send(self, index: int, number: int) -> None:
        """A signal to an engine's process."""
        pid = self.engines.conditions()[index].pid
        assert pid is not None
        os.kill(pid, number)

    def until(self, is_so: Callable[[tuple[Condition, ...]], bool], limit_s: float = 120.0) -> None:
        began = time.monotonic()
        while not is_so(self.engines.conditions()):
            assert time.monotonic() - began < limit_s, (self.engines.conditions(), self.told)
            time.sleep(0.01)

    def recovered(self, name: str, since: float) -> None:
        """Both are ready again, with the present weights; says how long it took."""
        self.until(lambda all_of: all(one.health is Health.ready and one.version == self.version for one in all_of))
        print(f"FAULT {name} recovered_s={time.monotonic() - since:.1f}")

    def load_next(self) -> None:
        self.version += 1
        self.engines.load(self.weights(), version=self.version)
        assert {one.version for one in self.engines.conditions() if one.health is Health.ready} == {self.version}


@pytest.fixture(scope="module")
def fleet(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Iterator[Fleet]:
    fleet = Fleet(tiny_model, tmp_path_factory.mktemp("logs"))
    yield fleet
    fleet.engines.close()


def test_killed_while_generating(fleet: Fleet) -> None:
    began = time.monotonic()
    assert fleet.sample(lambda: fleet.send(1, signal.SIGKILL)) == fleet.undisturbed
    fleet.recovered("engine-killed-while-generating", began)
    fleet.load_next()


def test_both_killed_while_generating(fleet: Fleet) -> None:
    def disturb() -> None:
        fleet.send(0, signal.SIGKILL)
        fleet.send(1, signal.SIGKILL)

    began = time.monotonic()
    assert fleet.sample(disturb) == fleet.undisturbed
    fleet.recovered("both-engines-killed-while-generating", began)
    fleet.load_next()


def test_killed_while_loading(fleet: Fleet) -> None:
    """Stopped first, so that it has taken the order and not carried it out."""
    fleet.send(0, signal.SIGSTOP)
    loading = threading.Thread(target=fleet.load_next)
    loading.start()
    time.sleep(0.5)
    assert loading.is_alive(), "a load must wait for every engine that lives"
    began = time.monotonic()
    fleet.send(0, signal.SIGKILL)
    loading.join(30.0)
    assert not loading.is_alive()
    fleet.recovered("engine-killed-while-loading", began)
    assert fleet.sample(lambda: None) == fleet.undisturbed


def test_killed_while_starting(fleet: Fleet) -> None:
    began = time.monotonic()
    fleet.send(0, signal.SIGKILL)
    fleet.until(lambda all_of: all_of[0].health is Health.starting and all_of[0].pid is not None)
    time.sleep(1.0)
    fleet.send(0, signal.SIGKILL)
    assert fleet.sample(lambda: None) == fleet.undisturbed  # meanwhile the other does all
    fleet.recovered("engine-killed-while-starting", began)
    fleet.load_next()


def test_stopped_with_work_to_do(fleet: Fleet) -> None:
    """Stopped before it gets the work: later, on a busy machine, it may have done all of it."""
    began = time.monotonic()
    fleet.send(1, signal.SIGSTOP)
    assert fleet.sample(lambda: None) == fleet.undisturbed
    assert any("did not answer" in sentence for sentence in fleet.told)
    fleet.recovered("engine-stopped", began)
    fleet.load_next()


class Owner:
    """Should have made a piece of the weights, as a rank of the learner does, and died over it."""

    def piece(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def test_weights_that_got_lost_half_way_change_nothing(fleet: Fleet) -> None:
    doomed = start(Owner).piece.remote()
    weights = fleet.weights()
    half = WeightPayload(buckets=(*weights.buckets, doomed), checksum=weights.checksum, num_bytes=weights.num_bytes)
    with pytest.raises(WeightsLost):
        fleet.engines.load(half, version=fleet.version + 1)
    assert fleet.sample(lambda: None) == fleet.undisturbed
    fleet.load_next()


def test_weights_with_another_checksum_are_an_error(tiny_model: Path, fleet: Fleet, tmp_path: Path) -> None:
    """The last of them: a fleet that served the wrong weights once is not asked again."""
    weights = fleet.weights()
    with pytest.raises(MachineError, match=r"engine . serves version"):
        fleet.engines.load(WeightPayload(buckets=weights.buckets, checksum="other", num_bytes=weights.num_bytes), version=99)
    with pytest.raises(MachineError, match=r"engine . serves version"):
        list(fleet.engines.sample(PROMPTS, SAMPLING))


def test_an_engine_that_cannot_start_says_why_and_is_not_tried_again(tmp_path: Path, ray_cluster: None) -> None:
    config = RolloutConfig(num_engines=1, kv_cache_gib=1)
    fleet = EngineFleet(str(tmp_path), max_model_tokens=300, config=config, seed=0, num_gpus=0.0, logs=tmp_path / "logs")
    with pytest.raises(UserError, match=r"(?s)must be able to start; engine 0 is not.*The end of"):
        fleet.wait_until_ready()
