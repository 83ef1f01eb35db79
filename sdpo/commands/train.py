"""Wiring: the engines, the learner and the verifiers of a run are made, handed to the loop, and taken down again."""

from __future__ import annotations

import importlib
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import yaml
from rich.console import Console

from sdpo.cluster.connection import beginning, connected
from sdpo.cluster.local_node import LocalNode
from sdpo.cluster.part import taking_part
from sdpo.commands import outcome
from sdpo.commands.training_run import TrainingRun, standing_at, taken_up
from sdpo.config import AllocationKind, Config
from sdpo.config.named import place_anywhere
from sdpo.environments.show import left_out
from sdpo.errors import LearnerOutOfMemory, OutOfMemory
from sdpo.forkserver.marks import mark
from sdpo.kubernetes.manifests import refuse_pods
from sdpo.learner import checkpoint
from sdpo.learner.orders import Recording
from sdpo.machines.remote import Models, machines
from sdpo.planning.lighter import lighter
from sdpo.preflight.checks import (
    Ready,
    check_environment,
    check_training,
)
from sdpo.preflight.models import is_fetched
from sdpo.protocols import Sampler
from sdpo.run.folder import RunFolder, plain
from sdpo.run.watchdog import Progress, Watchdog, WatchedVerifier
from sdpo.terminal.foreground import process_output_into, user_screen
from sdpo.terminal.live import Terminal
from sdpo.terminal.printable import printable
from sdpo.terminal.remaining import plan_of
from sdpo.terminal.stop_request import StopRequest, stopping
from sdpo.tracking.packages import refuse_missing


def run_training(config: Config) -> int:
    """``sdpo train``. Returns the exit code: 0, or 128 + the signal that ended it early."""
    refuse_pods(config)
    screen = user_screen()
    place_anywhere(config.env, algorithm=config.algorithm, rollout=config.rollout, batch=config.batch)
    folder = RunFolder(Path(config.runs_dir).absolute() / config.name)
    if config.dry_run:
        folder.check(config)
        refuse_missing(config.tracking)
        _show_plan(config, folder, screen)
        return 0

    def say(sentence: str) -> None:
        screen.print(printable(sentence), highlight=False, markup=False)

    with taking_part(config.cluster, folder.logs, say) as is_driver:
        return _drive(config, folder, screen) if is_driver else 0


def _drive(config: Config, folder: RunFolder, screen: Console) -> int:
    folder.check(config)
    refuse_missing(config.tracking)
    with beginning(config.cluster) as node:
        return _prepare_and_train(config, folder, screen, node)


def _prepare_and_train(config: Config, folder: RunFolder, screen: Console, node: LocalNode | None) -> int:
    """Ray starts meanwhile."""
    ready = check_training(config, folder.path, lambda sentence: screen.print(sentence, highlight=False))
    mark("preflight")

    def say(sentence: str) -> None:
        screen.print(f"warning: {printable(sentence)}", highlight=False, markup=False, soft_wrap=True)

    last = taken_up(config, folder, say)
    first_step = checkpoint.counters_of(last).step if last else 0
    if outcome.ended_by_alarm(screen, folder, config):
        return 0
    if first_step >= config.num_steps:
        screen.print(f"{folder.path} has all its {config.num_steps} steps; raise num_steps to go on, or choose another name=.")
        outcome.show(screen, folder)
        return 0
    with process_output_into(folder.logs / "driver.log", screen), _advising(config, ready.model_path):
        stopped_by = _train(config, folder, last, ready, screen, node)
    outcome.show(screen, folder)
    if outcome.ended_by_alarm(screen, folder, config):
        return 0
    if stopped_by is not None:
        screen.print(f"Stopped by {signal.Signals(stopped_by).name} after a checkpoint; the same command continues.")
        return 128 + stopped_by
    return 0


@contextmanager
def _advising(config: Config, model_path: str) -> Iterator[None]:
    """Have an end for want of memory say what would need less of it."""
    try:
        yield
    except (OutOfMemory, LearnerOutOfMemory) as error:
        first, _, rest = str(error).partition("\n")
        less = lighter(config, model_path)
        continues = "The last checkpoint stands; the same command, with such a key besides, continues from it."
        raise OutOfMemory("\n".join(filter(None, (f"{first} {less} {continues}", rest)))) from error


def _show_plan(config: Config, folder: RunFolder, screen: Console) -> None:
    """The resolved config, checked as far as it can be without fetching a model."""
    if is_fetched(config.model.path):
        ready = check_training(config, folder.path, lambda sentence: screen.print(sentence, highlight=False, soft_wrap=True))
        environment, train_tasks, about_model = ready.environment, ready.train, f"model {ready.model_path}"
    else:
        environment, train_tasks, _ = check_environment(config)
        about_model = f"model {config.model.path} is not on this machine yet, so lengths and vocabulary were not checked"
    screen.print(yaml.safe_dump(plain(config), sort_keys=False), highlight=False, markup=False)
    if said := left_out(environment):
        screen.print(said, highlight=False, markup=False, soft_wrap=True)
    screen.print(
        f"The config is sound: {len(train_tasks)} training tasks of {config.env.name}; {about_model}; the run would go to "
        f"{folder.path}. Nothing was started.",
        highlight=False,
        soft_wrap=True,
    )


def _train(
    config: Config, folder: RunFolder, last: Path | None, ready: Ready, screen: Console, node: LocalNode | None
) -> int | None:
    """Returns the signal that ended the run early, if one did."""
    terminal = Terminal(screen, f"sdpo · {config.name}", config.num_steps, plan=plan_of(config), quiet=config.tracking.quiet)
    stop, progress = StopRequest(), Progress()
    where = standing_at(config, folder, last)
    watchdog = Watchdog(progress, terminal.warn, folder.logs, report_s=config.cluster.stall_report_s)
    also = (signal.SIGUSR1,) if config.cluster.allocation is AllocationKind.slurm else ()  # elsewhere it asks for stacks
    models = Models(policy=ready.model_path, teacher=ready.teacher_path, max_tokens=config.max_model_tokens)
    aside = ThreadPoolExecutor(1, thread_name_prefix="imports")
    with (
        stopping(stop, *also, on_stop=terminal.stop_was_asked),
        connected(config.cluster, folder.path, node),
        terminal,
        watchdog,
        aside,
    ):
        mark("ray")
        terminal.say(f"{folder.path}: " + (f"continuing after step {where.step}" if where.step else "a new run"))
        rendering = aside.submit(ready.make_renderer)
        with machines(
            config,
            models,
            folder.logs,
            terminal.say,
            terminal.waits_for,
            seed=config.seed,
            skipped=folder.skipped,
            checkpoints=config.checkpoint,
            recording=Recording(share=config.tracking.credit_share, num_top=config.tracking.credit_top),
            when_idle=cache(lambda: aside.submit(importlib.import_module, "torch")),  # for the first batch
        ) as parts:
            renderer = rendering.result()
            mark("tokenizer")
            TrainingRun(
                config=config,
                folder=folder,
                ready=ready,
                sampler=Sampler(
                    engine=parts.engine,
                    verifier=WatchedVerifier(verifier=parts.verifier, progress=progress),
                    renderer=renderer,
                ),
                learner=parts.learner,
                terminal=terminal,
                stop=stop,
                progress=progress,
            ).go_on(where)
    return stop.signal_number if stop.is_set and parts.learner.step < config.num_steps else None
