"""Six steps of the tiny model, digested: a refactor proves that it changed nothing.

SDPO, GRPO, the blend, and SDPO killed in its fourth step and resumed; each on two learner ranks, on the real Ray, vLLM and
DeepSpeed, through the command line. Writes every step's metrics, less clock and memory, and the SHA-256 of every
file of the last checkpoint.

    python -m tests.golden before.json          # on the old commit
    python -m tests.golden after.json --as before.json   # on the new one: exit code 1 and the differences, if there are any
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.tiny import write_tiny_model

NUM_STEPS = 6
LETTERS = f"{Path(__file__).parent / 'letters.py'}:Letters"
HINDSIGHT = ("algorithm.hindsight.max_prompt_tokens=300", "algorithm.support.num_ids=20")
RUNS: dict[str, tuple[str, ...]] = {
    "sdpo": HINDSIGHT,
    "grpo": ("algorithm=grpo",),
    "blend": (*HINDSIGHT, "algorithm.routing.policy_gradient_share=0.5"),
    "resumed": HINDSIGHT,
}
CLOCK = ("time/", "memory/", "tokens_per_s")


def words(model: Path, runs: Path, name: str) -> list[str]:
    return [
        f"model.path={model}", "model.name=tiny", "env=custom", f"env.name={LETTERS}", f"runs_dir={runs}", f"name={name}",
        f"num_steps={NUM_STEPS}", "batch.num_tasks=4", "batch.group_size=4", "batch.micro_batch_tokens=600",
        "sampling.max_prompt_tokens=100", "sampling.max_response_tokens=8", "evaluation.num_tasks=0", "learner.lr=1e-3",
        "learner.num_ranks=2", "learner.dtype=float32", "rollout.dtype=float32", "rollout.kv_cache_gib=1",
        "cluster.object_store_gib=0.5", *RUNS[name],
    ]  # fmt: skip


def train(model: Path, runs: Path, name: str, *, killed_in_step: int | None = None) -> None:
    """Raises RuntimeError with the end of the output if the command fails."""
    log = runs.parent / f"{name}.txt"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "sdpo.cli", "train", *words(model, runs, name)],
            stdout=output, stderr=subprocess.STDOUT, env={**os.environ, "COLUMNS": "200"},
        )  # fmt: skip
        if killed_in_step is not None:
            while process.poll() is None and not (runs / name / "rollouts" / f"step_{killed_in_step:06d}.jsonl").exists():
                time.sleep(0.02)
            process.kill()
            process.wait()
        elif process.wait() != 0:
            raise RuntimeError(f"{name} ended with exit code {process.returncode}:\n{log.read_text()[-3000:]}")


def digest(run: Path) -> dict[str, Any]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    checkpoint = run / "checkpoints" / f"step_{NUM_STEPS:06d}"
    return {
        "metrics": [{name: value for name, value in row.items() if not name.startswith(CLOCK)} for row in rows],
        "checkpoint": {
            str(file.relative_to(checkpoint)): hashlib.sha256(file.read_bytes()).hexdigest()
            for file in sorted(checkpoint.rglob("*"))
            if file.is_file()
        },
    }


def differences(ours: Any, theirs: Any, at: str) -> list[str]:
    """Paths at which two trees of dictionaries and lists differ, each with both values."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        keys = sorted({*ours, *theirs})
        return [line for key in keys for line in differences(ours.get(key), theirs.get(key), f"{at}.{key}")]
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        return [line for index, pair in enumerate(zip(ours, theirs, strict=True)) for line in differences(*pair, f"{at}.{index}")]
    return [] if ours == theirs else [f"{at}: {ours} instead of {theirs}"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="where the digests go")
    parser.add_argument("--as", dest="before", type=Path, default=None, help="digests that these have to equal")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="golden-"))
    model = write_tiny_model(folder / "model")
    found: dict[str, Any] = {}
    for name in RUNS:
        if name == "resumed":
            train(model, folder / "runs", name, killed_in_step=4)
        train(model, folder / "runs", name)
        found[name] = digest(folder / "runs" / name)
    shutil.rmtree(folder)
    arguments.file.write_text(json.dumps(found, indent=1) + "\n")
    lines = differences(found["resumed"], found["sdpo"], "resumed")
    if arguments.before is not None:
        lines += differences(found, json.loads(arguments.before.read_text()), "golden")
    print("\n".join(lines) if lines else f"the same: {', '.join(found)}")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
