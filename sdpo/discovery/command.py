"""``sdpo discovery``: a hard set, a search of each of its tasks by every strategy with every seed, and what came of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from rich.console import Console

from sdpo.cluster.local_node import LocalNode
from sdpo.config import DiscoveryConfig
from sdpo.config.named import place_anywhere
from sdpo.discovery import hard_set
from sdpo.discovery.report import Found, pictures, record, table
from sdpo.envs.base import Environment
from sdpo.plugins.seam import anywhere
from sdpo.run.files import write_whole
from sdpo.solving.claim import claim, name_of
from sdpo.solving.command import ENDINGS, folder_of, slug
from sdpo.solving.folder import SearchFolder
from sdpo.solving.following import Following
from sdpo.solving.jobs import Job, Jobs
from sdpo.solving.machines import environment_of, node_for, prepare, started
from sdpo.solving.search import Ending, Search
from sdpo.solving.tasks import ALL, tasks_named
from sdpo.solving.view import SearchView
from sdpo.solving.workers import run_workers
from sdpo.terminal.foreground import user_screen
from sdpo.types import Task

CANDIDATES, CHOSEN, RESULT = "candidates.jsonl", "hard_set.json", "discovery.json"


def run_discovery(config: DiscoveryConfig, words: Sequence[str]) -> int:
    """Measure, search, report; returns the exit code. The process that ends last reports, once every search is over."""
    screen = user_screen()
    place_anywhere(config.env, algorithm=config.algorithm, rollout=config.rollout)
    config.strategies = [anywhere(name) for name in config.strategies]
    environment = environment_of(config)
    if not config.name:
        config.name = f"discovery-{name_of(environment.name)}-{config.model.name}-s{config.seed}"
    folder = Path(config.runs_dir).absolute() / config.name
    claim(folder, config)
    study = Study(config, environment, folder)
    if study.is_open:
        if config.num_workers > 1:
            run_workers("discovery", words, config.name, config.num_workers, folder / "logs", screen, study.how_far)
        else:
            _work(study, screen)
    if study.is_open:
        screen.print("Other processes still work on some searches; the same command reports once they are over.", highlight=False)
        return 0
    _report(study, screen)
    return 0


class Study:
    """What is compared, as far as it is known."""

    def __init__(self, config: DiscoveryConfig, environment: Environment, folder: Path) -> None:
        self.config, self.environment, self.folder = config, environment, folder
        self.every = tasks_named(config, environment, config.tasks or ALL)
        self.candidates = self.every if config.tasks else hard_set.candidates(self.every, config.hard, config.seed)
        self._followed: Following | None = None

    def tasks(self) -> tuple[Task, ...] | None:
        """The hard ones; None: they are not known yet."""
        if self.config.tasks:
            return self.every
        found = hard_set.rates(self.folder / CANDIDATES)
        if any(task.id not in found for task in self.candidates):
            return None
        tasks = hard_set.chosen(self.candidates, found, self.config.hard)
        hard_set.keep_choice(self.folder / CHOSEN, tasks, found, self.config.hard)
        return tasks

    def jobs(self) -> tuple[Job, ...]:
        """The searches in the order in which they are taken: a seed after the other, so that early results are balanced."""
        seeds = range(self.config.seed, self.config.seed + self.config.num_seeds)
        return tuple(
            Job(
                task=task,
                strategy=strategy,
                seed=seed,
                folder=SearchFolder(self.folder / "searches" / folder_of(strategy) / slug(task.id) / f"seed_{seed}"),
                title=f"sdpo discovery · {strategy} · {task.id} · seed {seed}",
            )
            for seed, task, strategy in product(seeds, self.tasks() or (), self.config.strategies)
        )

    def searches(self) -> Jobs:
        """The jobs. Each step is finished, so that the first success does not depend on which attempt is verified first."""
        return Jobs(self.config, self.jobs(), stop_at_once=False)

    @property
    def is_open(self) -> bool:
        return self.tasks() is None or bool(self.searches().open())

    def how_far(self) -> str:
        """What other processes have done since this was asked first."""
        if self._followed is None:
            if self.tasks() is None:
                num_known = len(hard_set.rates(self.folder / CANDIDATES))
                return f"hard set: {num_known} of {len(self.candidates)} candidates measured"
            self._followed = Following(self.searches().open())
        return self._followed.sentence()

    def found(self) -> Found:
        by_place = {(job.strategy, job.task.id, job.seed): job.standing(self.config)[0] for job in self.jobs()}
        tasks = self.tasks()
        assert tasks is not None, "every candidate is measured"
        seeds = range(self.config.seed, self.config.seed + self.config.num_seeds)
        return Found(
            task_ids=tuple(task.id for task in tasks),
            searches={
                strategy: [[by_place[strategy, task.id, seed] for seed in seeds] for task in tasks]
                for strategy in self.config.strategies
            },
        )


def _work(study: Study, screen: Console) -> None:
    """Measure and search. Ray starts while the model is checked."""
    with node_for(study.config) as node:
        _search(study, screen, node)


def _search(study: Study, screen: Console, node: LocalNode | None) -> None:
    config, folder = study.config, study.folder
    ready = prepare(config, study.environment, study.candidates, lambda text: screen.print(text, highlight=False))
    view = SearchView(screen, "sdpo discovery", config.budget, quiet=config.quiet)

    def ended(job: Job, search: Search, ending: Ending) -> None:
        view.say(f"{job.title}: {ENDINGS[ending]} after {search.spent.attempts} attempts")

    with started(config, ready, folder, view, screen, node) as parts:
        if study.tasks() is None:
            hard_set.measure(config, study.candidates, parts, view, folder / CANDIDATES)
        study.searches().work(parts, view, folder, ended)


def _report(study: Study, screen: Console) -> None:
    found = study.found()
    screen.print(table(found))
    for axis, picture in pictures(found).items():
        write_whole(study.folder / f"discovery-{axis}.svg", picture)
    result = {"env": study.config.env.name, "model": study.config.model.name, "folder": str(study.folder), **record(found)}
    write_whole(study.folder / RESULT, json.dumps(result, indent=1) + "\n")
    screen.print(json.dumps(result), highlight=False, markup=False, soft_wrap=True)
