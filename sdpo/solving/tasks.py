"""Which tasks do the words of a command name? Ids of an environment, all of a split, or a file that holds one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path

from sdpo.config import SearchConfig
from sdpo.envs.base import Environment, ReadsFiles
from sdpo.errors import UserError
from sdpo.preflight.checks import HELDOUT_SEED, tasks_of
from sdpo.types import Task

FILES = (".json", ".jsonl", ".json.gz", ".jsonl.gz", ".parquet")
"""A word that ends like this is a file, whether it is there or not."""
ALL = "all"


def the_task(config: SearchConfig, environment: Environment, word: str) -> Task:
    """The task with that id, or in that file. Raises UserError where there is none, or more than one."""
    if not (word.endswith(FILES) or Path(word).is_file()):
        return tasks_named(config, environment, word)[0]
    if not isinstance(environment, ReadsFiles):
        raise UserError(
            f"task= may be a file where the environment reads one (code, chemistry); {environment.name!r} has no from_file. Give "
            "the id of one of its tasks."
        )
    try:
        found = environment.from_file(word)
    except (ValueError, OSError) as error:
        raise UserError(f"task= must be a task's id or a file with one problem: {error}") from error
    if len(found) != 1:
        ids = ", ".join(task.id for task in found[:5])
        raise UserError(
            f"task= takes a file with one problem; {word} has {len(found)} ({ids}…). Leave one in it, or name the file in the "
            "environment's options (env=code_file env.options.path=FILE) and give task= an id."
        )
    return found[0]


def tasks_named(config: SearchConfig, environment: Environment, words: str) -> tuple[Task, ...]:
    """``all``, or ids with commas between them, in that order. Raises UserError for one that is not there."""
    if words.strip() == ALL:
        return tuple(_every(config, environment))
    wanted = [word.strip() for word in words.split(",") if word.strip()]
    if not wanted:
        raise UserError("tasks= must be all, or ids with commas between them; got nothing. `sdpo envs sample NAME` shows ids.")
    if len(set(wanted)) != len(wanted):
        raise UserError("tasks= must name each task once; got " + ", ".join(sorted({w for w in wanted if wanted.count(w) > 1})))
    known: dict[str, Task] = {}
    for task in _every(config, environment):
        known.setdefault(task.id, task)
    for word in wanted:
        if word not in known:
            raise UserError(_unknown(config, environment, word, list(known)))
    return tuple(known[word] for word in wanted)


def splits_of(config: SearchConfig) -> tuple[str, ...]:
    if config.split is not None:
        return (config.split,)
    return tuple(dict.fromkeys((config.env.train_split, config.env.heldout_split)))


def _every(config: SearchConfig, environment: Environment) -> Iterator[Task]:
    for split in splits_of(config):
        tasks = tasks_of(environment, config.env, split, HELDOUT_SEED)  # whatever the search's seed: the same tasks
        for index in range(len(tasks)):
            yield tasks[index]


def _unknown(config: SearchConfig, environment: Environment, word: str, known: Sequence[str]) -> str:
    near = get_close_matches(word, known, n=3, cutoff=0.4)
    hint = f"Did you mean {' or '.join(near)}?" if near else f"There is, for example, {known[0]}."
    where = " and ".join(splits_of(config))
    return (
        f"a task's id must be one of {environment.name!r} in the splits {where}; {word!r} is none of the {len(known)}. "
        f"{hint} (`sdpo envs sample {config.env.name}` shows more.)"
    )
