"""Does ``sdpo plan`` foretell the memory of a run on CPUs? The default run for two steps, its processes watched, beside the plan.

Every half second the proportional set size of each process of the run is read (``/proc/PID/smaps_rollup``: memory that several
share is counted once), less its part in Ray's object store (shared memory), which is summed up by itself. What is compared are
the peaks: of the largest process of each kind, of Ray's own processes together, and of the whole run at one moment. The plan is
asked of the very same words, so that it knows the number of steps.

    python benchmarks/plan_vs_measured.py [--steps 2] [--json FILE] [KEY=VALUE ...]

KEY=VALUE are words of ``sdpo train``; evaluation is off unless they say otherwise. Prints a table and ends in a line of JSON:
``predicted_gib``, ``measured_gib`` and ``ratio`` (predicted over measured) by process, ``machine`` being all of them together.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from sdpo.envs.children import Lifeline

EVERY_S = 0.5
GIB = 2**20
"""Of the kibibytes that the kernel counts in."""
ACTORS = {"ray::LearnerActor": "learner", "ray::EngineActor": "engine", "ray::VerifierActor": "verifier"}
"""By how Ray names their processes."""


@dataclass(slots=True)
class Peaks:
    """KiB, of the largest process of a kind at its peak, and of all together."""

    of_kind: dict[str, int] = field(default_factory=dict)
    machine: int = 0
    num_samples: int = 0

    def see(self, pid: int) -> None:
        """Look at the process ``pid`` and all that it started."""
        now: dict[str, list[int]] = {}
        shared = 0
        for process in _family(pid):
            with suppress(psutil.Error, OSError):  # it may have ended since it was listed
                kind = _kind(process, pid)
                sizes = _sizes(process.pid)
                now.setdefault(kind, []).append(sizes["Pss"] - sizes["Pss_Shmem"])
                shared += sizes["Pss_Shmem"]
        seen = {kind: sum(found) if kind == "ray" else max(found) for kind, found in now.items()} | {"object store": shared}
        for kind, size in seen.items():
            self.of_kind[kind] = max(self.of_kind.get(kind, 0), size)
        self.machine = max(self.machine, shared + sum(map(sum, now.values())))
        self.num_samples += 1


def _family(pid: int) -> list[psutil.Process]:
    try:
        first = psutil.Process(pid)
        return [first, *first.children(recursive=True)]
    except psutil.Error:
        return []


def _kind(process: psutil.Process, driver: int) -> str:
    """What a verifier has started (its sandbox) is the verifier's."""
    if process.pid == driver:
        return "driver"
    for ancestor in (process, *process.parents()):
        title = (ancestor.cmdline() or [""])[0].split(" ")[0].partition("(")[0].partition(".")[0]
        if title in ACTORS:
            return ACTORS[title]
    return "ray"


def _sizes(pid: int) -> dict[str, int]:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}


def measured(words: Sequence[str]) -> tuple[Peaks, list[dict[str, float]]]:
    """Of a run, with the metrics of its steps."""
    with tempfile.TemporaryDirectory() as scratch:
        with (Path(scratch) / "output.txt").open("w+") as output, Lifeline() as line:
            command = [sys.executable, "-P", "-m", "sdpo.cli", "train", *words, f"runs_dir={scratch}", "name=run"]
            variables = {**os.environ, "COLUMNS": "120"}
            run = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=variables, pass_fds=line.pass_fds)
            line.tie(run)
            peaks = Peaks()
            while run.poll() is None:
                began = time.monotonic()
                peaks.see(run.pid)
                time.sleep(max(0.0, EVERY_S - (time.monotonic() - began)))
            if run.returncode != 0:
                output.seek(0)
                raise RuntimeError(f"the run ended with exit code {run.returncode}:\n{output.read()[-3000:]}")
        lines = (Path(scratch) / "run" / "metrics.jsonl").read_text().splitlines()
        return peaks, [json.loads(line) for line in lines]


def predicted(words: Sequence[str]) -> dict[str, float]:
    """GiB by kind of process, and of the machine."""
    command = [sys.executable, "-P", "-m", "sdpo.cli", "plan", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        raise RuntimeError(f"sdpo plan ended with exit code {done.returncode}:\n{done.stderr[-3000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    return {**found["process_gib"], "machine": found["machine_gib"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--json", type=Path, default=None, help="write the line of JSON here too")
    parser.add_argument("words", nargs="*", metavar="KEY=VALUE")
    arguments = parser.parse_args()
    own = [f"num_steps={arguments.steps}", "evaluation.num_tasks=0", "tracking.quiet=true"]
    words = [*own, "cluster.gpus_per_node=0", *arguments.words]
    plan = predicted(words)
    peaks, steps = measured(words)
    found = {kind: size / GIB for kind, size in peaks.of_kind.items()} | {"machine": peaks.machine / GIB}
    ratios = {kind: plan[kind] / found[kind] for kind in plan if found.get(kind, 0.0) > 0.0}
    table = Table(title=f"GiB at the peak of {len(steps)} steps, {peaks.num_samples} looks")
    for head in ("process", "predicted", "measured", "ratio"):
        table.add_column(head, justify="left" if head == "process" else "right")
    for kind, ratio in ratios.items():
        table.add_row(kind, f"{plan[kind]:.2f}", f"{found[kind]:.2f}", f"{ratio:.2f}")
    Console(width=100).print(table)
    report = {
        "predicted_gib": _rounded(plan),
        "measured_gib": _rounded(found),
        "ratio": _rounded(ratios),
        "learner_gib_recorded": round(max(step.get("memory/learner_gib", 0.0) for step in steps), 3),
        "steps": len(steps),
        "samples": peaks.num_samples,
        "words": list(arguments.words),
        "num_cores": len(os.sched_getaffinity(0)),
    }
    if arguments.json is not None:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report))


def _rounded(numbers: Mapping[str, float]) -> dict[str, float]:
    return {name: round(number, 3) for name, number in numbers.items()}


if __name__ == "__main__":
    main()
