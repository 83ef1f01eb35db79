"""How long does a user wait for the first token, for the first step, and for a dry run?

``sdpo train`` from the command line, a process of its own each time, with a model of 0.1 M parameters and with the default model;
between the two starts of a round nothing else runs. The seconds count from the command to the engine's first sampled token and to
the end of the first step, whose metrics are then in the run's folder. A start that nobody has made before is made first and not
counted: it converts the model and proves the prompts' lengths, once. Parts are what ``sdpo.forkserver.marks`` saw; they overlap,
so each has the second at which it ended, not a share.

    python benchmarks/startup.py [--rounds 3] [--json results.json]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from sdpo.forkserver.marks import MARKS
from sdpo.learner.policy_folder import WEIGHTS

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from tests.tiny import write_tiny_model  # noqa: E402

_IMPORTS = "import time, torch; print(time.process_time())"
FIRST_TOKEN, FIRST_STEP = "first token", "first step"
SHARED = ("num_steps=1", "evaluation.num_tasks=0", "tracking.quiet=true")


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """One start of a run."""

    parts: dict[str, float]
    """Seconds from the command to the last time that a part of that name ended."""


def words_of(model: Path | None, runs: Path) -> list[str]:
    """Of a run with the tiny model, or with the default one and its own defaults but for a first step of four short attempts."""
    if model is None:
        return [*SHARED, f"runs_dir={runs}", "batch.num_tasks=2", "batch.group_size=2", "sampling.max_response_tokens=16"]
    assert (model / WEIGHTS).is_file()
    return [
        *SHARED, f"runs_dir={runs}", f"model.path={model}", "model.name=tiny", "env=custom",
        f"env.name={ROOT / 'tests' / 'letters.py'}:Letters", "batch.num_tasks=4", "batch.group_size=4",
        "batch.micro_batch_tokens=600", "sampling.max_prompt_tokens=100", "sampling.max_response_tokens=8",
        "algorithm.hindsight.max_prompt_tokens=300", "algorithm.support.num_ids=20", "cluster.object_store_gib=0.5",
    ]  # fmt: skip


def start(words: Sequence[str], name: str, runs: Path) -> Start:
    marks = runs / f"{name}.marks"
    os.sync()  # the checkpoint of the run before would be written to the disk meanwhile
    began = time.time()
    done = subprocess.run(
        [sys.executable, "-P", "-m", "sdpo.cli", "train", *words, f"name={name}"],
        env={**os.environ, MARKS: str(marks)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    parts: dict[str, float] = {}
    for line in marks.read_text().splitlines():
        seen = json.loads(line)
        parts[seen["part"]] = seen["at"] - began
    parts[FIRST_STEP] = (runs / name / "metrics.jsonl").stat().st_mtime - began
    parts["command ends"] = time.time() - began
    return Start(parts=parts)


def importing() -> float:
    """Processor seconds of one ``import torch`` now: machines of one kind differ by half, and so does one from hour to hour."""
    done = subprocess.run([sys.executable, "-c", _IMPORTS], capture_output=True, text=True, check=True)
    return float(done.stdout)


def dry_run(words: Sequence[str]) -> float:
    began = time.time()
    subprocess.run([sys.executable, "-P", "-m", "sdpo.cli", "train", "--dry-run", *words], capture_output=True, check=True)
    return time.time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    console = Console()
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        model = write_tiny_model(Path(folder) / "model")
        models = {"tiny": model, "default": None}
        runs = {title: Path(folder) / title for title in models}
        words = {title: words_of(of, runs[title]) for title, of in models.items()}
        for folder_of in runs.values():
            folder_of.mkdir()
        starts: dict[str, list[Start]] = {title: [] for title in models}
        imports = [importing()]
        for number in range(asked.rounds + 1):
            for title in models:
                seen = start(words[title], f"start-{number}", runs[title])
                if number > 0:
                    starts[title].append(seen)
                    imports.append(importing())
        dry = [dry_run(words["default"]) for _ in range(asked.rounds + 1)][1:]
    table = Table(title=f"Seconds from the command, median (least, most) of {asked.rounds} starts; {os.cpu_count()} cores")
    table.add_column("until")
    for title in models:
        table.add_column(title, justify="right")
    parts = sorted(starts["default"][0].parts, key=lambda part: starts["default"][0].parts[part])
    for part in parts:
        row = [[seen.parts[part] for seen in starts[title]] for title in models]
        table.add_row(part, *(f"{statistics.median(of):.1f} ({min(of):.1f}, {max(of):.1f})" for of in row))
    table.add_row("(import torch alone)", *2 * [f"{statistics.median(imports):.1f} ({min(imports):.1f}, {max(imports):.1f})"])
    table.add_row("dry run", "", f"{statistics.median(dry):.1f} ({min(dry):.1f}, {max(dry):.1f})")
    console.print(table)
    for title in models:
        for key, part in (("first_token_s", FIRST_TOKEN), ("first_step_s", FIRST_STEP)):
            found[f"{key}_{title}"] = round(statistics.median(seen.parts[part] for seen in starts[title]), 2)
    found["import_torch_s"] = round(statistics.median(imports), 2)
    found["dry_run_s_default"] = round(statistics.median(dry), 2)
    print(json.dumps(found))
    if asked.json is not None:
        asked.json.write_text(json.dumps({**found, "rounds": asked.rounds, "cores": os.cpu_count()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
