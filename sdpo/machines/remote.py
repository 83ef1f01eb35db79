"""The engines, the learner and the verifiers of a command as actors: placed, started at the same time, and taken down again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sdpo.batches.packs import why_it_takes_longer
from sdpo.cluster.placement import gpu_shares, placed
from sdpo.config import (
    AlgorithmConfig,
    CheckpointConfig,
    ClusterConfig,
    EnvConfig,
    LearnerConfig,
    RolloutConfig,
    SamplingConfig,
    SandboxConfig,
)
from sdpo.learner.group import LearnerGroup
from sdpo.learner.orders import Recording, Scale
from sdpo.rollout.fleet import EngineFleet
from sdpo.rollout.verify import VerifierPool


class MachinesConfig(Protocol):
    """What the configs of all commands that train have in common."""

    @property
    def algorithm(self) -> AlgorithmConfig: ...
    @property
    def env(self) -> EnvConfig: ...
    @property
    def sandbox(self) -> SandboxConfig: ...
    @property
    def sampling(self) -> SamplingConfig: ...
    @property
    def learner(self) -> LearnerConfig: ...
    @property
    def rollout(self) -> RolloutConfig: ...
    @property
    def cluster(self) -> ClusterConfig: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Models:
    """What is loaded."""

    policy: str
    """A folder; engines and learner begin with it."""
    teacher: str | None = None
    """The folder of an external one."""
    max_tokens: int
    """Tokens of the longest prompt and response that an engine is asked for, together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machines:
    """All of them can work."""

    engine: EngineFleet
    learner: LearnerGroup
    verifier: VerifierPool


@contextmanager
def machines(
    config: MachinesConfig,
    models: Models,
    logs: Path,
    on_event: Callable[[str], None],
    waits_for: Callable[[str], None],
    *,
    seed: int,
    skipped: Path | None = None,
    checkpoints: CheckpointConfig | None = None,
    recording: Recording | None = None,
    when_idle: Callable[[], object] = lambda: None,
) -> Iterator[Machines]:
    """The engines, the learner and the verifiers, up while the block lasts; to be used within ``connected``.

    ``on_event`` is told which engines are lost and back, ``waits_for`` who is not there yet. Updates that are skipped are
    written to ``skipped``. ``checkpoints`` says how many the learner keeps. ``when_idle`` is called when the learner or the
    engines are up, from any thread, maybe twice: a core is free then.
    """
    shares = gpu_shares(config.learner.num_ranks, config.rollout, config.cluster.placement)
    placements = placed(config.cluster, config.learner.num_ranks, config.rollout, shares)
    engine = EngineFleet(
        models.policy,
        max_model_tokens=models.max_tokens,
        config=config.rollout,
        seed=seed,
        num_gpus=shares.engine,
        is_colocated=shares.are_colocated,
        logs=logs,
        on_event=on_event,
        placements=placements.engines,
    )
    try:
        verifier = VerifierPool(config.env, config.sandbox, config.rollout, logs)
        learner = LearnerGroup(
            models.policy,
            teacher_path=models.teacher,
            config=config.learner,
            algorithm=config.algorithm,
            scale=Scale(
                temperature=config.sampling.temperature,
                max_response_tokens=config.sampling.max_response_tokens,
            ),
            num_gpus=shares.learner_rank,
            checkpoints=checkpoints or CheckpointConfig(),
            logs=logs,
            skipped=skipped or logs / "skipped",
            bucket_bytes=config.rollout.bucket_mib * 2**20,
            weight_sync=config.rollout.weight_sync,
            recording=recording,
            placements=placements.ranks,
        )
        waits_for("the learner")
        engine.when_ready(when_idle)
        learner.wait_until_ready()
        slower = why_it_takes_longer(learner.ranks.packing)
        if slower is not None:
            on_event(slower)
        when_idle()
        waits_for("the engines")
        engine.wait_until_ready()
        waits_for("the verifiers")
        verifier.wait_until_ready()
        waits_for("")
        yield Machines(engine=engine, learner=learner, verifier=verifier)
    finally:
        engine.close()
