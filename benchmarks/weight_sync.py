"""What does it cost to bring the learner's weights to an engine, in time and as a share of a step?

From parameters in one process, through Ray's object store, into a vLLM engine in another, until it serves them: in buckets with a
checksum, as the trainer does (``sdpo.weights.shipped``, ``EngineActor``), against one call of the engine for each tensor, as one
writes it first. Both through vLLM's own protocol (start, update, finish), both ending with the engine's prefix cache reset; they
take turns, so that a machine that slows down does so for both. The engine's logprobs after either are compared with those after
the other: both must have brought the same weights.

Then a few steps of ``sdpo train`` with its defaults: how much of a step is ``time/sync_s``, which besides the above holds the
teacher's following.

    python benchmarks/weight_sync.py [--model package:smollm2_135m] [--rounds 5] [--steps 3] [--json results.json]
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
from pathlib import Path

import ray
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from transformers import AutoModelForCausalLM

from sdpo.cluster.actors import machine_cores, start
from sdpo.cluster.connection import connected
from sdpo.config import ClusterConfig, Dtype, RolloutConfig
from sdpo.config.native import native_dtype
from sdpo.preflight.models import resolve
from sdpo.rollout.engine import VllmEngine
from sdpo.types import Prompt, Sampling
from sdpo.weights import PackedWeights, WeightPayload, packed, weight_payload

BUCKET_BYTES = RolloutConfig().bucket_mib * 2**20
DTYPE = Dtype(native_dtype(None))
"""Of the weights on their way, as in a run with the defaults on this machine."""


class Host:
    """An engine in a process of its own."""

    def __init__(self, model: str) -> None:
        self._engine = VllmEngine(model, max_model_tokens=256, config=RolloutConfig(kv_cache_gib=1, dtype=DTYPE), seed=0)

    def ready(self) -> bool:
        return True

    def load(self, payload: WeightPayload) -> str:
        self._engine.load([ray.get(bucket) for bucket in payload.buckets], version=0)
        return self._engine.checksum

    def begin(self) -> None:
        self._engine._engine.collective_rpc("start_weight_update")

    def tensor(self, weights: PackedWeights) -> None:
        self._engine._engine.collective_rpc("update_weights", kwargs={"update_info": {"weights": weights}})

    def end(self) -> None:
        self._engine._engine.collective_rpc("finish_weight_update")
        self._engine._engine.reset_prefix_cache()

    def logprobs(self) -> list[tuple[float, ...]]:
        prompts = [Prompt(token_ids=tuple(range(10, 30 + n)), seed=n, task_index=n, attempt_index=0) for n in range(4)]
        sampling = Sampling(temperature=1.0, top_p=1.0, max_response_tokens=16)
        pairs = sorted(
            (pair for ended in self._engine.sample(prompts, sampling) for pair in ended), key=lambda pair: pair[0].task_index
        )
        return [completion.logprobs for _, completion in pairs]


class Learner:
    """Parameters in a process of its own."""

    def __init__(self, model: str) -> None:
        self._model = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, DTYPE.value))

    def num_bytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in self._model.parameters())

    def change(self) -> None:
        """So that no round brings what is there already."""
        with torch.no_grad():
            for tensor in self._model.parameters():
                tensor.mul_(1.0 + torch.rand((), dtype=torch.float32).item() * 0.02)

    def ship(self) -> WeightPayload:
        return weight_payload(self._model.named_parameters(), bucket_bytes=BUCKET_BYTES, put=ray.put)

    def names(self) -> list[str]:
        return [name for name, _ in self._model.named_parameters()]

    def one(self, name: str) -> PackedWeights:
        tensors: dict[str, Tensor] = dict(self._model.named_parameters())
        return packed({name: tensors[name]})


def in_buckets(learner: object, host: object) -> float:
    began = time.perf_counter()
    payload = ray.get(learner.ship.remote())  # type: ignore[attr-defined]
    checksum = ray.get(host.load.remote(payload))  # type: ignore[attr-defined]
    seconds = time.perf_counter() - began
    assert checksum == payload.checksum
    return seconds


def per_tensor(learner: object, host: object, names: Sequence[str]) -> float:
    began = time.perf_counter()
    ray.get(host.begin.remote())  # type: ignore[attr-defined]
    for name in names:
        ray.get(host.tensor.remote(learner.one.remote(name)))  # type: ignore[attr-defined]
    ray.get(host.end.remote())  # type: ignore[attr-defined]
    return time.perf_counter() - began


def share_of_step(model: str, num_steps: int) -> dict[str, float]:
    """Medians of a run's steps after the first, which is slower."""
    with tempfile.TemporaryDirectory() as folder:
        words = [
            "train", f"model.path={model}", f"runs_dir={folder}", "name=sync", f"num_steps={num_steps + 1}",
            "checkpoint.every=1000", "evaluation.num_tasks=0", "tracking.tensorboard=false", "tracking.quiet=true",
        ]  # fmt: skip
        subprocess.run([sys.executable, "-P", "-m", "sdpo.cli", *words], check=True, stdout=subprocess.DEVNULL)
        rows = [json.loads(line) for line in (Path(folder) / "sync" / "metrics.jsonl").read_text().splitlines()][1:]
    return {key: statistics.median(row[f"time/{key}"] for row in rows) for key in ("sync_s", "step_s")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="package:smollm2_135m")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3, help="of sdpo train; 0: none")
    parser.add_argument("--json", type=Path, help="also write everything here")
    options = parser.parse_args()
    screen = Console(width=110)
    model = resolve(options.model, screen.print)
    buckets: list[float] = []
    singles: list[float] = []
    with connected(ClusterConfig()):
        learner, host = start(Learner, model), start(Host, model, num_threads=machine_cores())
        ray.get(host.ready.remote())
        num_bytes, names = ray.get(learner.num_bytes.remote()), ray.get(learner.names.remote())
        for number in range(options.rounds + 1):
            ray.get(learner.change.remote())
            first = in_buckets(learner, host)
            after_buckets = ray.get(host.logprobs.remote())
            second = per_tensor(learner, host, names)
            assert ray.get(host.logprobs.remote()) == after_buckets, "the two ways brought different weights"
            if number:  # the first round warms up
                buckets.append(first)
                singles.append(second)
    seconds, single_s = statistics.median(buckets), statistics.median(singles)
    found: dict[str, object] = {
        "seconds": round(seconds, 4), "bytes_per_s": round(num_bytes / seconds), "num_bytes": num_bytes,
        "per_tensor_seconds": round(single_s, 4), "num_tensors": len(names),
        "speedup_vs_per_tensor": round(single_s / seconds, 2),
        "rounds": [[round(one, 4) for one in pair] for pair in zip(buckets, singles, strict=True)],
        "dtype": DTYPE.value, "cores": os.cpu_count(),
    }  # fmt: skip
    brought = f"{num_bytes / 2**20:.0f} MiB of {DTYPE.value} in {len(names)} tensors"
    table = Table(title=f"Weights to an engine: {brought}, medians of {options.rounds}")
    for head in ("", "seconds", "GB/s"):
        table.add_column(head, justify="left" if not head else "right")
    table.add_row("in buckets, with a checksum", f"{seconds:.3f}", f"{num_bytes / seconds / 1e9:.2f}")
    table.add_row("a call for each tensor", f"{single_s:.3f}", f"{num_bytes / single_s / 1e9:.2f}")
    screen.print(table)
    if options.steps:
        step = share_of_step(model, options.steps)
        found |= {"share_of_step": round(step["sync_s"] / step["step_s"], 4), **{k: round(v, 3) for k, v in step.items()}}
        screen.print(f"of a default step of {step['step_s']:.1f} s, the sync takes {step['sync_s']:.2f} s")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
