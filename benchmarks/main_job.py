"""What does the main job learn, and would it have learned it without hindsight?

``sdpo warmup`` once for each dtype; then for every arm and seed one ``sdpo train`` from the warmed model, as a user runs it, and
``sdpo evaluate`` of some of its checkpoints on held-out tasks; then the checkpoints go. One process a core; runs wait in a queue,
ordered by seed. What was finished is kept: after an interrupt the same command goes on.

Prints a table for each dtype, writes a picture of success while training, and ends in a line of JSON. Each look at the held-out
tasks, the same ones with the same seeds, has by arm: ``success``, ``pass_at_k`` and ``distinct`` of each seed; ``change``,
success less that of the common start, with the standard error over seeds; ``change_of_seeds``, with that over tasks;
``over_grpo``, the difference to GRPO's of the same seed, with the standard errors over seeds and over tasks. ``while_training``
has every step's success, on tasks that the run has not met before, as long as there are any.

    python benchmarks/main_job.py [--seeds 5] [--dtypes float32 bfloat16] [--arms sdpo grpo blend no_hints] [--evaluate-at 10]
    python benchmarks/main_job.py --arms grpo fast="algorithm=sdpo learner.lr=1e-4" --seeds 2

An arm is one of the known names, or NAME="KEY=VALUE …" in the words of ``sdpo train``.
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

ARMS: dict[str, tuple[str, ...]] = {
    "sdpo": (),
    "grpo": ("algorithm=grpo",),
    "blend": ("algorithm.routing.policy_gradient_share=0.5",),
    "reverse_kl": ("algorithm=sdpo",),
    "no_hints": ("algorithm.hindsight.choice=none",),
    "routed": ("algorithm.routing.kind=by_success",),
    "by_group": ("algorithm.routing.kind=by_group",),
}
"""What each changes of the experiment, whose own algorithm is SDPO."""
ENVIRONMENTS: dict[str, tuple[str, ...]] = {
    "one_liners": ("env=one_liners_few", "sampling.max_response_tokens=48"),
    "code_easy": ("env=code", "env.options.difficulties=[easy]", "sampling.max_response_tokens=48"),
    "chemistry_counts": ("env=chemistry_counts", "sampling.max_response_tokens=32"),
}
"""The tasks of each of ``conf/experiment``, in the words of ``sdpo evaluate``."""
SMALL = ("rollout.kv_cache_gib=1", "rollout.num_verifiers=1", "cluster.object_store_gib=1")
"""So that two runs fit into 24 GiB."""
START = "start"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """One evaluation: held-out success of each task, and the command's own figures."""

    rate_of: dict[str, float]
    figures: dict[str, float]

    @classmethod
    def of(cls, output: str) -> Evaluation:
        lines = re.findall(r"^(\d+)/(\d+)  (\S+)$", output, flags=re.MULTILINE)
        return cls(
            rate_of={task: int(solved) / int(attempts) for solved, attempts, task in lines},
            figures={key: value for key, value in last_json(output).items() if isinstance(value, float)},
        )

    @property
    def success(self) -> float:
        return sum(self.rate_of.values()) / len(self.rate_of)


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """One call of this script."""

    folder: Path
    experiment: str
    arms: dict[str, tuple[str, ...]]
    num_seeds: int
    first_seed: int
    num_steps: int
    evaluations: tuple[int, ...]
    """Steps after which held-out tasks are asked."""
    num_tasks: int
    num_attempts: int
    env_words: tuple[str, ...]
    """Changes of the environment's options, for every command."""
    warmup_words: tuple[str, ...]
    model: Path | None
    """The warmed model, where it is at hand."""

    @property
    def seeds(self) -> range:
        return range(self.first_seed, self.first_seed + self.num_seeds)

    @property
    def save_every(self) -> int:
        return math.gcd(*self.evaluations)

    def name(self, dtype: str, arm: str, seed: int) -> str:
        return f"{dtype}-{arm}-s{seed}"

    def start(self, dtype: str) -> Path:
        """The model from which all runs begin."""
        return self.model or self.folder / f"warm-{dtype}"

    def warmup(self, dtype: str) -> list[str]:
        return [
            "warmup", f"experiment=warmup_{self.experiment}", f"to={self.start(dtype)}", f"learner.dtype={dtype}",
            f"rollout.dtype={dtype}", *self.env_words, *self.warmup_words, f"logs_dir={self.folder / f'logs-warm-{dtype}'}",
            "quiet=true",
        ]  # fmt: skip

    def training(self, dtype: str, arm: str, seed: int) -> list[str]:
        return [
            "train", f"experiment={self.experiment}", f"model.path={self.start(dtype)}", f"learner.dtype={dtype}",
            f"rollout.dtype={dtype}", *SMALL, f"seed={seed}", f"num_steps={self.num_steps}", f"runs_dir={self.folder}",
            f"name={self.name(dtype, arm, seed)}", "evaluation.num_tasks=0", f"checkpoint.every={self.save_every}",
            f"checkpoint.keep={self.num_steps // self.save_every}", "batch.micro_batch_tokens=2048", "learner.num_threads=1",
            "tracking.tensorboard=false", "tracking.quiet=true", *self.env_words, *self.arms[arm],
        ]  # fmt: skip

    def checkpoints(self, dtype: str, arm: str, seed: int) -> Path:
        return self.folder / self.name(dtype, arm, seed) / "checkpoints"

    def evaluation(self, dtype: str, of: Sequence[str], name: str) -> list[str]:
        """``of``: what is looked at, in the command's words."""
        return [
            "evaluate", *of, *ENVIRONMENTS[self.experiment], *SMALL, f"rollout.dtype={dtype}", f"num_tasks={self.num_tasks}",
            f"k={self.num_attempts}", f"logs_dir={self.folder / f'logs-{name}'}", *self.env_words,
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
            [sys.executable, "-P", "-m", "sdpo.cli", *words],
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


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, 0.0
    return mean, math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values))


def paired(ours: Evaluation, theirs: Evaluation) -> tuple[float, float]:
    """Mean difference of the tasks' success, and its standard error over tasks."""
    return mean_and_error([rate - theirs.rate_of[task] for task, rate in ours.rate_of.items()])


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The runs of one dtype, after the same number of steps."""

    start: Evaluation
    of_arms: dict[str, list[Evaluation]]
    """One a seed."""

    def change(self, arm: str) -> tuple[float, float]:
        return mean_and_error([evaluation.success - self.start.success for evaluation in self.of_arms[arm]])

    def over_grpo(self, arm: str) -> tuple[float, float, float] | None:
        """Mean difference, its standard error over seeds, and over tasks."""
        if "grpo" not in self.of_arms or arm == "grpo":
            return None
        pairs = list(zip(self.of_arms[arm], self.of_arms["grpo"], strict=True))
        of_seeds = [ours.success - theirs.success for ours, theirs in pairs]
        of_tasks = [
            sum(ours.rate_of[task] - theirs.rate_of[task] for ours, theirs in pairs) / len(pairs) for task in self.start.rate_of
        ]
        return *mean_and_error(of_seeds), mean_and_error(of_tasks)[1]

    def record(self, arm: str) -> dict[str, object]:
        evaluations, ahead = self.of_arms[arm], self.over_grpo(arm)
        changes = [paired(evaluation, self.start) for evaluation in evaluations]
        return {
            "success": [round(evaluation.success, 4) for evaluation in evaluations],
            "change": [round(value, 4) for value in self.change(arm)],
            "change_of_seeds": [[round(value, 4) for value in change] for change in changes],
            "pass_at_k": [round(evaluation.figures["heldout/pass_at_k"], 4) for evaluation in evaluations],
            "distinct": [round(evaluation.figures["heldout/distinct"], 4) for evaluation in evaluations],
            **({"over_grpo": [round(value, 4) for value in ahead]} if ahead else {}),
        }


def studied(study: Study, dtype: str, cores: Cores) -> dict[int, Found]:
    """Held-out success at every evaluation."""
    if study.model is None:
        cores.sdpo(None, study.warmup(dtype), f"warm-{dtype}")
    starts: list[Evaluation] = []
    found: dict[tuple[str, int, int], Evaluation] = {}

    def start(core: int) -> None:
        name = f"{dtype}-{START}"
        starts.append(Evaluation.of(cores.sdpo(core, study.evaluation(dtype, [f"model.path={study.start(dtype)}"], name), name)))

    def one(arm: str, seed: int) -> Callable[[int], None]:
        def job(core: int) -> None:
            run, checkpoints = study.name(dtype, arm, seed), study.checkpoints(dtype, arm, seed)
            cores.sdpo(core, study.training(dtype, arm, seed), run)
            for evaluation in study.evaluations:
                name = f"{run}-step{evaluation}"
                words = study.evaluation(dtype, [f"checkpoint={checkpoints / f'step_{evaluation:06d}'}"], name)
                found[arm, seed, evaluation] = Evaluation.of(cores.sdpo(core, words, name))
            shutil.rmtree(checkpoints, ignore_errors=True)

        return job

    cores.run([start, *(one(arm, seed) for seed in study.seeds for arm in study.arms)])
    return {
        evaluation: Found(
            start=starts[0], of_arms={arm: [found[arm, seed, evaluation] for seed in study.seeds] for arm in study.arms}
        )
        for evaluation in study.evaluations
    }


def training_curves(study: Study, dtype: str, metric: str) -> dict[str, list[list[float]]]:
    """Of each step, by arm and seed."""
    return {
        arm: [
            [
                json.loads(line)[metric]
                for line in (study.folder / study.name(dtype, arm, seed) / "metrics.jsonl").read_text().splitlines()
            ]
            for seed in study.seeds
        ]
        for arm in study.arms
    }


def table(study: Study, dtype: str, found: dict[int, Found], curves: dict[str, list[list[float]]]) -> Table:
    num_tasks = len(found[study.evaluations[0]].start.rate_of)
    shown = Table(title=f"{study.experiment}, {dtype}: success on {num_tasks} held-out tasks, {study.num_seeds} seeds")
    heads = (
        "",
        "step",
        "while training",
        "start",
        "then",
        "change",
        "worst seed (± tasks)",
        "pass@k",
        "distinct",
        "over GRPO (± seeds; ± tasks)",
    )
    for index, head in enumerate(heads):
        shown.add_column(head, justify="left" if index == 0 else "right")
    for evaluation, of_step in found.items():
        start = of_step.start
        for name, evaluations in of_step.of_arms.items():
            change, error = of_step.change(name)
            worst = min(paired(one, start) for one in evaluations)
            ahead = of_step.over_grpo(name)
            training = mean_and_error([mean_and_error(one[:evaluation])[0] for one in curves[name]])
            pass_at_k, distinct = (
                f"{start.figures[key]:.0%} -> {mean_and_error([one.figures[key] for one in evaluations])[0]:.0%}"
                for key in ("heldout/pass_at_k", "heldout/distinct")
            )
            shown.add_row(
                name, str(evaluation), f"{training[0]:.1%} ± {training[1]:.1%}", f"{start.success:.1%}",
                f"{start.success + change:.1%}", f"{change:+.1%} ± {error:.1%}",
                f"{worst[0]:+.1%} ± {worst[1]:.1%}", pass_at_k, distinct,
                f"{ahead[0]:+.1%} ± {ahead[1]:.1%}; {ahead[2]:.1%}" if ahead else "",
            )  # fmt: skip
        shown.add_section()
    return shown


def arms_of(words: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Raises ValueError for one that is neither known nor NAME=WORDS."""
    arms: dict[str, tuple[str, ...]] = {}
    for word in words:
        name, is_given, overrides = word.partition("=")
        if not is_given and name not in ARMS:
            raise ValueError(f'an arm is one of {", ".join(ARMS)}, or NAME="KEY=VALUE …"; got {word}')
        arms[name] = tuple(overrides.split()) if is_given else ARMS[name]
    return arms


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiment", choices=list(ENVIRONMENTS), default="one_liners")
    parser.add_argument("--arms", nargs="+", default=["sdpo", "grpo", "blend", "no_hints"])
    parser.add_argument("--dtypes", nargs="+", choices=["float32", "bfloat16"], default=["float32", "bfloat16"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0, help="a search uses other seeds than the result")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument(
        "--evaluate-at", type=int, nargs="+", default=None, help="steps after which held-out tasks are asked; the last"
    )
    parser.add_argument("--tasks", type=int, default=96, help="held-out tasks, or all there are")
    parser.add_argument("--attempts", type=int, default=4, help="at each of them")
    parser.add_argument("--env", nargs="*", default=[], help="env.options.… for every command")
    parser.add_argument("--warmup", nargs="*", default=[], help="KEY=VALUE for the warm-up")
    parser.add_argument("--model", type=Path, default=None, help="the warmed model: no warm-up")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=Path("runs/main_job"))
    parser.add_argument("--json", type=Path, default=None, help="write the line of JSON here too")
    arguments = parser.parse_args(words)
    evaluations = arguments.evaluate_at or [arguments.steps]
    if not all(0 < evaluation <= arguments.steps for evaluation in evaluations):
        parser.error(f"--evaluate-at must be steps of the run, 1 to {arguments.steps}; got {evaluations}")
    try:
        arms = arms_of(arguments.arms)
    except ValueError as error:
        parser.error(f"--arms: {error}")
    study = Study(
        folder=arguments.folder.absolute(), experiment=arguments.experiment, arms=arms, num_seeds=arguments.seeds,
        first_seed=arguments.first_seed, num_steps=arguments.steps, evaluations=tuple(sorted(evaluations)),
        num_tasks=arguments.tasks, num_attempts=arguments.attempts,
        env_words=tuple(arguments.env), warmup_words=tuple(arguments.warmup),
        model=arguments.model and arguments.model.absolute(),
    )  # fmt: skip
    study.folder.mkdir(parents=True, exist_ok=True)
    cores = Cores(study.folder, arguments.cores)
    screen = Console(width=170)
    results: dict[str, object] = {
        "experiment": study.experiment, "seeds": list(study.seeds), "heldout_attempts": study.num_attempts,
        "machine": platform.machine(), "arms": {name: " ".join(overrides) for name, overrides in arms.items()},
    }  # fmt: skip
    for dtype in arguments.dtypes:
        found = studied(study, dtype, cores)
        curves = training_curves(study, dtype, "success")
        start = found[study.evaluations[0]].start
        results[dtype] = {
            "heldout_tasks": len(start.rate_of),
            "start": {"success": round(start.success, 4), **{key: round(value, 4) for key, value in start.figures.items()}},
            "heldout": {str(step): {name: of_step.record(name) for name in arms} for step, of_step in found.items()},
            "while_training": curves,
        }
        screen.print(table(study, dtype, found, curves))
        series = [
            Series.of_runs(name, [([float(step) for step in range(1, len(one) + 1)], one) for one in ones])
            for name, ones in curves.items()
        ]
        picture = line_chart(
            f"{study.experiment}, {dtype}: success while training",
            series,
            x_label="step",
            y_label="success at temperature 1",
            y_range=None,
        )
        (study.folder / f"{dtype}.svg").write_text(picture)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
