"""Engine, learner and verifiers for searches: as actors, or everything in this process."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from sdpo.cluster.connection import beginning, connected
from sdpo.cluster.local_node import LocalNode
from sdpo.config import SandboxIsolation, SearchConfig
from sdpo.envs import sandbox
from sdpo.envs.base import Environment
from sdpo.hindsight.rendering import ChatRenderer
from sdpo.machines.remote import Models, machines
from sdpo.preflight.checks import (
    check_named,
    check_support,
    make_environment,
    model_and_renderer,
    refuse_long_prompts,
    refuse_long_verdicts,
    refuse_silence,
)
from sdpo.preflight.model_traits import refuse_odd_targets
from sdpo.protocols import Sampler
from sdpo.solving.parts import Parts
from sdpo.solving.view import SearchView
from sdpo.terminal.foreground import process_output_into
from sdpo.types import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """What searches need, found and checked."""

    environment: Environment
    model_path: str
    renderer: ChatRenderer


def environment_of(config: SearchConfig) -> Environment:
    """Raises UserError where it cannot be made, or does not do what is asked of it."""
    environment = make_environment(config.env)
    if not config.in_process:  # nobody waits for a verifier there
        refuse_long_verdicts(environment, config.env, config.rollout)
    refuse_silence(environment, config.sampling.max_turns)
    return environment


def prepare(config: SearchConfig, environment: Environment, tasks: tuple[Task, ...], say: Callable[[str], None]) -> Ready:
    """Raises UserError where the model cannot be read, or a prompt is too long."""
    check_named(config.algorithm, config.rollout)
    hindsight = config.algorithm.hindsight.max_prompt_tokens if config.learns else 0
    asked = replace(config.sampling, max_prompt_tokens=config.max_question_tokens)
    model_path, renderer = model_and_renderer(config.model, asked, hindsight, say)
    check_support(config.algorithm, model_path)
    refuse_odd_targets(config.learner.lora, model_path)
    refuse_long_prompts(renderer, tasks, config.algorithm.hindsight if config.learns else None)
    return Ready(environment=environment, model_path=model_path, renderer=renderer)


@contextmanager
def node_for(config: SearchConfig) -> Iterator[LocalNode | None]:
    """This machine's own Ray, where a search needs one, begins to start; for ``started``."""
    with nullcontext() if config.in_process else beginning(config.cluster) as node:
        yield node


@contextmanager
def started(
    config: SearchConfig, ready: Ready, folder: Path, view: SearchView, screen: Console, node: LocalNode | None
) -> Iterator[Parts]:
    """All of it, for the length of the block, under ``view``; the learner is as it begins. Logs go to ``folder``."""
    logs = folder / "logs"
    with (
        process_output_into(logs / f"driver-{os.getpid()}.log", screen),
        view,
        _in_process(config, ready, logs) if config.in_process else _as_actors(config, ready, logs, view, node) as parts,
    ):
        yield parts


@contextmanager
def _as_actors(config: SearchConfig, ready: Ready, logs: Path, view: SearchView, node: LocalNode | None) -> Iterator[Parts]:
    models = Models(policy=ready.model_path, max_tokens=_longest(config))
    with (
        connected(config.cluster, node=node),
        machines(config, models, logs, view.say, view.waits_for, seed=0) as parts,
    ):
        sampler = Sampler(engine=parts.engine, verifier=parts.verifier, renderer=ready.renderer)
        yield Parts(sampler=sampler, learner=parts.learner)


@contextmanager
def _in_process(config: SearchConfig, ready: Ready, logs: Path) -> Iterator[Parts]:
    from sdpo.machines.local import LocalEngine, LocalVerifier, local_learner
    from sdpo.rollout.engine import VllmEngine

    kind = config.sandbox.isolation
    isolation = None if kind is SandboxIsolation.auto else sandbox.Isolation(kind.value)
    sandbox.use(sandbox.Settings(isolation=isolation, allow_weak=config.sandbox.allow_weak))
    engine = LocalEngine(VllmEngine(ready.model_path, max_model_tokens=_longest(config), config=config.rollout, seed=0))
    sampler = Sampler(engine=engine, verifier=LocalVerifier(ready.environment), renderer=ready.renderer)
    with local_learner(ready.model_path, config.learner, config.algorithm, config.sampling, logs) as learner:
        yield Parts(sampler=sampler, learner=learner)


def _longest(config: SearchConfig) -> int:
    return config.max_question_tokens + config.sampling.max_response_tokens
