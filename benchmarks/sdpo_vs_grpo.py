"""Does SDPO teach the default model more than GRPO does, from the same start and with the same generations?

For each environment: ``sdpo warmup`` once; then for every algorithm and seed one ``sdpo train`` from the warmed model, as a user
runs it, and ``sdpo evaluate`` of some of its checkpoints on held-out tasks; then the checkpoints go. One process a core; runs
wait in a queue, ordered by seed. What was finished is kept: after an interrupt the same command goes on.

Prints a table, writes a picture of success while training for each environment, and ends in a line of JSON. Each look at the
held-out tasks has, by algorithm: ``success``, of each seed; ``change``, success less that of the common start, with the standard
error over seeds; ``over_grpo``, the difference to GRPO's of the same seed, with the standard errors over seeds and over held-out
tasks. Success while training is on tasks that the run has not met before, as long as there are any.

Left out: a search for each algorithm's own learning rate; all have the same.

    python benchmarks/sdpo_vs_grpo.py [--envs code chemistry] [--seeds 3] [--steps 12] [--looks 4 12] [--folder runs/sdpo_vs_grpo]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue

from rich.console import Console
from rich.table import Table

from sdpo.report.chart import Series, line_chart

ALGORITHMS: dict[str, tuple[str, ...]] = {
    "grpo": ("algorithm=grpo",),
    "sdpo": ("algorithm=sdpo",),
    "routed": ("algorithm=sdpo_routed",),
    "blend": ("algorithm=sdpo_grpo",),
    "by_group": ("algorithm=sdpo_by_group",),
}
EXPERIMENTS = {"code": "code_easy", "chemistry": "chemistry_counts"}
"""Of ``conf/experiment``: what is trained, and by ``warmup_…`` what is done before."""
ENVIRONMENTS: dict[str, tuple[str, ...]] = {
    "code": ("env=code", "env.options.difficulties=[easy]", "sampling.max_response_tokens=48"),
    "chemistry": ("env=chemistry_counts", "sampling.max_response_tokens=32"),
}
"""The experiments' tasks, in the words of ``sdpo evaluate``."""
GENERATIONS = 64
"""Of a step of the experiments: eight tasks, eight attempts each."""
SMALL = ("rollout.kv_cache_gib=1", "rollout.num_verifiers=1", "cluster.object_store_gib=1")
"""So that two runs fit into 24 GiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """One call of this script."""

    folder: Path
    algorithms: tuple[str, ...]
    num_seeds: int
    num_steps: int
    looks: tuple[int, ...]
    """Steps after which held-out tasks are asked."""
    num_tasks: int
    num_attempts: int

    @property
    def save_every(self) -> int:
        return math.gcd(*self.looks)

    def name(self, env: str, algorithm: str, seed: int) -> str:
        return f"{env}-{algorithm}-s{seed}"

    def warm(self, env: str) -> Path:
        return self.folder / f"warm-{env}"

    def warmup(self, env: str) -> list[str]:
        return [
            "warmup", f"experiment=warmup_{EXPERIMENTS[env]}", f"to={self.warm(env)}",
            f"evaluation.num_tasks={self.num_tasks // 2}", f"logs_dir={self.folder / f'logs-warm-{env}'}", "quiet=true",
        ]  # fmt: skip

    def training(self, env: str, algorithm: str, seed: int) -> list[str]:
        return [
            "train", f"experiment={EXPERIMENTS[env]}", f"model.path={self.warm(env)}", *ALGORITHMS[algorithm], *SMALL,
            f"seed={seed}", f"num_steps={self.num_steps}", f"runs_dir={self.folder}", f"name={self.name(env, algorithm, seed)}",
            "evaluation.num_tasks=0", f"checkpoint.every={self.save_every}",
            f"checkpoint.keep={self.num_steps // self.save_every}", "batch.micro_batch_tokens=2048",
            "learner.num_threads=1", "tracking.tensorboard=false", "tracking.quiet=true",
        ]  # fmt: skip

    def checkpoints(self, env: str, algorithm: str, seed: int) -> Path:
        return self.folder / self.name(env, algorithm, seed) / "checkpoints"

    def evaluation(self, env: str, of: Sequence[str], name: str, seed: int) -> list[str]:
        """``of``: what is looked at, in the command's words."""
        environment = [*ENVIRONMENTS[env], *SMALL]
        return [
            "evaluate", *of, *environment, f"num_tasks={self.num_tasks}", f"k={self.num_attempts}", f"seed={seed}",
            f"logs_dir={self.folder / f'logs-{name}'}",
        ]  # fmt: skip


class Cores:
    """Commands of ``sdpo``, each on a core of its own."""

    def __init__(self, folder: Path, num_cores: int) -> None:
        self._folder = folder
        self._cores = sorted(os.sched_getaffinity(0))[:num_cores]

    def run(self, jobs: Sequence[Callable[[int], None]]) -> None:
        """In order, as cores get free. Raises RuntimeError with what the first failed command said."""
        waiting: Queue[Callable[[int], None]] = Queue()
        for job in jobs:
            waiting.put(job)
        failures: list[str] = []

        def work(core: int) -> None:
            while not failures:
                try:
                    waiting.get_nowait()(core)
                except Empty:
                    return
                except RuntimeError as error:
                    failures.append(str(error))

        threads = [threading.Thread(target=work, args=(core,)) for core in self._cores]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise RuntimeError(failures[0])

    def sdpo(self, core: int | None, words: Sequence[str], name: str) -> str:
        """What the command printed; kept, so that a command that succeeded is not run again. ``core`` None: on all of them."""
        cores = self._cores if core is None else [core]
        kept = self._folder / f"{name}.{words[0]}.txt"
        if kept.is_file():
            return kept.read_text()
        print(f"core {', '.join(map(str, cores))}: {words[0]} {name}", file=sys.stderr, flush=True)
        done = subprocess.run(
            [sys.executable, "-m", "sdpo.cli", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": str(len(cores)), "COLUMNS": "120"},
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )
        if done.returncode != 0:
            raise RuntimeError(f"sdpo {' '.join(words)} ended with exit code {done.returncode}:\n{done.stdout[-3000:]}")
        scratch = kept.with_suffix(".partial")
        scratch.write_text(done.stdout)
        scratch.rename(kept)
        return done.stdout


def last_json(output: str) -> dict[str, object]:
    found: dict[str, object] = json.loads([line for line in output.splitlines() if line.startswith("{")][-1])
    return found


def rates(output: str) -> dict[str, float]:
    """Success of each held-out task, from the lines ``solved/attempts  task``."""
    lines = re.findall(r"^(\d+)/(\d+)  (\S+)$", output, flags=re.MULTILINE)
    return {task: int(solved) / int(attempts) for solved, attempts, task in lines}


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, 0.0
    return mean, math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values))


def mean_rate(of_tasks: dict[str, float]) -> float:
    return sum(of_tasks.values()) / len(of_tasks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Held-out success of an environment's runs after the same number of steps."""

    start: dict[str, float]
    """Of each task."""
    of_algorithms: dict[str, list[dict[str, float]]]
    """One a seed."""

    def success(self, algorithm: str) -> list[float]:
        return [mean_rate(of_tasks) for of_tasks in self.of_algorithms[algorithm]]

    def change(self, algorithm: str) -> tuple[float, float]:
        return mean_and_error([success - mean_rate(self.start) for success in self.success(algorithm)])

    def over_grpo(self, algorithm: str) -> tuple[float, float, float]:
        """Mean difference, its standard error over seeds, and over tasks."""
        pairs = list(zip(self.of_algorithms[algorithm], self.of_algorithms["grpo"], strict=True))
        of_seeds = [mean_rate(ours) - mean_rate(theirs) for ours, theirs in pairs]
        of_tasks = [sum(ours[task] - theirs[task] for ours, theirs in pairs) / len(pairs) for task in self.start]
        return *mean_and_error(of_seeds), mean_and_error(of_tasks)[1]


def studied(study: Study, env: str, cores: Cores) -> tuple[dict[str, object], dict[int, Found]]:
    """The warm-up's own measurements, and held-out success at every look."""
    warmed = cores.sdpo(None, study.warmup(env), f"warm-{env}")
    starts: list[dict[str, float]] = []
    found: dict[tuple[str, int, int], dict[str, float]] = {}

    def start(core: int) -> None:
        words = study.evaluation(env, [f"model.path={study.warm(env)}"], f"{env}-start", seed=0)
        starts.append(rates(cores.sdpo(core, words, f"{env}-start")))

    def one(algorithm: str, seed: int) -> Callable[[int], None]:
        def job(core: int) -> None:
            run, checkpoints = study.name(env, algorithm, seed), study.checkpoints(env, algorithm, seed)
            cores.sdpo(core, study.training(env, algorithm, seed), run)
            for look in study.looks:
                words = study.evaluation(env, [f"checkpoint={checkpoints / f'step_{look:06d}'}"], f"{run}-step{look}", seed=seed)
                found[algorithm, seed, look] = rates(cores.sdpo(core, words, f"{run}-step{look}"))
            shutil.rmtree(checkpoints, ignore_errors=True)

        return job

    seeds = range(study.num_seeds)
    cores.run([start, *(one(algorithm, seed) for seed in seeds for algorithm in study.algorithms)])
    return last_json(warmed), {
        look: Found(
            start=starts[0],
            of_algorithms={algorithm: [found[algorithm, seed, look] for seed in seeds] for algorithm in study.algorithms},
        )
        for look in study.looks
    }


def training_curves(study: Study, env: str) -> dict[str, list[list[float]]]:
    """Success of each step's attempts, by algorithm and seed."""
    return {
        algorithm: [
            [
                json.loads(line)["success"]
                for line in (study.folder / study.name(env, algorithm, seed) / "metrics.jsonl").read_text().splitlines()
            ]
            for seed in range(study.num_seeds)
        ]
        for algorithm in study.algorithms
    }


def table(study: Study, env: str, found: dict[int, Found]) -> Table:
    num_tasks = len(found[study.looks[0]].start)
    shown = Table(title=f"{env}: success on {num_tasks} held-out tasks, {study.num_seeds} seeds")
    for index, head in enumerate(("", "generations", "start", "then", "change", "over GRPO (± over seeds; over tasks)")):
        shown.add_column(head, justify="left" if index == 0 else "right")
    for look, of_look in found.items():
        for name in study.algorithms:
            change, error = of_look.change(name)
            ahead, by_seed, by_task = of_look.over_grpo(name)
            start = mean_rate(of_look.start)
            shown.add_row(
                name, str(look * GENERATIONS), f"{start:.1%}", f"{start + change:.1%}", f"{change:+.1%} ± {error:.1%}",
                "" if name == "grpo" else f"{ahead:+.1%} ± {by_seed:.1%}; {by_task:.1%}",
            )  # fmt: skip
        shown.add_section()
    return shown


def record(study: Study, found: dict[int, Found]) -> dict[str, object]:
    """By generations."""
    return {
        str(look * GENERATIONS): {
            name: {
                "success": [round(value, 4) for value in of_look.success(name)],
                "change": [round(value, 4) for value in of_look.change(name)],
                "over_grpo": [round(value, 4) for value in of_look.over_grpo(name)],
            }
            for name in study.algorithms
        }
        for look, of_look in found.items()
    }


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--envs", nargs="+", choices=list(ENVIRONMENTS), default=list(ENVIRONMENTS))
    parser.add_argument("--algorithms", nargs="+", choices=list(ALGORITHMS), default=list(ALGORITHMS), help="grpo among them")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--looks", type=int, nargs="+", default=[4, 12], help="steps after which held-out tasks are asked")
    parser.add_argument("--tasks", type=int, default=96, help="held-out tasks, or all there are")
    parser.add_argument("--attempts", type=int, default=4, help="at each of them")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=Path("runs/sdpo_vs_grpo"))
    parser.add_argument("--json", type=Path, default=None, help="write the line of JSON here too")
    arguments = parser.parse_args(words)
    if "grpo" not in arguments.algorithms:
        parser.error("--algorithms must have grpo among them (the others are compared with it)")
    if not all(0 < look <= arguments.steps for look in arguments.looks):
        parser.error(f"--looks must be steps of the run, 1 to {arguments.steps}; got {arguments.looks}")
    study = Study(
        folder=arguments.folder.absolute(), algorithms=tuple(arguments.algorithms), num_seeds=arguments.seeds,
        num_steps=arguments.steps, looks=tuple(sorted(arguments.looks)), num_tasks=arguments.tasks,
        num_attempts=arguments.attempts,
    )  # fmt: skip
    study.folder.mkdir(parents=True, exist_ok=True)
    cores = Cores(study.folder, arguments.cores)
    screen = Console(width=120)
    results: dict[str, object] = {
        "num_seeds": study.num_seeds, "generations_a_step": GENERATIONS, "heldout_attempts": study.num_attempts,
        "machine": platform.machine(),
    }  # fmt: skip
    for env in arguments.envs:
        warmup, found = studied(study, env, cores)
        curves = training_curves(study, env)
        results[env] = {
            "warmup": {key: warmup[key] for key in ("before", "after", "pairs")},
            "heldout_tasks": len(found[study.looks[0]].start),
            "start": round(mean_rate(found[study.looks[0]].start), 4),
            "heldout": record(study, found),
            "success_while_training": curves,
        }
        screen.print(table(study, env, found))
        series = [
            Series.of_runs(name, [([float(GENERATIONS * step) for step in range(1, len(one) + 1)], one) for one in ones])
            for name, ones in curves.items()
        ]
        picture = line_chart(
            f"{env}: success while training", series, x_label="generations", y_label="success at temperature 1", y_range=None
        )
        (study.folder / f"{env}.svg").write_text(picture)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
