"""How does a script or a notebook train, in its own process and without Ray? It loads a model once, and calls ``train_model``.

An environment is an object here, and settings are the dataclasses of ``sdpo/config``. What is not given is as ``sdpo train`` has
it (``conf/train.yaml``). Two things are missing beside what ``local.py`` leaves out. There are no checkpoints, so a run is not
continued. The teacher cannot be another model, whose vocabulary only the command compares.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields, is_dataclass, replace
from enum import Enum
from pathlib import Path
from typing import TypedDict, Unpack, get_type_hints

from rich.console import Console
from transformers import AutoConfig

from sdpo.attempts.generation import rollouts_of
from sdpo.attempts.tried import task_stream
from sdpo.config import (
    AlgorithmConfig,
    BatchConfig,
    Config,
    EnvConfig,
    EvaluationConfig,
    GuardsConfig,
    LearnerConfig,
    ModelConfig,
    Response,
    RolloutConfig,
    SamplingConfig,
    SDPOConfig,
    TrackingConfig,
)
from sdpo.config.compose import train_config
from sdpo.envs import registry
from sdpo.envs.base import Environment
from sdpo.errors import UserError
from sdpo.guards.alarms import Alarm
from sdpo.guards.fold import Guards
from sdpo.hindsight.hindsight import Hindsight
from sdpo.hindsight.success_buffer import remembered
from sdpo.learner.orders import Recording
from sdpo.machines.local import LocalEngine, LocalVerifier, local_learner
from sdpo.plugins.seam import near
from sdpo.preflight.checks import (
    HELDOUT_SEED,
    Ready,
    check_support,
    first,
    model_and_renderer,
    references_of,
    refuse_long_prompts,
    refuse_overlap,
    refuse_silence,
    tasks_of,
)
from sdpo.preflight.model_traits import refuse_odd_targets
from sdpo.protocols import Rollouts, Sampler, Watcher
from sdpo.rollout.engine import VllmEngine
from sdpo.run.folder import RunFolder, records
from sdpo.terminal.live import Terminal
from sdpo.terminal.remaining import plan_of
from sdpo.terminal.stop_request import StopRequest
from sdpo.tracking.background import closed
from sdpo.tracking.run_report import RunReport
from sdpo.tracking.tracker import Tracker, trackers_of
from sdpo.train import train
from sdpo.types import Group

POLICY = "policy"
"""Folder of the trained model in a run's folder."""


class TrainSettings(TypedDict, total=False):
    """Fields of ``sdpo.config.Config``, by its names."""

    seed: int
    num_steps: int
    algorithm: AlgorithmConfig
    batch: BatchConfig
    sampling: SamplingConfig
    evaluation: EvaluationConfig
    guards: GuardsConfig
    learner: LearnerConfig
    tracking: TrackingConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalModel:
    """Weights in a folder, and this process's engine, which samples with whatever weights it is given."""

    path: str
    """A folder or a hub id."""
    max_tokens: int
    """Longest prompt and response together that the engine has room for."""
    rollout: RolloutConfig
    chat_template_options: Mapping[str, bool]
    engine: LocalEngine = field(repr=False)

    @property
    def config(self) -> ModelConfig:
        return ModelConfig(name=Path(self.path).name, path=self.path, chat_template_options=dict(self.chat_template_options))


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedRun:
    """What came of a run."""

    metrics: tuple[Mapping[str, float], ...]
    """[steps] names of ``docs/metrics.md`` to values, and ``step``, from 1."""
    evaluations: tuple[Mapping[str, float], ...]
    """[evaluations] names of ``docs/metrics.md`` to values, and ``step``, the steps before it."""
    groups: tuple[tuple[Group, ...], ...]
    """[steps][P] what was attempted, with verdicts."""
    alarms: tuple[Alarm, ...]
    model: LocalModel
    """The trained one, on the same engine."""
    folder: Path
    """What ``sdpo view`` and ``sdpo report`` read; the trained model is in its ``policy``, as transformers and vLLM load it."""


def load_model(
    path: str | Path,
    *,
    max_tokens: int = 2048,
    rollout: RolloutConfig | None = None,
    chat_template_options: Mapping[str, bool] | None = None,
) -> LocalModel:
    """Start an engine with the model in ``path``: a folder, a hub id, or ``package:NAME``.

    ``max_tokens``: the longest prompt and response together that it will be asked for. Prompts are hindsight prompts too where an
    evaluation measures the teacher's lift. ``rollout``: None as in ``sdpo train``. ``chat_template_options``: those of
    ``sdpo.config.ModelConfig``. Raises UserError where the model cannot be read or has no room for ``max_tokens``.
    """
    rollout = train_config([]).rollout if rollout is None else rollout
    refuse_words("rollout", rollout)
    if (rollout.num_engines, rollout.tensor_parallel_size, rollout.staleness) != (1, 1, 0):
        raise UserError(
            "in one process there is one engine, on one GPU, that generates when a step asks (rollout.num_engines=1, "
            f"tensor_parallel_size=1, staleness=0); got {rollout.num_engines}, {rollout.tensor_parallel_size} and "
            f"{rollout.staleness}. Leave them as they are, or use sdpo train."
        )
    options = dict(chat_template_options or {})
    asked = ModelConfig(name=Path(path).name, path=str(path), chat_template_options=options)
    found, _ = model_and_renderer(asked, SamplingConfig(max_prompt_tokens=1, max_response_tokens=1), 0, print)
    longest = getattr(AutoConfig.from_pretrained(found), "max_position_embeddings", None)
    if not 2 <= max_tokens <= (longest or max_tokens):
        raise UserError(
            f"max_tokens must be at least 2 and fit into the model's context, {longest} tokens of {asked.name}; got {max_tokens}."
        )
    engine = VllmEngine(found, max_model_tokens=max_tokens, config=rollout, seed=0)
    return LocalModel(
        path=found, max_tokens=max_tokens, rollout=rollout, chat_template_options=options, engine=LocalEngine(engine)
    )


def train_model(
    model: LocalModel, environment: Environment, *, folder: str | Path, **settings: Unpack[TrainSettings]
) -> TrainedRun:
    """Train ``model`` on the training tasks of ``environment``, and keep what happens in a new ``folder``.

    A line a step is printed. ``model`` stays as it is: the trained one is in what is returned. Raises UserError or ValueError,
    as a sentence, where settings, model and tasks do not go together.
    """
    refuse_odd_environment(environment)
    refuse_odd_settings("train_model", settings, TrainSettings)
    path = Path(folder).absolute()
    run = RunFolder(path)
    if run.config.exists():
        raise UserError(f"folder must be new (a run in one process is not continued); {path} holds a run. Choose another folder.")
    config = replace(
        train_config([]),
        model=model.config,
        env=EnvConfig(name=environment.name),
        rollout=model.rollout,
        runs_dir=str(path.parent),
        name=path.name,
        **settings,
    )
    _refuse_unsuitable(config, model)
    ready = _ready(config, environment)
    run.claim(config)
    return _trained(config, ready, model, run)


def refuse_odd_environment(environment: object) -> None:
    """Raises UserError unless it is an environment, and an object rather than a class."""
    if isinstance(environment, type):
        name = environment.__name__
        raise UserError(f"environment must be an object; got the class {name}. Make one: {name}().")
    try:
        registry.complete(environment, "environment")
    except ValueError as error:
        raise UserError(str(error)) from error


def refuse_odd_settings(function: str, settings: Mapping[str, object], kind: type) -> None:
    """Raises UserError for a setting that ``kind``, a TypedDict, does not have, or has in another type."""
    types = get_type_hints(kind)
    for key, value in settings.items():
        if key not in types:
            raise UserError(f"{function} takes the settings {', '.join(types)}; got {key!r}{near(key, types)}.")
        if not isinstance(value, types[key]):
            raise UserError(f"{key} must be of type {types[key].__name__}; got {value!r}.")
        refuse_words(key, value)


def refuse_words(key: str, value: object) -> None:
    """Raises UserError where a dataclass holds a word, as one would type it for the command, in place of an Enum's member."""
    if not is_dataclass(value):
        return
    for one in fields(value):
        found = getattr(value, one.name)
        refuse_words(f"{key}.{one.name}", found)
        if isinstance(one.default, Enum) and not isinstance(found, type(one.default)):
            members = ", ".join(str(member) for member in type(one.default))
            raise UserError(f"{key}.{one.name} must be one of sdpo.config's {members}; got {found!r}.")


def plain_screen() -> Console:
    """A console that prints lines as text, to standard output or a notebook's cell."""
    return Console(force_jupyter=False)


def _refuse_unsuitable(config: Config, model: LocalModel) -> None:
    if config.learner.num_ranks > 1:
        raise UserError(f"in one process there is one rank; got learner.num_ranks={config.learner.num_ranks}. Use sdpo train.")
    teacher = config.algorithm.taught_by
    if teacher is not None and teacher.other_model is not None:
        raise UserError(
            f"in one process the teacher is the model itself; got algorithm.teacher.kind={teacher.kind}. Use sdpo train, which "
            "compares the two vocabularies."
        )
    if config.guards.response is Response.stop_at_best:
        raise UserError(
            "guards.response=stop_at_best goes back to a checkpoint, and a run in one process has none. Set Response.stop."
        )
    refuse_small_room(config.max_model_tokens, model)


def refuse_small_room(num_tokens: int, model: LocalModel) -> None:
    """Raises UserError where the longest prompt and response have more tokens than the engine has room for."""
    if num_tokens > model.max_tokens:
        raise UserError(
            f"load_model's max_tokens must hold the longest prompt and response, {num_tokens} tokens with these settings "
            f"(sampling, and of SDPO hindsight.max_prompt_tokens); got {model.max_tokens}. Raise it, or lower those."
        )


def _ready(config: Config, environment: Environment) -> Ready:
    """Raises UserError where tasks, settings and model do not go together."""
    algorithm = config.algorithm
    refuse_silence(environment, config.sampling.max_turns)
    tasks = tasks_of(environment, config.env, config.env.train_split, config.seed)
    heldout = tasks_of(environment, config.env, config.env.heldout_split, HELDOUT_SEED) if config.evaluation.num_tasks else ()
    refuse_overlap(environment, tasks, heldout)
    references = references_of(environment, algorithm)
    for task in tasks:
        references(task)
    hindsight_tokens = 0 if algorithm.hints is None else algorithm.hints.max_prompt_tokens
    path, renderer = model_and_renderer(config.model, config.sampling, hindsight_tokens, print)
    if isinstance(algorithm, SDPOConfig):
        check_support(algorithm, path)
    refuse_odd_targets(config.learner.lora, path)
    refuse_long_prompts(renderer, (*tasks, *heldout), algorithm.hints)
    return Ready(
        model_path=path,
        teacher_path=None,
        environment=environment,
        train=tasks,
        heldout=first(heldout, config.evaluation.num_tasks),
        make_renderer=lambda: renderer,
        references=references,
    )


class _Kept:
    """The Rollouts of a run, whose groups are kept."""

    def __init__(self, rollouts: Rollouts) -> None:
        self._rollouts = rollouts
        self.groups: list[tuple[Group, ...]] = []

    def of(self, step: int, log: Watcher) -> tuple[Group, ...]:
        groups_P = self._rollouts.of(step, log)
        self.groups.append(groups_P)
        return groups_P

    def paused(self) -> AbstractContextManager[None]:
        return self._rollouts.paused()

    def close(self) -> None:
        self._rollouts.close()


def _trained(config: Config, ready: Ready, model: LocalModel, run: RunFolder) -> TrainedRun:
    terminal = Terminal(plain_screen(), f"sdpo · {config.name}", config.num_steps, plan=plan_of(config), quiet=True)
    guards = Guards(config)
    sampler = Sampler(engine=model.engine, verifier=LocalVerifier(ready.environment), renderer=ready.renderer)
    tasks = task_stream(config, ready.train, run, 0)
    successes = remembered(config.algorithm, ())
    hindsight = Hindsight(run=config, references=ready.references, successes=successes)
    rollouts = _Kept(rollouts_of(config, tasks, sampler, hindsight=hindsight))
    recording = Recording(share=config.tracking.credit_share, num_top=config.tracking.credit_top)
    sinks = trackers_of(config, run, terminal.warn)
    tracker = Tracker(run, config.tracking, sinks)
    try:
        tracker.go_back(0)
        with (
            terminal,
            local_learner(model.path, config.learner, config.algorithm, config.sampling, run.path, recording) as learner,
        ):
            train(
                config,
                rollouts,
                ready.heldout,
                sampler,
                learner,
                RunReport(terminal, tracker, StopRequest(), guards, renderer=sampler.renderer),
                run.checkpoints,
                guards,
                references=ready.references,
                successes=successes,
            )
            learner.write_policy(run.path / POLICY)
    finally:
        closed(sinks)
    return TrainedRun(
        metrics=_numbers(records(run.metrics)),
        evaluations=_numbers(records(run.evaluations)),
        groups=tuple(rollouts.groups),
        alarms=tuple(guards.alarms),
        model=replace(model, path=str(run.path / POLICY)),
        folder=run.path,
    )


def _numbers(rows: Sequence[Mapping[str, object]]) -> tuple[Mapping[str, float], ...]:
    return tuple({name: float(value) for name, value in row.items() if isinstance(value, int | float)} for row in rows)
