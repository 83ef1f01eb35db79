"""``sdpo envs rescore RUN``: what would today's verifier say of the attempts that a run has stored?

The environment is made as the run's config says, and is asked for the same tasks. Each stored completion is judged as the run
judged it: the text of one turn, or the whole conversation. The run's folder is only read.

Left out: an attempt whose task is gone, or asks something else today; answers that an evaluation got under a hint.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import yaml
from rich.console import Console
from rich.progress import track

from sdpo.environments.rescored import Rescored, Source, as_json, print_tables
from sdpo.environments.show import made
from sdpo.environments.words import Words
from sdpo.envs import sandbox
from sdpo.envs.base import Environment, Message, Role, Task
from sdpo.envs.judging import told, verdict_of
from sdpo.errors import UserError
from sdpo.run.folder import RunFolder
from sdpo.run.stored import lines

SETTINGS = ("json",)
HELDOUT_SEED = 0
"""As ``sdpo.preflight`` has it: the seed of the tasks that a run holds out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """An attempt as the run stored it."""

    source: Source
    step: int
    task: str
    attempt: int | None
    """Position in its group; None for one that was set aside."""
    question: str
    transcript: tuple[Message, ...]
    """What was said after the task's messages."""
    reward: float | None
    """None: it was set aside."""


def rescore(run: Path, words: Words) -> int:
    """Judge again, and print what changed. Raises UserError for a folder that is no run, and for what cannot be made of it."""
    wants_json = words.flag("json")
    folder = RunFolder(run)
    config = _config(folder)
    stored = list(_stored(folder))
    if not stored:
        raise UserError(
            f"rescore judges stored attempts again; {run} has none in rollouts/ or evaluations.jsonl. Name a run that has "
            "finished a step with tracking.rollouts=true."
        )
    env = _mapping(config, "env", folder)
    _use_sandbox(config)
    with redirect_stdout(sys.stderr):  # what the environment prints is no part of the answer
        environment = made(str(env.get("name")), {**_mapping(env, "options", folder), **words.options})
        tasks = _tasks(environment, config, env, stored)
        known = [attempt for attempt in stored if attempt.task in tasks[attempt.source]]
        same = [one for one in known if one.question == tasks[one.source][one.task].messages[-1].content]
        rescored = list(_judged(environment, tasks, same))
    gone, other = len(stored) - len(known), len(known) - len(same)
    if wants_json:
        print(as_json(run, environment.name, rescored, gone=gone, other=other))
    else:
        print_tables(run, environment.name, rescored, gone=gone, other=other)
    return 0


def _config(folder: RunFolder) -> Mapping[str, object]:
    try:
        config: object = yaml.safe_load(folder.config.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(
            f"rescore takes the folder of a run (runs/NAME), whose config.yaml can be read; {folder.path} is none "
            f"({type(error).__name__}). Name one that sdpo train has written."
        ) from error
    if not isinstance(config, dict):
        raise UserError(f"{folder.config} must hold a run's config; it holds a {type(config).__name__}. Name another run.")
    return config


def _mapping(config: Mapping[str, object], key: str, folder: RunFolder) -> Mapping[str, object]:
    found = config.get(key)
    if not isinstance(found, dict):
        raise UserError(f"{folder.config} must say under {key!r} which environment the run had; it does not. Name another run.")
    return found


def _use_sandbox(config: Mapping[str, object]) -> None:
    """What the run asked of the sandbox, for environments that run code."""
    match config.get("sandbox"):
        case {"isolation": str(kind), "allow_weak": bool(allow_weak)}:
            known = {one.value: one for one in sandbox.Isolation}
            sandbox.use(sandbox.Settings(isolation=known.get(kind), allow_weak=allow_weak))


def _stored(folder: RunFolder) -> Iterator[Stored]:
    """The attempts of training steps, then those of evaluations, in order."""
    for file in sorted(folder.rollouts.glob("step_*.jsonl")):
        for line in _lines(file):
            yield from _attempt(line, Source.training, line.get("step"))
    for evaluation in _lines(folder.evaluations):
        attempts = evaluation.get("attempts")
        for line in attempts if isinstance(attempts, list) else ():
            yield from _attempt(line, Source.evaluation, evaluation.get("step"))


def _lines(file: Path) -> list[dict[str, object]]:
    """The file's records. Raises UserError for one that is no text."""
    try:
        found = lines(file)
        for line in found:
            line.text.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} must be a readable file of JSON lines; {error}. Restore it, or name another run.") from error
    return [line.record for line in found if line.record is not None]


def _attempt(line: object, source: Source, step: object) -> Iterator[Stored]:
    """The attempt of a line; nothing where it is none."""
    match line:
        case {"task": str(task), "question": str(question), "completion": str(completion), **rest}:
            reward, place = rest.get("reward"), rest.get("attempt")
            if isinstance(step, int | float) and (isinstance(reward, int | float) or "set_aside" in rest):
                yield Stored(
                    source=source,
                    step=int(step),
                    task=task,
                    attempt=place if isinstance(place, int) else None,
                    question=question,
                    transcript=_transcript(rest.get("turns")) or (Message(role=Role.assistant, content=completion),),
                    reward=float(reward) if isinstance(reward, int | float) else None,
                )


def _transcript(turns: object) -> tuple[Message, ...]:
    """The conversation that was stored; empty where there was one turn."""
    return tuple(
        Message(role=Role(turn["role"]), content=turn["content"])
        for turn in (turns if isinstance(turns, list) else ())
        if isinstance(turn, dict) and turn.get("role") in set(Role) and isinstance(turn.get("content"), str)
    )


def _tasks(
    environment: Environment, config: Mapping[str, object], env: Mapping[str, object], stored: Iterable[Stored]
) -> dict[Source, dict[str, Task]]:
    """Today's tasks, by id, of those that were attempted."""
    wanted: dict[Source, set[str]] = {source: set() for source in Source}
    for attempt in stored:
        wanted[attempt.source].add(attempt.task)
    seed = config.get("seed")
    splits = {
        Source.training: (str(env.get("train_split", "train")), seed if isinstance(seed, int) else 0),
        Source.evaluation: (str(env.get("heldout_split", "heldout")), HELDOUT_SEED),
    }
    found: dict[Source, dict[str, Task]] = {source: {} for source in Source}
    for source, (split, split_seed) in splits.items():
        if not wanted[source]:
            continue
        try:
            tasks = environment.tasks(split, split_seed)
            for index in range(len(tasks)):
                task = tasks[index]
                if task.id in wanted[source]:
                    found[source].setdefault(task.id, task)
                    if len(found[source]) == len(wanted[source]):
                        break
        except Exception as error:
            raise UserError(
                f"environment {environment.name!r} must still give the run's tasks; tasks({split!r}, {split_seed}) raised "
                f"{type(error).__name__}: {error}. Give what it needs as OPTION=VALUE, as in sdpo envs check."
            ) from error
    return found


def _judged(environment: Environment, tasks: Mapping[Source, Mapping[str, Task]], stored: Sequence[Stored]) -> Iterator[Rescored]:
    """Each attempt with today's verdict; the same answer to the same task is judged once."""
    verdicts: dict[tuple[Source, str, tuple[Message, ...]], tuple[float | None, str | None]] = {}
    for one in track(stored, "judging", console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True):
        key = (one.source, one.task, one.transcript)
        if key not in verdicts:
            verdicts[key] = _verdict(environment, tasks[one.source][one.task], one.transcript)
        after, feedback = verdicts[key]
        yield Rescored(
            source=one.source,
            step=one.step,
            task=one.task,
            attempt=one.attempt,
            before=one.reward,
            after=after,
            feedback=feedback,
        )


def _verdict(environment: Environment, task: Task, transcript: Sequence[Message]) -> tuple[float | None, str | None]:
    try:
        verdict = verdict_of(environment, task, transcript)
    except Exception as error:  # noqa: BLE001 - the environment's own; the attempt is set aside, as in training
        return None, told(error)
    return verdict.reward, verdict.feedback
