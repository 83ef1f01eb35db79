"""Engines as Ray actors: spreads prompts over them, merges what they return, keeps them on one version of the weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError

from sdpo.actors import start, threads_each
from sdpo.config import RolloutConfig
from sdpo.errors import MachineError, UserError
from sdpo.logs import redirect_output, tail
from sdpo.rollout.engine import VllmEngine
from sdpo.types import Completion, Prompt, Sampling
from sdpo.weights import PackedWeights

LOAD_TIMEOUT_S = 600.0


class EngineActor:
    """A VllmEngine in a process of its own."""

    def __init__(self, log: Path, model_path: str, max_model_tokens: int, config: RolloutConfig, seed: int) -> None:
        redirect_output(log)
        self._engine = VllmEngine(model_path, max_model_tokens=max_model_tokens, config=config, seed=seed)

    def ready(self) -> bool:
        return True

    def load(self, weights: PackedWeights, version: int) -> int:
        self._engine.load(weights, version=version)
        return self._engine.version

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[list[tuple[Prompt, Completion]]]:
        yield from self._engine.sample(prompts, sampling)


class EngineFleet:
    """The Engine of the loop, over ``config.num_engines`` actors."""

    def __init__(
        self, model_path: str, *, max_model_tokens: int, config: RolloutConfig, seed: int, num_gpus: float, logs: Path
    ) -> None:
        """Starts the actors without waiting; ``num_gpus`` is each one's share."""
        self._config = config
        self._logs = [logs / f"engine-{index}.log" for index in range(config.num_engines)]
        threads = threads_each(config.num_engines)
        self._actors = [
            start(EngineActor, log, model_path, max_model_tokens, config, seed, num_gpus=num_gpus, num_threads=threads)
            for log in self._logs
        ]

    def wait_until_ready(self) -> None:
        """Returns once every engine can sample. Raises UserError with the engine's last words where one cannot."""
        for actor, log in zip(self._actors, self._logs, strict=True):
            try:
                ray.get(actor.ready.remote(), timeout=self._config.start_timeout_s)
            except (RayError, GetTimeoutError) as error:
                raise UserError(
                    f"a rollout engine must start within rollout.start_timeout_s={self._config.start_timeout_s:.0f} s; it did "
                    f"not ({type(error).__name__}). The end of {log}:\n{tail(log)}"
                ) from error

    def load(self, weights: object, *, version: int) -> None:
        """``weights`` is a PackedWeights or, better, a reference to one in Ray's object store."""
        try:
            versions = ray.get([actor.load.remote(weights, version) for actor in self._actors], timeout=LOAD_TIMEOUT_S)
        except (RayError, GetTimeoutError) as error:
            raise MachineError(
                f"a rollout engine did not take the weights of step {version} ({type(error).__name__}); see "
                f"{', '.join(map(str, self._logs))}"
            ) from error
        if versions != [version] * len(self._actors):
            raise MachineError(f"every engine must serve version {version} after a load; they report {versions}")

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[tuple[Prompt, Completion]]:
        """A task's attempts go to one engine, which then computes their prompt once."""
        streams: dict[Any, Path] = {}
        for index, actor in enumerate(self._actors):
            share = [prompt for prompt in prompts if prompt.task_index % len(self._actors) == index]
            if share:
                streams[actor.sample.options(num_returns="streaming").remote(share, sampling)] = self._logs[index]
        while streams:
            ready: list[Any]
            ready, _ = ray.wait(list(streams), num_returns=1, timeout=self._config.stall_timeout_s)
            if not ready:
                raise MachineError(
                    f"no engine returned a completion for rollout.stall_timeout_s={self._config.stall_timeout_s:.0f} s; see "
                    f"{', '.join(map(str, streams.values()))}"
                )
            try:
                ended = ray.get(next(ready[0]))
            except StopIteration:
                del streams[ready[0]]
                continue
            except RayError as error:
                log = streams[ready[0]]
                raise MachineError(f"a rollout engine died while generating. The end of {log}:\n{tail(log)}") from error
            yield from ended
