"""What do other runtime libraries win on a CPU: OpenMP's, the allocator's?

vLLM's log advises to preload tcmalloc and Intel's OpenMP. Each variant is a process with ``LD_PRELOAD``, which makes the real
engine and learner of the default model, one after the other, and measures either: tokens/s of a second batch, seconds of the
quicker of two updates. They take turns, so that a drift of the machine hits all alike.

    python benchmarks/preloads.py iomp=DIR/libiomp5.so tcmalloc=DIR/libtcmalloc_minimal.so.4 [--rounds 3] [--json results.json]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

MODEL = "package:smollm2_135m"
NUM_PROMPTS, PROMPT_TOKENS, NEW_TOKENS, NUM_ROWS = 32, 100, 32, 8


def tokens_per_s(model: str) -> float:
    """Of the second of two batches on one engine."""
    from sdpo.config import Dtype, RolloutConfig
    from sdpo.config.native import native_dtype
    from sdpo.rollout.engine import VllmEngine
    from sdpo.types import Prompt, Sampling

    config = RolloutConfig(kv_cache_gib=1, dtype=Dtype(native_dtype(None)))
    engine = VllmEngine(model, max_model_tokens=256, config=config, seed=0)
    draw = random.Random(0)
    rates = []
    for batch in range(2):
        prompts = [
            Prompt(
                token_ids=tuple(draw.randrange(5, 40_000) for _ in range(PROMPT_TOKENS)),
                seed=index,
                task_index=index,
                attempt_index=batch,
            )
            for index in range(NUM_PROMPTS)
        ]
        began, num = time.monotonic(), 0
        for ended in engine.sample(prompts, Sampling(temperature=1.0, top_p=1.0, max_response_tokens=NEW_TOKENS)):
            num += sum(len(completion.token_ids) for _, completion in ended)
        rates.append(num / (time.monotonic() - began))
    return rates[-1]


def update_s(model: str) -> float:
    """The quicker of two updates with the default algorithm."""
    from sdpo.batches.updates import pack
    from sdpo.config import BatchConfig, Dtype, LearnerConfig, SDPOConfig
    from sdpo.config.native import native_dtype
    from sdpo.learner.engine import DeepSpeedLearner
    from sdpo.learner.group import pairs_per_token
    from sdpo.learner.orders import Place, Scale
    from sdpo.types import Ranks, Sample

    draw = random.Random(0)

    def tokens(num: int) -> tuple[int, ...]:
        return tuple(draw.randrange(5, 40_000) for _ in range(num))

    samples = [
        Sample(
            prompt_ids=tokens(PROMPT_TOKENS),
            teacher_prompt_ids=tokens(2 * PROMPT_TOKENS),
            response_ids=tokens(NEW_TOKENS),
            loss_mask=(True,) * NEW_TOKENS,
            sampled_logprobs=(-5.0,) * NEW_TOKENS,
            advantage=0.0,
            task_index=index,
        )
        for index in range(NUM_ROWS)
    ]
    algorithm, batch = SDPOConfig(), BatchConfig(num_tasks=NUM_ROWS)
    with tempfile.TemporaryDirectory() as folder:
        learner = DeepSpeedLearner(
            model,
            None,
            LearnerConfig(dtype=Dtype(native_dtype(None))),
            algorithm,
            Scale(temperature=1.0, max_response_tokens=NEW_TOKENS),
            Place(rank=0, num_ranks=1, rendezvous=f"file://{folder}/meeting"),
        )
        (update,) = pack(samples, batch, Ranks(num=1, pairs_per_token=pairs_per_token(model)), algorithm)
        times = []
        for _ in range(2):
            began = time.monotonic()
            learner.keep_old_logprobs((update,))
            learner.update(update, algorithm)
            times.append(time.monotonic() - began)
    return min(times)


def measured() -> None:
    """In the process of a variant: a line of JSON, the last one."""
    from sdpo.preflight.models import resolve

    model = resolve(MODEL, lambda sentence: None)
    print(json.dumps({"tokens_per_s": tokens_per_s(model), "update_s": update_s(model)}))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("libraries", nargs="*", metavar="NAME=PATH")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.measure:
        measured()
        return
    libraries = dict(word.split("=", 1) for word in asked.libraries)
    variants = {"none": "", **libraries}
    if len(libraries) > 1:
        variants["all"] = ":".join(libraries.values())
    found: dict[str, list[dict[str, float]]] = {name: [] for name in variants}
    for _ in range(asked.rounds):
        for name in list(found):
            preload = variants[name]
            done = subprocess.run(
                [sys.executable, __file__, "--measure"],
                env={**os.environ, "LD_PRELOAD": preload},
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode != 0:
                print(f"{name}: the process ended with {done.returncode}: {done.stderr.strip().rpartition(chr(10))[2]}")
                found.pop(name, None)
            elif name in found:
                found[name].append(json.loads(done.stdout.splitlines()[-1]))
    table = Table(title=f"Median (least, most) of {asked.rounds} rounds; {os.cpu_count()} cores")
    for column in ("preloaded", "tokens/s", "over none", "update s", "over none"):
        table.add_column(column)
    result: dict[str, float] = {}
    for name, rounds in found.items():
        row = [name]
        for key in ("tokens_per_s", "update_s"):
            values = [seen[key] for seen in rounds]
            ratio = statistics.median(seen[key] / plain[key] for seen, plain in zip(rounds, found["none"], strict=True))
            row += [f"{statistics.median(values):.2f} ({min(values):.2f}, {max(values):.2f})", f"{ratio:.3f}"]
            result[f"{key}_{name}_over_none"] = round(ratio, 3)
        table.add_row(*row)
    Console().print(table)
    print(json.dumps(result))
    if asked.json is not None:
        asked.json.write_text(json.dumps({"rounds": found, **result}, indent=1) + "\n")


if __name__ == "__main__":
    main()
