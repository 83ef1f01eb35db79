"""How does a script or a notebook search one task, in its own process and without Ray? It calls ``solve_task``.

The search is that of ``sdpo solve``. What is left out is as that command has it (``conf/solve.yaml``). Nothing is kept on disk: a
search that shall survive its process is the command's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypedDict, Unpack

from sdpo.config import BatchConfig, BudgetConfig, EnvConfig, LearnerConfig, SamplingConfig, SDPOConfig
from sdpo.config.compose import solve_config
from sdpo.envs.base import Environment
from sdpo.envs.scratch import ScratchFolder
from sdpo.errors import UserError
from sdpo.machines.local import LocalVerifier, local_learner
from sdpo.machines.notebook import (
    LocalModel,
    plain_screen,
    refuse_odd_environment,
    refuse_odd_settings,
    refuse_small_room,
)
from sdpo.preflight.checks import refuse_silence
from sdpo.protocols import Sampler
from sdpo.solving.budget import Spent
from sdpo.solving.folder import SearchFolder
from sdpo.solving.machines import prepare
from sdpo.solving.parts import Parts
from sdpo.solving.search import Ending, Step
from sdpo.solving.solve import solve
from sdpo.solving.strategy import strategy
from sdpo.solving.view import SearchView
from sdpo.types import Task


class SolveSettings(TypedDict, total=False):
    """Fields of ``sdpo.config.SolveConfig``, by its names."""

    seed: int
    budget: BudgetConfig
    strategy: str
    context_tokens: int
    stale_steps: int
    stop_at_once: bool
    algorithm: SDPOConfig
    batch: BatchConfig
    sampling: SamplingConfig
    learner: LearnerConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What came of a search."""

    solution: str | None
    """The first attempt that the environment calls solved; None where there is none."""
    ending: Ending
    """Why the search is over."""
    spent: Spent
    """Attempts, generated tokens and seconds."""
    steps: tuple[Step, ...]
    """Every attempt with its verdict."""


def solve_task(model: LocalModel, environment: Environment, task: Task, **settings: Unpack[SolveSettings]) -> Found:
    """Try ``task`` until an attempt solves it or the budget is spent, and learn from the feedback on every failure meanwhile.

    A line a step is printed. ``model`` stays as it is. Raises UserError or ValueError, as a sentence, where settings, model and
    task do not go together.
    """
    refuse_odd_environment(environment)
    refuse_odd_settings("solve_task", settings, SolveSettings)
    if not isinstance(task, Task):
        raise UserError(f'task must be a Task, such as environment.tasks("heldout", 0)[0]; got {task!r}.')
    config = replace(
        solve_config(["task=one"]),
        task=task.id,
        in_process=True,
        model=model.config,
        env=EnvConfig(name=environment.name),
        rollout=model.rollout,
        **settings,
    )
    refuse_silence(environment, config.sampling.max_turns)
    refuse_small_room(config.max_question_tokens + config.sampling.max_response_tokens, model)
    ready = prepare(config, environment, (task,), print)
    view = SearchView(plain_screen(), f"sdpo solve · {config.strategy} · {task.id}", config.budget, quiet=True)
    with (
        ScratchFolder("solve") as scratch,
        view,
        local_learner(model.path, config.learner, config.algorithm, config.sampling, scratch.path) as learner,
    ):
        sampler = Sampler(engine=model.engine, verifier=LocalVerifier(environment), renderer=ready.renderer)
        folder = SearchFolder(scratch.path)
        search, ending = solve(
            task,
            config,
            strategy(config.strategy),
            Parts(sampler=sampler, learner=learner),
            folder,
            view,
            seed=config.seed,
            stop_at_once=config.stop_at_once,
        )
        steps = folder.steps()
    solution = None if search.solution is None else search.solution.text
    return Found(solution=solution, ending=ending, spent=search.spent, steps=steps)
