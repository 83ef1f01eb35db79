"""``sdpo evaluate``: held-out success of a model or a checkpoint, and what hindsight adds."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from sdpo.attempts.survey import Survey
from sdpo.cluster.connection import beginning, connected
from sdpo.cluster.local_node import LocalNode
from sdpo.cluster.placement import gpu_shares
from sdpo.config import EvaluateConfig
from sdpo.config.named import place_anywhere
from sdpo.evaluation.heldout import evaluate
from sdpo.evaluation.lift import teacher_lift
from sdpo.learner import checkpoint
from sdpo.metrics import lift_in_words
from sdpo.preflight.checks import (
    HELDOUT_SEED,
    first,
    make_environment,
    model_and_renderer,
    refuse_long_prompts,
    refuse_long_verdicts,
    tasks_of,
)
from sdpo.protocols import Sampler
from sdpo.rollout.fleet import EngineFleet
from sdpo.rollout.verify import VerifierPool
from sdpo.run.files import refuse_unwritable
from sdpo.terminal.foreground import process_output_into, user_screen
from sdpo.terminal.live import Terminal
from sdpo.terminal.printable import printable
from sdpo.terminal.remaining import Plan
from sdpo.tracking.run_report import ProgressLog
from sdpo.types import Task


def run_evaluation(config: EvaluateConfig) -> int:
    """``sdpo evaluate``: prints a table and one line of JSON."""
    screen = user_screen()
    model = config.model
    if config.checkpoint is not None:
        checkpoint.counters_of(Path(config.checkpoint))
        model.path = str((Path(config.checkpoint) / checkpoint.POLICY).absolute())
    place_anywhere(config.env, rollout=config.rollout)
    refuse_unwritable(Path(config.logs_dir), "logs_dir")
    with beginning(config.cluster) as node:
        return _evaluate(config, screen, node)


def _evaluate(config: EvaluateConfig, screen: Console, node: LocalNode | None) -> int:
    """Ray starts while the tasks and the model are looked at."""
    environment = make_environment(config.env)
    refuse_long_verdicts(environment, config.env, config.rollout)
    tasks_P = first(tasks_of(environment, config.env, config.env.heldout_split, HELDOUT_SEED), config.num_tasks)
    model_path, renderer = model_and_renderer(
        config.model, config.sampling, config.hindsight_tokens, lambda sentence: screen.print(sentence, highlight=False)
    )
    refuse_long_prompts(renderer, tasks_P, config.hindsight if config.lift else None)
    logs = Path(config.logs_dir).absolute()
    plan = Plan(num_steps=0, evaluations=(0,), lifts=(0,) if config.lift else ())
    terminal = Terminal(screen, f"sdpo evaluate · {environment.name}", 0, plan=plan, quiet=config.quiet)
    with process_output_into(logs / "driver.log", screen), connected(config.cluster, node=node), terminal, ExitStack() as at_end:
        engine = EngineFleet(
            model_path,
            max_model_tokens=max(config.sampling.max_prompt_tokens, config.hindsight_tokens)
            + config.sampling.max_response_tokens,
            config=config.rollout,
            seed=config.seed,
            num_gpus=gpu_shares(0, config.rollout, config.cluster.placement).engine,
            logs=logs,
            on_event=terminal.say,
        )
        at_end.callback(engine.close)
        verifier = VerifierPool(config.env, config.sandbox, config.rollout, logs)
        terminal.waits_for("the engines")
        engine.wait_until_ready()
        terminal.waits_for("the verifiers")
        verifier.wait_until_ready()
        sampler, log = Sampler(engine=engine, verifier=verifier, renderer=renderer), ProgressLog(terminal)
        survey = survey_of(config, sampler, tasks_P)
        evaluation = evaluate(survey, log)
        lift = teacher_lift(survey, evaluation, config.hindsight, log).metrics if config.lift else {}
    for group in evaluation.groups:
        solved = sum(attempt.verdict.is_solved for attempt in group.attempts)
        screen.print(f"{solved}/{len(group.attempts)}  {printable(group.task.id)}", highlight=False, markup=False)
    if config.lift:
        screen.print(f"teacher lift {lift_in_words(lift)}", highlight=False, markup=False)
    found = {"model": model_path, "env": environment.name, "tasks": len(tasks_P), "k": config.k, **evaluation.metrics, **lift}
    screen.print(json.dumps(found), highlight=False, markup=False, soft_wrap=True)
    return 0


def survey_of(config: EvaluateConfig, sampler: Sampler, tasks_P: tuple[Task, ...]) -> Survey:
    return Survey(
        sampler=sampler,
        tasks_P=tasks_P,
        num_attempts=config.k,
        sampling=config.sampling.drawn(temperature=config.temperature, top_p=config.top_p),
        seed=config.seed,
        max_set_aside_share=config.rollout.max_set_aside_share,
    )
