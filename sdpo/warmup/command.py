"""``sdpo warmup``: look, explore, learn from pairs, look again, and leave a plain model folder."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.console import Console

from sdpo.cluster.connection import beginning, connected
from sdpo.cluster.local_node import LocalNode
from sdpo.config import WarmupConfig
from sdpo.config.named import place_anywhere
from sdpo.evaluation.heldout import heldout_survey
from sdpo.learner.group import LearnerGroup
from sdpo.machines.remote import Models, machines
from sdpo.preflight.models import WARMUP_RECORD
from sdpo.protocols import Sampler
from sdpo.run.files import refuse_existing, refuse_unwritable, whole_folder
from sdpo.run.folder import plain
from sdpo.terminal.foreground import process_output_into, user_screen
from sdpo.terminal.live import Terminal
from sdpo.terminal.remaining import Plan
from sdpo.tracking.run_report import ProgressLog
from sdpo.warmup.exploration import Explored, explore
from sdpo.warmup.measurement import KINDS, Measured, in_words, measure, table
from sdpo.warmup.pairs import Pairs, counts, make_pairs
from sdpo.warmup.preparation import Ready, prepare
from sdpo.warmup.schedule import shares, updates


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a warm-up says of itself."""

    model: str
    env: str
    pairs: dict[str, dict[str, int]]
    """By source of the hint, then by whose answer is learned and whose demonstration or failure is shown."""
    before: Measured
    after: Measured
    seconds: int


def run_warmup(config: WarmupConfig) -> int:
    """The model's folder appears whole, at the very end, or not at all. Returns the exit code."""
    screen = user_screen()
    place_anywhere(config.env, algorithm=config.algorithm, rollout=config.rollout)
    target = Path(config.to).absolute()
    refuse_existing(target)
    refuse_unwritable(Path(config.logs_dir), "logs_dir")
    try:
        with beginning(config.cluster) as node:
            ready = prepare(config, lambda sentence: screen.print(sentence, highlight=False))
            with process_output_into(Path(config.logs_dir).absolute() / "driver.log", screen):
                outcome = _warm_up(config, ready, target, screen, node)
    except KeyboardInterrupt:
        screen.print(f"Stopped: {target} was not made, and no part of it is left. The same command begins anew.", soft_wrap=True)
        raise
    if outcome.before:
        screen.print(table(outcome.before, outcome.after, config.evaluation.num_attempts))
    screen.print(f"{target} is a model like any other: sdpo train model.path={target}", highlight=False, soft_wrap=True)
    screen.print(json.dumps({"to": str(target), **asdict(outcome)}), highlight=False, markup=False, soft_wrap=True)
    return 0


def _warm_up(config: WarmupConfig, ready: Ready, target: Path, screen: Console, node: LocalNode | None) -> Outcome:
    began = time.monotonic()
    terminal = Terminal(
        screen, f"sdpo warmup · {ready.environment.name}", config.num_updates, plan=_plan(config), quiet=config.quiet
    )
    log = ProgressLog(terminal)
    models = Models(
        policy=ready.model_path,
        max_tokens=config.algorithm.hindsight.max_prompt_tokens + config.sampling.max_response_tokens,
    )
    logs = Path(config.logs_dir).absolute()
    with (
        connected(config.cluster, node=node),
        terminal,
        machines(config, models, logs, terminal.say, terminal.waits_for, seed=config.seed) as parts,
    ):
        engine, learner = parts.engine, parts.learner
        sampler = Sampler(engine=engine, verifier=parts.verifier, renderer=ready.renderer)
        engine.load(learner.weights(), version=learner.step)
        survey = heldout_survey(config, sampler, ready.heldout)
        before = measure(survey, config.algorithm.hindsight, log)
        terminal.say(f"before: {in_words(before)}")
        asked = replace(  # with the distribution that training samples from
            survey, tasks_P=ready.tasks_P, num_attempts=config.pairs.num_attempts, sampling=config.sampling.drawn()
        )
        explored = explore(asked, ready.environment, ready.writer, config.pairs.num_edits, log)
        terminal.phase("hindsight")
        pairs = make_pairs(explored, ready.renderer, config.seed)
        terminal.say(_told(pairs, config, len(explored)))
        _learn(config, pairs, explored, learner, terminal)
        terminal.phase("sync")
        engine.load(learner.weights(), version=learner.step)
        after = measure(survey, config.algorithm.hindsight, log)
        terminal.say(f"after: {in_words(after)}")
        outcome = Outcome(
            model=ready.model_path,
            env=ready.environment.name,
            pairs=counts(pairs),
            before=before,
            after=after,
            seconds=round(time.monotonic() - began),
        )
        terminal.phase("save")
        _write(learner, target, config, outcome)
    return outcome


def _plan(config: WarmupConfig) -> Plan:
    """What is measured before the updates is measured after them; that there is something to explore first is not part of it."""
    evaluations = (0, config.num_updates) if config.evaluation.num_tasks else ()
    return Plan(num_steps=config.num_updates, evaluations=evaluations, lifts=[step for step in evaluations for _ in KINDS])


def _learn(config: WarmupConfig, pairs: Pairs, explored: Sequence[Explored], learner: LearnerGroup, terminal: Terminal) -> None:
    terminal.phase("learn")
    num_tokens = 0
    for index, update in enumerate(updates(pairs, [task.group for task in explored], config, learner.ranks), start=1):
        began = time.monotonic()
        terminal.step_begins(index)
        metrics = learner.update(update, config.algorithm)
        learner.finish_step()
        num_tokens += update.num_learned_tokens
        terminal.progress(index, config.num_updates, num_tokens)
        if metrics["updates_skipped"]:
            terminal.say(f"update {index}: its loss or gradient was not finite; it was skipped")
        else:
            terminal.update_ends(index, {**metrics, "time/step_s": time.monotonic() - began})


def _write(learner: LearnerGroup, target: Path, config: WarmupConfig, outcome: Outcome) -> None:
    """Whole or not at all."""
    with whole_folder(target) as scratch:
        learner.write_policy(scratch)
        (scratch / WARMUP_RECORD).write_text(json.dumps({**asdict(outcome), "config": plain(config)}, indent=1) + "\n")


def _told(pairs: Pairs, config: WarmupConfig, num_tasks: int) -> str:
    """What is learned from, and in which proportion."""
    of_source = ", ".join(
        f"{len(pairs[source])} with {source} ({share:.0%} of the rows)" for source, share in shares(pairs, config).items()
    )
    return f"pairs from {num_tasks} training tasks: {of_source}"
