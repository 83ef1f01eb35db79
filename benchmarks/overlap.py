"""How much of a step's time does generating one step ahead hide behind the learner (``rollout.staleness=1``)?

Real ``sdpo train`` runs of the same model, tasks and settings, on-policy and one step ahead in turn, so that a slow spell of the
machine slows both; several turns. The learning rate is 0: the policy stays as it is, so every step samples answers of the same
kind and costs the same, while everything that a step does is done. The engine has the last of this process's cores to itself;
learner, verifier and driver have the first, where on-policy they wait for the engine, so that as much work waits for a free core
either way. With a single core there is nothing to win, and this says so. On GPUs the cores matter little.

The first steps of each run, in which caches fill, and the last, beside which nothing is generated any more, are left out.
``step_time_ratio`` is the median step one step ahead over the median step on-policy. ``overlap_share`` is the time won, over what
could be won at most: the shorter of generating and all else that an on-policy step does (hindsight, learning, the weights' way).

    python benchmarks/overlap.py [--model PATH] [--steps 10] [--turns 3] [--json FILE] [KEY=VALUE ...]

KEY=VALUE are words of ``sdpo train`` for both. Prints a table and ends in a line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from sdpo.envs.children import Lifeline

ROOT = Path(__file__).parent.parent
NUM_WARMUP = 3
PHASES = ("generate", "hindsight", "learn", "sync")
SETTINGS = (
    "model.name=benchmark", "env=custom", f"env.name={ROOT / 'tests' / 'letters.py'}:Letters", "batch.num_tasks=8",
    "batch.group_size=8", "batch.micro_batch_tokens=2048", "sampling.max_prompt_tokens=100", "sampling.max_response_tokens=64",
    "algorithm.hindsight.max_prompt_tokens=300", "evaluation.num_tasks=0", "checkpoint.every=1000000", "learner.lr=0.0",
    "learner.num_threads=1", "rollout.num_verifiers=1", "rollout.kv_cache_gib=1", "cluster.object_store_gib=1",
    "tracking.tensorboard=false", "tracking.rollouts=false", "tracking.quiet=true", "guards.patience=1000000",
)  # fmt: skip


def run(folder: Path, name: str, staleness: int, words: Sequence[str]) -> list[dict[str, float]]:
    """The steps of one run that count."""
    first, *_, last = [*sorted(os.sched_getaffinity(0)), *sorted(os.sched_getaffinity(0))]
    line = Lifeline()
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "sdpo.cli", "train", *SETTINGS, *words, f"rollout.staleness={staleness}",
         f"runs_dir={folder}", f"name={name}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120"},
        preexec_fn=lambda: os.sched_setaffinity(0, {first}),
        pass_fds=line.pass_fds,
    )  # fmt: skip
    line.tie(process)
    is_over = threading.Event()
    mover = threading.Thread(target=keep_engines_on, args=(last, process.pid, is_over))
    mover.start()
    try:
        output, _ = process.communicate()
    finally:
        is_over.set()
        mover.join()
        line.close()
    if process.returncode != 0:
        raise RuntimeError(f"{name} ended with exit code {process.returncode}:\n{output[-3000:]}")
    rows = [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()]
    return rows[NUM_WARMUP:-1]


def keep_engines_on(core: int, driver: int, is_over: threading.Event) -> None:
    """All threads of the engines that the process ``driver`` starts, until it is over."""
    while not is_over.wait(0.5):
        with suppress(psutil.Error, OSError):  # processes and threads come and go while they are looked at
            for process in psutil.Process(driver).children(recursive=True):
                if process.cmdline()[:1] and process.cmdline()[0].startswith("ray::EngineActor"):
                    for thread in process.threads():
                        os.sched_setaffinity(thread.id, {core})


def median(rows: Sequence[Mapping[str, float]], name: str) -> float:
    return statistics.median(row[name] for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=None, help="a model as model.path= takes it; else one of 0.1 M parameters")
    parser.add_argument("--steps", type=int, default=10, help="of each run")
    parser.add_argument("--turns", type=int, default=3, help="runs of each kind")
    parser.add_argument("--json", type=Path, default=None, help="write the line of JSON here too")
    parser.add_argument("words", nargs="*", metavar="KEY=VALUE")
    arguments = parser.parse_args()
    if arguments.steps < NUM_WARMUP + 2:
        parser.error(
            f"--steps must be at least {NUM_WARMUP + 2} ({NUM_WARMUP} and the last do not count); got {arguments.steps}."
        )
    screen = Console(width=110)
    num_cores = len(os.sched_getaffinity(0))
    if num_cores < 2:
        screen.print("engine and learner share the only core: nothing can be won", style="yellow")
    steps: dict[int, list[dict[str, float]]] = {0: [], 1: []}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        words = [f"model.path={arguments.model or tiny_model(folder / 'model')}", f"num_steps={arguments.steps}"]
        for turn in range(arguments.turns):
            for staleness in (0, 1) if turn % 2 == 0 else (1, 0):
                print(f"turn {turn + 1}/{arguments.turns}, staleness {staleness}", file=sys.stderr, flush=True)
                steps[staleness] += run(folder, f"turn{turn}-staleness{staleness}", staleness, [*words, *arguments.words])
    table = Table(title=f"a step's seconds, medians of {len(steps[0])}; {num_cores} cores")
    for head in ("staleness", *PHASES, "step", "range"):
        table.add_column(head, justify="right")
    for staleness, rows in steps.items():
        seconds = [row["time/step_s"] for row in rows]
        of_phases = [f"{median(rows, f'time/{phase}_s'):.2f}" for phase in PHASES]
        table.add_row(str(staleness), *of_phases, f"{median(rows, 'time/step_s'):.2f}", f"{min(seconds):.2f}-{max(seconds):.2f}")
    screen.print(table)
    print_figures(steps[0], steps[1], num_cores, arguments.json)


def print_figures(
    on_policy: Sequence[Mapping[str, float]], ahead: Sequence[Mapping[str, float]], num_cores: int, file: Path | None
) -> None:
    before, after = median(on_policy, "time/step_s"), median(ahead, "time/step_s")
    generate, learn = median(on_policy, "time/generate_s"), median(on_policy, "time/learn_s")
    figures = {
        "step_time_ratio": round(after / before, 3),
        "overlap_share": round((before - after) / min(generate, before - generate), 3),
        "step_s": {"on_policy": round(before, 3), "ahead": round(after, 3)},
        "on_policy_s": {"generate": round(generate, 3), "learn": round(learn, 3)},
        "num_steps": len(on_policy),
        "num_cores": num_cores,
    }
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures))


def tiny_model(folder: Path) -> Path:
    sys.path.insert(0, str(ROOT))
    from tests.tiny import write_tiny_model

    return write_tiny_model(folder)


if __name__ == "__main__":
    main()
