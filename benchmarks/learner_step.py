"""What does an update cost: SDPO's beside GRPO's, and rows packed with shared prefixes beside padded rows?

One rank of the real learner (DeepSpeed, bf16, ZeRO 1, an EMA teacher) takes the same update again and again. Its rows are of the
shape that the default run makes (8 tasks x 6 attempts; prompt, hindsight prompt and response lengths as measured there), all of
them with a hint and with an advantage, so that SDPO and GRPO learn from the same tokens. Token ids are random: an update's cost
does not depend on what they say. Three forms of the batch are compared:

- packed: as the trainer does it, end to end, what siblings share computed once;
- rows: end to end, every row whole;
- padded: every row lengthened to the longest of its micro-batch, as most trainers do. Its attention is still a call a row, which
  on a CPU is no slower than one batched call (``--attention`` measures both alone).

The forms take turns, so that a drift of the machine hits all alike; figures are medians with the range. ``sdpo_over_grpo_step``
adds the same time of generation to both: what the real engine takes to sample the batch (measured in the same run unless
``--generation-s`` gives it), the teacher's update and, for both alike, the optimizer's step being part of the learner's time.

    python benchmarks/learner_step.py [--model PATH] [--repeats 5] [--tasks 8] [--attempts 6] [--response 48] ...
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch.nn import functional

from sdpo.batches.updates import micro_batch
from sdpo.batches.updates import pack as packed_updates
from sdpo.config import (
    AlgorithmConfig,
    BatchConfig,
    Dtype,
    EmaTeacher,
    GRPOConfig,
    LearnerConfig,
    SDPOConfig,
)
from sdpo.learner.engine import DeepSpeedLearner
from sdpo.learner.orders import Place, Scale
from sdpo.preflight.models import resolve
from sdpo.types import MicroBatch, Pack, Packing, Ranks, Sample, Segment, Update

FORMS = ("packed", "rows", "padded")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Lengths of a batch, in tokens."""

    num_tasks: int
    group_size: int
    prompt: int
    hindsight: int
    response: int
    """Longest; lengths are spread evenly from a third of it."""
    shared_hindsight: bool
    """Siblings are shown the same demonstration, else each its own feedback after the shared question."""


def samples(shape: Shape, vocabulary: int, seed: int) -> list[Sample]:
    """Rows of that shape: siblings share their prompt, and their hindsight prompt up to what is their own."""
    draw = random.Random(seed)

    def tokens(num: int) -> tuple[int, ...]:
        return tuple(draw.randrange(vocabulary) for _ in range(num))

    rows = []
    for task in range(shape.num_tasks):
        prompt, shown = tokens(shape.prompt), tokens(shape.hindsight - shape.prompt)
        for attempt in range(shape.group_size):
            length = shape.response // 3 + (shape.response - shape.response // 3) * attempt // max(shape.group_size - 1, 1)
            own = shown if shape.shared_hindsight else tokens(len(shown))
            rows.append(
                Sample(
                    prompt_ids=prompt,
                    teacher_prompt_ids=prompt + own,
                    response_ids=tokens(length),
                    loss_mask=(True,) * length,
                    sampled_logprobs=(-2.0,) * length,
                    advantage=1.0 if attempt % 2 else -1.0,
                    distillation_weight=1.0,
                    policy_gradient_weight=1.0,
                    task_index=task,
                )
            )
    return rows


def update_of(form: str, rows: Sequence[Sample], shape: Shape, algorithm: AlgorithmConfig, token_budget: int) -> Update:
    """One update from all rows."""
    is_sdpo = isinstance(algorithm, SDPOConfig)
    weighted = [replace(row, distillation_weight=float(is_sdpo), policy_gradient_weight=float(not is_sdpo)) for row in rows]
    batch = BatchConfig(num_tasks=shape.num_tasks, group_size=shape.group_size, micro_batch_tokens=token_budget)
    (update,) = packed_updates(weighted, batch, Ranks(num=1, pairs_per_token=3456.0), algorithm)
    if form == "packed":
        return update
    longest_first = sorted(weighted, key=lambda row: -len(row.response_ids))
    packs: list[list[Sample]] = []
    size = 0
    for row in longest_first:
        longest = row if not packs else packs[-1][0]
        width = len(longest.prompt_ids) + len(longest.response_ids)
        width += len(longest.teacher_prompt_ids or ()) + len(longest.response_ids) if is_sdpo else 0
        if packs and (size + 1) * width <= token_budget:
            packs[-1].append(row)
            size += 1
        else:
            packs.append([row])
            size = 1
    batches = [micro_batch(pack, packing=Packing.joined) for pack in packs]
    if form == "padded":
        batches = [padded(batch) for batch in batches]
    return replace(update, micro_batches=(tuple(batches),))


def padded(batch: MicroBatch) -> MicroBatch:
    """Every row as long as the longest."""
    return replace(batch, student=_padded(batch.student), teacher=_padded(batch.teacher))


def _padded(pack: Pack) -> Pack:
    if not pack.segments:
        return pack
    lengths = [segment.last - segment.first for segment in pack.segments]
    width = max(lengths)
    ids = torch.cat([functional.pad(part, (0, width - len(part))) for part in pack.ids_T.split(lengths)])
    moved = torch.cat([torch.arange(n) + row * width for row, n in enumerate(lengths)])
    return Pack(
        ids_T=ids,
        positions_T=torch.arange(width).repeat(len(lengths)),
        segments=tuple(Segment(first=row * width, last=(row + 1) * width, before=()) for row in range(len(lengths))),
        predicts_N=moved[pack.predicts_N],
    )


def timed(run: Callable[[], object]) -> float:
    """Seconds."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def learner_for(model: str, algorithm: AlgorithmConfig, shape: Shape, meeting: Path, checkpointing: bool) -> DeepSpeedLearner:
    """One rank, as the trainer makes it."""
    return DeepSpeedLearner(
        model,
        None,
        LearnerConfig(dtype=Dtype.bfloat16, gradient_checkpointing=checkpointing),
        algorithm,
        Scale(temperature=1.0, max_response_tokens=shape.response),
        Place(rank=0, num_ranks=1, rendezvous=f"file://{meeting}/meeting"),
    )


def generation_s(model: str, rows: Sequence[Sample], shape: Shape) -> float:
    """What the engine takes to sample the batch's responses, after a first batch that warms it up."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
    os.environ["VLLM_CPU_KVCACHE_SPACE"] = "2"
    from vllm import LLM, SamplingParams

    engine = LLM(model, dtype="bfloat16", enforce_eager=True, max_model_len=shape.prompt + shape.response, disable_log_stats=True)
    prompts = [{"prompt_token_ids": list(row.prompt_ids)} for row in rows]
    settings = [
        SamplingParams(temperature=1.0, max_tokens=len(row.response_ids), ignore_eos=True, logprobs=0, detokenize=False)
        for row in rows
    ]
    engine.generate(prompts, settings, use_tqdm=False)
    return timed(lambda: engine.generate(prompts, settings, use_tqdm=False))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="package:smollm2_135m")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tasks", type=int, default=8)
    parser.add_argument("--attempts", type=int, default=6)
    parser.add_argument("--prompt", type=int, default=114)
    parser.add_argument("--hindsight", type=int, default=224)
    parser.add_argument("--response", type=int, default=64)
    parser.add_argument(
        "--own-hindsight", action="store_true", help="each sibling its own feedback, nothing shared but the question"
    )
    parser.add_argument("--token-budget", type=int, default=4096)
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--generation-s", type=float, help="seconds of generation a step; measured with the engine if not given")
    parser.add_argument("--json", type=Path, help="also write everything here")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(os.cpu_count() or 1)
    screen = Console(width=110)
    shape = Shape(
        num_tasks=options.tasks,
        group_size=options.attempts,
        prompt=options.prompt,
        hindsight=options.hindsight,
        response=options.response,
        shared_hindsight=not options.own_hindsight,
    )
    model = resolve(options.model, lambda sentence: screen.print(sentence, highlight=False))
    rows = samples(shape, 40_000, seed=0)
    generation = options.generation_s if options.generation_s is not None else generation_s(model, rows, shape)
    algorithms: dict[str, AlgorithmConfig] = {
        "sdpo": SDPOConfig(teacher=EmaTeacher()),
        "grpo": GRPOConfig(),
    }
    seconds: dict[tuple[str, str], list[float]] = {(name, form): [] for name in algorithms for form in FORMS}
    updates = {
        (name, form): update_of(form, rows, shape, algorithm, options.token_budget)
        for name, algorithm in algorithms.items()
        for form in FORMS
    }
    with tempfile.TemporaryDirectory() as meeting:
        learners = {
            name: learner_for(model, algorithm, shape, Path(meeting), options.gradient_checkpointing)
            for name, algorithm in algorithms.items()
        }

        def step(name: str, form: str) -> None:
            learners[name].update(updates[name, form], algorithms[name])
            learners[name].finish_step()

        for name in algorithms:
            step(name, "packed")  # warm-up
        for _ in range(options.repeats):
            for key in seconds:
                seconds[key].append(timed(lambda key=key: step(*key)))  # type: ignore[misc]
    medians = {key: statistics.median(values) for key, values in seconds.items()}
    # Tokens that a row holds, student and teacher: the same for every form, so that tokens/s compare.
    held = {
        name: sum(
            len(r.prompt_ids) + len(r.response_ids) + (len(r.teacher_prompt_ids or ()) + len(r.response_ids)) * (name == "sdpo")
            for r in rows
        )
        for name in algorithms
    }
    table = Table(title=f"one update and the teacher's, {len(rows)} rows; generation {generation:.1f} s")
    for column in ("algorithm", "form", "tokens computed", "s (median)", "range", "rows' tokens/s"):
        table.add_column(column, justify="right")
    for (name, form), values in seconds.items():
        computed = sum(batch.num_tokens for batch in updates[name, form].micro_batches[0])
        spread = f"{min(values):.2f}-{max(values):.2f}"
        table.add_row(name, form, str(computed), f"{medians[name, form]:.2f}", spread, f"{held[name] / medians[name, form]:.0f}")
    screen.print(table)
    sdpo, grpo = medians["sdpo", "packed"], medians["grpo", "packed"]
    figures = {
        "packed_over_padded": round(sdpo / medians["sdpo", "padded"], 3),
        "packed_over_padded_grpo": round(grpo / medians["grpo", "padded"], 3),
        "sdpo_over_grpo_learner": round(sdpo / grpo, 3),
        "sdpo_over_grpo_step": round((generation + sdpo) / (generation + grpo), 3),
    }
    if options.json is not None:
        machine = {"processor": _processor(), "cores": os.cpu_count(), "torch": torch.__version__}
        everything = {
            "machine": machine,
            "model": options.model,
            "shape": {name: getattr(shape, name) for name in Shape.__slots__},
            "generation_s": generation,
            "seconds": {f"{name}/{form}": values for (name, form), values in seconds.items()},
            **figures,
        }
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(everything, indent=1) + "\n")
    print(json.dumps(figures))


def _processor() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    described = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in described.read_text().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    main()
