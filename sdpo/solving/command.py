"""``sdpo solve``: tasks are found, searched, and what was found is shown and kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path

from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from sdpo.cluster.local_node import LocalNode
from sdpo.config import SolveConfig
from sdpo.config.named import place_anywhere
from sdpo.plugins.seam import anywhere, short
from sdpo.solving.claim import claim, name_of
from sdpo.solving.folder import SOLUTION, SearchFolder
from sdpo.solving.following import Following
from sdpo.solving.jobs import Job, Jobs
from sdpo.solving.machines import Ready, environment_of, node_for, prepare, started
from sdpo.solving.search import Ending, Search
from sdpo.solving.tasks import tasks_named, the_task
from sdpo.solving.view import SearchView, failures_table
from sdpo.solving.workers import run_workers
from sdpo.terminal.foreground import user_screen
from sdpo.terminal.printable import printable
from sdpo.terminal.view import duration
from sdpo.types import Task

SOLVED, SPENT = 0, 3
"""Exit codes."""
ENDINGS = {
    Ending.solved: "solved",
    Ending.attempts: "budget.attempts is spent",
    Ending.tokens: "budget.tokens is spent",
    Ending.seconds: "budget.seconds is spent",
    Ending.stale: "the attempts stopped varying (stale_steps)",
}


def run_solve(config: SolveConfig, words: Sequence[str]) -> int:
    """Returns the exit code: 0 where everything is solved, 3 where a budget was spent before."""
    screen = user_screen()
    place_anywhere(config.env, algorithm=config.algorithm, rollout=config.rollout)
    config.strategy = anywhere(config.strategy)
    environment = environment_of(config)
    if config.task is not None:
        tasks: tuple[Task, ...] = (the_task(config, environment, config.task),)
    else:
        tasks = tasks_named(config, environment, config.tasks or "")
    if not config.name:
        config.name = _name(config, tasks[0].id)
    folder = Path(config.runs_dir).absolute() / config.name
    claim(folder, config)
    jobs = [
        Job(
            task=task,
            strategy=config.strategy,
            seed=config.seed,
            folder=SearchFolder(folder if config.task is not None else folder / "tasks" / slug(task.id)),
            title=f"sdpo solve · {short(config.strategy)} · {task.id}",
        )
        for task in tasks
    ]
    searches = Jobs(config, jobs, stop_at_once=config.stop_at_once)
    still = searches.open()
    if still and config.num_workers > 1 and len(still) > 1:
        num_workers = min(config.num_workers, len(still))
        run_workers("solve", words, config.name, num_workers, folder / "logs", screen, Following(still).sentence)
    elif still:
        with node_for(config) as node:
            ready = prepare(
                config, environment, tuple(job.task for job in still), lambda text: screen.print(text, highlight=False)
            )
            _search(config, searches, ready, folder, screen, node)
    return _told(config, jobs, folder, screen)


def slug(task_id: str) -> str:
    """A folder of its own for each id."""
    return f"{name_of(task_id)}-{blake2b(task_id.encode(), digest_size=4).hexdigest()}"


def folder_of(strategy: str) -> str:
    """A folder's name for a strategy: its own, or one that no other file's strategy has."""
    return strategy if strategy.isidentifier() else slug(strategy)


def _name(config: SolveConfig, task_id: str) -> str:
    what = name_of(task_id) if config.task is not None else f"{name_of(config.env.name.rpartition(':')[2].lower())}-tasks"
    return f"solve-{what}-{folder_of(config.strategy)}-{config.model.name}-s{config.seed}"


def _search(config: SolveConfig, searches: Jobs, ready: Ready, folder: Path, screen: Console, node: LocalNode | None) -> None:
    view = SearchView(screen, "sdpo solve", config.budget, quiet=config.quiet)

    def ended(job: Job, search: Search, ending: Ending) -> None:
        if config.task is None:
            view.say(f"{job.task.id}: {ENDINGS[ending]} after {search.spent.attempts} attempts")

    with started(config, ready, folder, view, screen, node) as parts:
        searches.work(parts, view, folder, ended)


def _told(config: SolveConfig, jobs: Sequence[Job], folder: Path, screen: Console) -> int:
    """What was found: a solution, or what was wrong with the attempts; a line of JSON at the end."""
    standings = [(job, *job.standing(config)) for job in jobs]
    unfinished = [job for job, _, ending in standings if ending is None]
    if len(jobs) == 1:
        _show(standings[0][0], standings[0][1], standings[0][2], screen)
    num_solved = sum(ending is Ending.solved for _, _, ending in standings)
    if unfinished:
        screen.print(f"{len(unfinished)} searches are being worked on by other processes.", highlight=False)
    record = {
        "env": config.env.name, "strategy": config.strategy, "tasks": len(jobs), "solved": num_solved,
        "folder": str(folder),
        "attempts": sum(search.spent.attempts for _, search, _ in standings),
        "tokens": sum(search.spent.tokens for _, search, _ in standings),
        "solved_at": {job.task.id: asdict(search.solved_at) for job, search, _ in standings if search.solved_at is not None},
        "endings": {job.task.id: None if ending is None else ending.value for job, _, ending in standings},
    }  # fmt: skip
    screen.print(json.dumps(record), highlight=False, markup=False, soft_wrap=True)
    return SOLVED if num_solved == len(jobs) else SPENT


def _show(job: Job, search: Search, ending: Ending | None, screen: Console) -> None:
    spent = search.spent
    attempts = "1 attempt" if spent.attempts == 1 else f"{spent.attempts} attempts"
    paid = f"{attempts} ({search.num_repeats} repeated), {spent.tokens:,} tokens, {duration(spent.seconds)}"
    if search.solution is not None:
        screen.print(Panel(Text(printable(search.solution.text).strip()), title="solution", width=min(screen.width, 100)))
        screen.print(f"{printable(job.task.id)}: solved after {paid}.", highlight=False, markup=False, soft_wrap=True)
        screen.print(f"The solution is in {job.folder.path / SOLUTION}", highlight=False, soft_wrap=True)
        return
    if len(search.memory):
        screen.print(failures_table(search))
    best = "no attempt could be verified" if search.best is None else f"the best attempt had reward {search.best.reward:.2f}"
    why = "another process works on it" if ending is None else ENDINGS[ending]
    more = "" if ending in (None, Ending.stale) else " A larger budget and the same command continue it."
    screen.print(
        f"{printable(job.task.id)}: not solved, {why}: {paid}; {best}, {len(search.memory)} distinct failures.{more}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
