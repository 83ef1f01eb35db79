"""The Engine of the loop, over engines in processes of their own: any of them may die at any time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path

from sdpo.cluster import actors
from sdpo.cluster.weight_sync import weight_sync
from sdpo.config import RolloutConfig
from sdpo.forkserver.marks import mark
from sdpo.protocols import Weights
from sdpo.rollout.engine import VllmEngine
from sdpo.rollout.engine_loop import EngineLoop, Load, Order, Pulse, Rest, Served
from sdpo.rollout.member import Condition, Member
from sdpo.rollout.supervisor import Supervisor
from sdpo.run.logs import redirect_output
from sdpo.types import Completion, Prompt, Sampling

NUM_CALLS = 16
"""Questions that an engine's process can have open at once: a pulse, the start, and orders that wait for their turn."""


class EngineActor:
    """A VllmEngine in a process of its own. Each call has a thread; the engine has one for itself."""

    def __init__(
        self, log: Path, model_path: str, max_model_tokens: int, config: RolloutConfig, seed: int, may_rest: bool
    ) -> None:
        redirect_output(log)
        mark("engine's process")
        actors.talk_over_the_clusters_network()
        make = partial(VllmEngine, model_path, max_model_tokens=max_model_tokens, config=config, seed=seed, may_rest=may_rest)
        self._loop = EngineLoop(make, fetch=weight_sync(config.weight_sync).fetch, partial=config.partial)

    def process(self) -> actors.Process:
        return actors.this_process()

    def wait_until_ready(self) -> None:
        self._loop.wait_until_ready()

    def order(self, number: int, order: Order) -> Served | None:
        """Pass an order on. Returns when weights are served, or for a rest when the memory is free; for others at once."""
        done = self._loop.order(number, order)
        return done.result() if isinstance(order, Load | Rest) else None

    def take(self, wait_s: float) -> Pulse:
        return self._loop.take(wait_s)


def _silent(sentence: str) -> None:
    """Nobody listens."""


class EngineFleet:
    """The Engine of the loop, over ``config.num_engines`` actors. May be asked from several threads."""

    def __init__(
        self,
        model_path: str,
        *,
        max_model_tokens: int,
        config: RolloutConfig,
        seed: int,
        num_gpus: float,
        logs: Path,
        is_colocated: bool = False,
        on_event: Callable[[str], None] = _silent,
        placements: actors.Placements | None = None,
    ) -> None:
        """Start the actors without waiting. ``num_gpus`` is each one's share.

        ``is_colocated``: the GPU is somebody else's too, to whom it is left between samples. ``on_event`` hears which engines are
        lost and back. ``placements``: where they live, of several machines.
        """
        self._waits_for_weights, self._is_colocated = config.staleness == 0, is_colocated
        self._loading: Future[None] | None = None
        placements = placements or actors.Placements.anywhere(config.num_engines)
        start = partial(
            actors.start, num_gpus=num_gpus, num_threads=placements.num_threads, max_concurrency=NUM_CALLS, kind="engine"
        )

        def spawn(log: Path, placement: actors.ActorPlacement | None) -> object:
            return start(EngineActor, log, model_path, max_model_tokens, config, seed, is_colocated, placement=placement)

        files = [logs / f"engine-{index}.log" for index in range(config.num_engines)]
        members = [
            Member(index, partial(spawn, log, placement), config, log)
            for index, (log, placement) in enumerate(zip(files, placements.placements, strict=True))
        ]
        self._supervisor = Supervisor(members, config, on_event)

    def wait_until_ready(self) -> None:
        """Returns once every engine can sample. Raises UserError with the engine's last words where one never will."""
        self._supervisor.readiness().result()

    def when_ready(self, call: Callable[[], object]) -> None:
        """Call ``call``, from another thread, once every engine can sample or one never will."""
        self._supervisor.readiness().add_done_callback(lambda _: call())

    def load(self, weights: Weights, *, version: int) -> None:
        """Send ``weights``, better of places than of buckets in memory.

        Returns when every living engine serves them. With ``rollout.staleness`` it returns at once. What went wrong is
        then raised by the first sample that begins after it is known, unless newer weights were sent before.
        """
        loading = self._supervisor.load(Load(payload=weights, version=version))
        if self._waits_for_weights:
            loading.result()
            mark("weights")
        else:
            self._loading = loading

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[tuple[Prompt, Completion]]:
        """One completion for each prompt, as they end, asked for at the first ``next``.

        Closing the iterator early makes the engines forget the rest.
        """
        if self._loading is not None and self._loading.done():
            self._loading.result()
        job = self._supervisor.ask(prompts, sampling)
        remaining = len(prompts)
        try:
            while remaining:
                answer = job.outbox.get()
                if isinstance(answer, Exception):
                    raise answer
                remaining -= 1
                if not remaining and self._is_colocated:
                    self._supervisor.rest().result()
                yield answer
        finally:
            if remaining:
                self._supervisor.cancel(job)

    def conditions(self) -> tuple[Condition, ...]:
        """The condition of each engine."""
        return self._supervisor.conditions()

    def close(self) -> None:
        """Ask for nothing any more; the actors end with Ray."""
        self._supervisor.close()
