"""An update that a run could not take, through the learner alone: no engine, no environment, no Ray, one rank."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from sdpo.config import Config, Offload, ReplayConfig
from sdpo.config.compose import saved_config
from sdpo.envs.scratch import ScratchFolder
from sdpo.errors import UserError
from sdpo.learner import checkpoint, update_file
from sdpo.learner.engine import DeepSpeedLearner
from sdpo.learner.orders import Place, Scale
from sdpo.learner.statistics import SUMS
from sdpo.preflight.models import resolve
from sdpo.run.folder import RunFolder


def run_replay(config: ReplayConfig) -> int:
    """``sdpo replay``: prints what each micro-batch says, then takes the update. Returns the exit code: 1 if it is skipped."""
    screen = Console()
    path = Path(config.batch)
    update, step = update_file.load(path)
    run = RunFolder(path.absolute().parent.parent)
    settings = saved_config(run.config)

    def say(sentence: str) -> None:
        screen.print(sentence, highlight=False, markup=False)

    weights = _weights(config, run, step, say)
    everything = tuple(batch for of_rank in update.micro_batches for batch in of_rank)
    update = replace(update, micro_batches=(everything,))
    with ScratchFolder("replay") as scratch:
        learner = _learner(settings, config, screen, scratch.path)
        if weights is not None:
            counters = checkpoint.counters_of(weights)
            learner.restore(weights, step=counters.step, num_updates=counters.num_updates)
        screen.print(f"{path.name} on {'the model as it is' if weights is None else weights.name}", highlight=False)
        learner.keep_old_logprobs(
            [update]
        )  # of a step's later updates the policy before the first is not known: it is taken as it is
        screen.print(_table(learner.loss_statistics(update, settings.algorithm)))
        metrics = learner.update(update, settings.algorithm)
    screen.print(json.dumps(metrics), highlight=False, markup=False, soft_wrap=True)
    return 1 if metrics["updates_skipped"] else 0


def _weights(config: ReplayConfig, run: RunFolder, step: int, say: Callable[[str], None]) -> Path | None:
    """The newest sound checkpoint from before the update, or the one that is named, which must be sound."""
    if config.checkpoint is None:
        return checkpoint.newest_sound(run.checkpoints, say, up_to=step)
    named = Path(config.checkpoint)
    checkpoint.verify(named, say)
    return named


def _learner(settings: Config, config: ReplayConfig, screen: Console, meeting: Path) -> DeepSpeedLearner:
    learner = settings.learner
    learner.num_ranks = learner.sequence_parallel = 1
    learner.zero_stage, learner.offload = min(learner.zero_stage, 1), Offload.none
    learner.num_threads = config.num_threads
    teacher = settings.algorithm.taught_by

    def say(sentence: str) -> None:
        screen.print(sentence, highlight=False)

    try:
        return DeepSpeedLearner(
            resolve(settings.model.path, say),
            resolve(teacher.other_model, say) if teacher is not None and teacher.other_model is not None else None,
            learner,
            settings.algorithm,
            Scale(temperature=settings.sampling.temperature, max_response_tokens=settings.sampling.max_response_tokens),
            Place(rank=0, num_ranks=1, rendezvous=f"file://{meeting}/meeting"),
        )
    except OSError as error:
        raise UserError(f"the run's model must still be where it was; {settings.model.path} is not ({error}).") from error


def _table(sums: list[dict[str, float]]) -> Table:
    """One line a micro-batch, those that are not finite in red."""
    table = Table(title="micro-batches (loss: share of the update's; the rest per token)")
    for name in ("", "tokens", "loss", "divergence", "credit", "entropy", "mismatch"):
        table.add_column(name, justify="right")
    for index, of_batch in enumerate(sums):
        tokens, distilled = max(of_batch["learned"], 1.0), max(of_batch["distilled"], 1.0)
        values = [
            of_batch["loss"],
            of_batch["divergence"] / distilled,
            of_batch["credit"] / distilled,
            of_batch["entropy"] / tokens,
            of_batch["mismatch"] / max(of_batch["sampled"], 1.0),
        ]
        style = None if all(map(math.isfinite, (of_batch[name] for name in SUMS))) else "red"
        table.add_row(str(index), f"{of_batch['learned']:.0f}", *(f"{value:.4g}" for value in values), style=style)
    return table
