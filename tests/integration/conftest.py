"""A tiny model on disk, and the command line run as a user runs it: in a process of its own, on the real Ray, vLLM, DeepSpeed."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sdpo.cluster.connection import connected
from sdpo.config import ClusterConfig
from sdpo.envs.children import Lifeline, own_module
from sdpo.forkserver.owner import FOLDER
from tests.forked import Forked
from tests.session import RAY
from tests.tiny import write_tiny_model

LETTERS = f"{Path(__file__).parent.parent / 'letters.py'}:Letters"


@dataclass(frozen=True)
class Trainer:
    """Runs ``sdpo`` on the tiny model in a folder of its own."""

    model: Path
    runs: Path

    def words(self, *overrides: str, env: str = LETTERS) -> list[str]:
        return [
            f"model.path={self.model}", "model.name=tiny", "env=custom", f"env.name={env}", f"runs_dir={self.runs}", "name=run",
            "num_steps=3", "batch.num_tasks=4", "batch.group_size=4", "batch.micro_batch_tokens=600",
            "sampling.max_prompt_tokens=100", "sampling.max_response_tokens=8", "algorithm.hindsight.max_prompt_tokens=300",
            "algorithm.support.num_ids=20", "evaluation.num_tasks=4", "evaluation.num_attempts=2", "learner.lr=1e-3",
            "rollout.dtype=float32", "learner.dtype=float32", "rollout.kv_cache_gib=1", f"cluster.address={os.environ[RAY]}",
            *overrides,
        ]  # fmt: skip

    def grpo(self, *overrides: str) -> list[str]:
        return [
            "algorithm=grpo",
            *(word for word in self.words(*overrides) if not word.startswith(("algorithm.h", "algorithm.s"))),
        ]

    def start(self, words: Sequence[str], command: str = "train") -> Forked:
        return Forked([command, *words], {**os.environ, "COLUMNS": "200"})

    def start_from_nothing(
        self, words: Sequence[str], command: str = "train", *, before: Sequence[str] = (), **variables: str
    ) -> subprocess.Popen[str]:
        """As a user starts it: a process that imports everything itself and brings up its own Ray. ``before`` are words of a
        command that becomes it."""
        environment = {key: value for key, value in os.environ.items() if key != FOLDER}
        line = Lifeline()  # open as long as the tests run
        process = subprocess.Popen(
            [
                *before,
                *own_module("sdpo.cli", command),
                *(word for word in words if not word.startswith("cluster.address=")),
                "cluster.object_store_gib=0.5",
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**environment, "COLUMNS": "200", **variables},
            start_new_session=True,
            pass_fds=line.pass_fds,
        )
        line.tie(process)
        return process

    def run(self, words: Sequence[str], command: str = "train", expected: int = 0) -> str:
        process = self.start(words, command)
        output, _ = process.communicate(timeout=400)
        assert process.returncode == expected, output + self.logs()
        return output

    def rows(self, name: str = "run") -> list[dict[str, float]]:
        return [json.loads(line) for line in (self.runs / name / "metrics.jsonl").read_text().splitlines()]

    def evaluations(self, name: str = "run") -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.runs / name / "evaluations.jsonl").read_text().splitlines()]

    def rollouts(self, step: int, name: str = "run") -> list[dict[str, Any]]:
        file = self.runs / name / "rollouts" / f"step_{step:06d}.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()]

    def credit(self, step: int, name: str = "run") -> list[dict[str, Any]]:
        file = self.runs / name / "credit" / f"step_{step:06d}.jsonl.gz"
        return [json.loads(line) for line in gzip.decompress(file.read_bytes()).splitlines()]

    def logs(self) -> str:
        return "".join(f"\n== {log}\n{log.read_text(errors='replace')[-2000:]}" for log in self.runs.glob("*/logs/*.log"))


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def trainer(tiny_model: Path, tmp_path: Path) -> Trainer:
    return Trainer(model=tiny_model, runs=tmp_path / "runs")


def comparable(row: dict[str, float]) -> dict[str, float]:
    """A step's metrics without what the clock and the machine say."""
    return {name: value for name, value in row.items() if not name.startswith(("time/", "memory/")) and name != "tokens_per_s"}


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[None]:
    with connected(ClusterConfig(address=os.environ[RAY])):
        yield
