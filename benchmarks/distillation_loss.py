"""What do the distillation loss and its gradients cost, in memory and in time, against the ways others compute them?

From hidden states and the output embedding, in bf16, to the mean over the response tokens of KL(student‖teacher) over the
student's top K ids and a tail bucket, and back to the gradients of both: forward and backward of

- ours: ``sdpo.objectives.fused.fused_loss`` with the budget that the trainer has by default;
- materialised: what one writes first, logits and log-softmax of all tokens in one piece, autograd;
- trl: ``SDPOTrainer.compute_loss`` (trl.experimental.sdpo) itself, on a model that is nothing but an output embedding and is
  prepared by accelerate under TRL's default precision, as its trainer has it done. One row of tokens and no old
  log-probabilities: the least it can be asked for.

liger knows no top K: in rows of their own it and ours compute the Jensen-Shannon divergence over the whole vocabulary. What it
has for any device is ``LigerFusedLinearJSDLoss``: chunked, and compiled, as it is by default.

Each measurement is a process of its own: a warm-up on tiny inputs, then one timed forward and backward. The implementations take
turns, so that a machine that slows down does so for all. Peak memory is the largest resident set (on CUDA: allocated memory)
above what was there before the forward; the gradients count, the inputs do not. ``error`` is the relative distance of the hidden
states' gradient from an fp64 one, on the first tokens; that and the norm of the embedding's gradient show that all compute the
same, and how well: logits rounded to bf16 are off by more than student and teacher may differ.

Left out: the transformer below the hidden states, which is the same for all; several devices, since each rank does this alone;
and the sampled token's log-probability and the entropy, which ours has computed along the way and the others would have to.

    python benchmarks/distillation_loss.py [--device cuda] [--json results.json]
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import importlib.metadata
import json
import os
import platform
import re
import resource
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import psutil
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from sdpo.config import FullSupport, TopSupport
from sdpo.objectives.comparison import Comparison
from sdpo.objectives.divergence import JensenShannon, ReverseKL, divergence
from sdpo.objectives.fused import fused_loss
from sdpo.objectives.logits import HEAD_ROWS, Budget, Logits
from sdpo.objectives.scores import TokenScores

HIDDEN = {49_152: 576, 151_936: 1_024}
"""Hidden sizes that go with a vocabulary: SmolLM2-135M and Qwen3-0.6B."""
OTHER_HIDDEN = 1_024
PEERS = {"trl": "trl", "liger": "liger-kernel"}
LOGIT_STD, TEACHER_NOISE = 4.0, 0.25
"""Make a student of some 4 nats of entropy and a teacher a few tenths of a nat away."""
CHECKED_TOKENS = 32
TEMPERATURE = 1.0
JSD_BETA = 0.5
TIMEOUT_S = 3600
MIB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What one measurement is of."""

    implementation: str
    vocabulary: int
    hidden: int
    tokens: int
    num_ids: int | None
    """K; None: the whole vocabulary and the Jensen-Shannon divergence."""
    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What one measurement says."""

    seconds: float
    peak_bytes: int
    loss: float
    head_norm: float
    """Of the gradient by the output embedding."""
    error: float
    """Of the gradient by the hidden states, relative, against fp64."""


@dataclass(slots=True, kw_only=True)
class Row:
    """One setting's readings, or why there are none."""

    setting: Setting
    readings: list[Reading] = field(default_factory=list)
    missing: str = ""

    @property
    def seconds(self) -> float:
        return statistics.median(reading.seconds for reading in self.readings)

    @property
    def peak_bytes(self) -> int:
        return max(reading.peak_bytes for reading in self.readings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """N tokens, H hidden, V vocabulary; student and teacher share the embedding, as a self-teacher does."""

    hidden_NH: Tensor
    teacher_NH: Tensor
    head_VH: Tensor
    ids_N: Tensor
    num_ids: int | None


Step = Callable[[], Tensor]
"""Computes the loss."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tokens", type=int, default=4_096, help="response tokens")
    parser.add_argument("--vocabularies", type=int, nargs="+", default=list(HIDDEN))
    parser.add_argument("--ks", type=int, nargs="+", default=[20, 100], help="sizes of the support")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--json", type=Path, help="also write everything there")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(asdict(measured(Setting(**json.loads(args.measure))))))
        return
    machine, rows = described_machine(args.device), []
    console = Console(width=max(Console().width, 150))
    console.print(" · ".join(f"{what} {value}" for what, value in machine.items()), highlight=False, soft_wrap=True)
    for vocabulary in args.vocabularies:
        for num_ids in (*args.ks, None):
            rows += compared(vocabulary, num_ids, args.tokens, args.repeats, args.device)
    console.print(as_table(rows))
    for row in rows:
        if row.missing:
            console.print(f"{in_words(row.setting)}: {row.missing}", highlight=False, soft_wrap=True)
    ratios = compared_with_peers(rows, max(args.vocabularies), max(args.ks))
    if args.json:
        results = [asdict(row) for row in rows]
        args.json.write_text(json.dumps({"machine": machine, "rows": results, "ratios": ratios}, indent=2) + "\n")
    print(json.dumps(ratios))


def compared(vocabulary: int, num_ids: int | None, tokens: int, repeats: int, device: str) -> list[Row]:
    """Rows of all implementations, which take turns."""
    names = ("ours", "materialised", "trl") if num_ids is not None else ("ours", "liger")
    rows = [
        Row(
            setting=Setting(
                implementation=name,
                vocabulary=vocabulary,
                hidden=HIDDEN.get(vocabulary, OTHER_HIDDEN),
                tokens=tokens,
                num_ids=num_ids,
                device=device,
            )
        )
        for name in names
    ]
    for _ in range(repeats):
        for row in rows:
            if not row.missing:
                measure_apart(row)
    return rows


def measure_apart(row: Row) -> None:
    """One reading in a process of its own, or the reason why there is none."""
    implementation = row.setting.implementation
    if implementation in PEERS and installed_version(PEERS[implementation]) is None:
        row.missing = f"{PEERS[implementation]} is not installed"
        return
    command = [sys.executable, __file__, "--measure", json.dumps(asdict(row.setting))]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        row.missing = f"took more than {TIMEOUT_S} s"
        return
    if done.returncode == 0:
        reading = Reading(**json.loads(done.stdout.splitlines()[-1]))
        row.readings.append(reading)
        said = f"{reading.seconds:.2f} s, {reading.peak_bytes / MIB:,.0f} MiB"
    else:
        row.missing = why_it_failed(done.returncode, done.stderr)
        said = row.missing
    print(f"{in_words(row.setting)}: {said}", file=sys.stderr, flush=True)


def why_it_failed(code: int, stderr: str) -> str:
    if code < 0:
        return "killed, most likely for want of memory" if -code == signal.SIGKILL else f"stopped by signal {-code}"
    lines = [line for line in stderr.splitlines() if line.strip()] or [f"ended with exit code {code}"]
    said = next((line for line in reversed(lines) if re.match(r"[\w.]+(Error|Exception)\b", line)), lines[-1])
    said = re.sub(r"(/[\w.+-]+)+/", "", said).strip()[:200]
    is_memory = "can't allocate memory" in said or "OutOfMemory" in said or said.startswith("MemoryError")
    return f"out of memory ({said})" if is_memory else said


def measured(setting: Setting) -> Reading:
    """Runs in the process of the measurement."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    on_cuda = setting.device == "cuda"
    if not on_cuda:
        limit_memory()
    prepare = PREPARED[setting.implementation]
    tiny = replace(setting, vocabulary=512, hidden=64, tokens=8, num_ids=setting.num_ids and min(setting.num_ids, 20))
    prepare(make_inputs(tiny))[0]().backward()
    if on_cuda or setting.implementation == "liger":  # what is compiled, or chosen by shape, is so for the shapes to be timed
        prepare(make_inputs(setting))[0]().backward()
    inputs = make_inputs(setting)
    step, hidden = prepare(inputs)
    gc.collect()
    watch = CudaPeak() if on_cuda else ResidentPeak()
    begin = time.perf_counter()
    loss = step()
    loss.backward()
    if on_cuda:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - begin
    peak_bytes = watch.above()
    assert hidden.grad is not None
    assert inputs.head_VH.grad is not None
    exact = exact_gradient(inputs, CHECKED_TOKENS, setting.tokens)
    found = hidden.grad.reshape(-1, setting.hidden)[: len(exact)].double()
    return Reading(
        seconds=seconds,
        peak_bytes=peak_bytes,
        loss=loss.item(),
        head_norm=sum(block.double().square().sum().item() for block in inputs.head_VH.grad.split(HEAD_ROWS)) ** 0.5,
        error=((found - exact).norm() / exact.norm()).item(),
    )


def make_inputs(setting: Setting) -> Inputs:
    """Random and the same for all; bf16 from the beginning, in blocks."""
    draw = torch.Generator(setting.device).manual_seed(0)
    head_VH = torch.empty(setting.vocabulary, setting.hidden, dtype=torch.bfloat16, device=setting.device)
    for block in head_VH.split(HEAD_ROWS):
        block.normal_(std=LOGIT_STD / setting.hidden**0.5, generator=draw)
    hidden_NH = torch.empty(setting.tokens, setting.hidden, dtype=torch.bfloat16, device=setting.device).normal_(generator=draw)
    noise_NH = torch.empty_like(hidden_NH).normal_(std=TEACHER_NOISE, generator=draw)
    return Inputs(
        hidden_NH=hidden_NH.requires_grad_(),
        teacher_NH=hidden_NH.detach() + noise_NH,
        head_VH=head_VH.requires_grad_(),
        ids_N=torch.randint(setting.vocabulary, (setting.tokens,), generator=draw, device=setting.device),
        num_ids=setting.num_ids,
    )


def ours(inputs: Inputs) -> tuple[Step, Tensor]:
    comparison = Comparison(
        teacher=(Logits(hidden_NH=inputs.teacher_NH, head_VH=inputs.head_VH.detach()),),
        support=FullSupport() if inputs.num_ids is None else TopSupport(num_ids=inputs.num_ids),
        divergence=JensenShannon(JSD_BETA) if inputs.num_ids is None else ReverseKL(),
    )
    loss, budget = MeanDivergence(len(inputs.ids_N)), Budget(temperature=TEMPERATURE)
    return (
        lambda: fused_loss(inputs.hidden_NH, inputs.head_VH, inputs.ids_N, loss, comparison=comparison, budget=budget)[0],
        inputs.hidden_NH,
    )


@dataclass(frozen=True, slots=True)
class MeanDivergence:
    """The loss of a token is its share in the mean."""

    num_tokens: int
    is_pointwise: bool = True

    def __call__(self, scores: TokenScores, tokens: slice) -> Tensor:
        return scores.divergence_N / self.num_tokens


def materialised(inputs: Inputs) -> tuple[Step, Tensor]:
    mask_N = torch.ones_like(inputs.ids_N, dtype=torch.float32)

    def step() -> Tensor:
        with torch.no_grad():
            teacher_NV = ((inputs.teacher_NH @ inputs.head_VH.T).float() / TEMPERATURE).log_softmax(-1)
        student_NV = ((inputs.hidden_NH @ inputs.head_VH.T).float() / TEMPERATURE).log_softmax(-1)
        return (plain_comparison(student_NV, teacher_NV, inputs.num_ids) * mask_N).sum() / mask_N.sum()

    return step, inputs.hidden_NH


def plain_comparison(student_NV: Tensor, teacher_NV: Tensor, num_ids: int | None) -> Tensor:
    """[N] from log-probabilities over the vocabulary."""
    if num_ids is None:
        return divergence(JensenShannon(JSD_BETA), student_NV, teacher_NV)
    student_NK, ids_NK = student_NV.topk(num_ids, dim=-1)
    student_NK, teacher_NK = with_tail(student_NK), with_tail(teacher_NV.gather(-1, ids_NK))
    return (student_NK.exp() * (student_NK - teacher_NK)).sum(-1)


def with_tail(logprobs_NK: Tensor) -> Tensor:
    inside_N1 = logprobs_NK.logsumexp(-1, keepdim=True).clamp(max=-1e-7)
    return torch.cat([logprobs_NK, torch.log(-torch.expm1(inside_N1))], dim=-1)


def trl(inputs: Inputs) -> tuple[Step, Tensor]:
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    # Imported where they are used: peers are optional, and would weigh on the others' processes.
    from accelerate import Accelerator  # type: ignore[import-untyped]
    from transformers.modeling_outputs import CausalLMOutput
    from trl.experimental.sdpo import SDPOConfig, SDPOTrainer  # type: ignore[import-not-found, import-untyped, unused-ignore]

    class OutputEmbedding(torch.nn.Module):
        """A model whose transformer has already run: as in transformers, only the positions that are kept get logits."""

        def __init__(self, hidden_1NH: Tensor) -> None:
            super().__init__()
            self._hidden_1NH = hidden_1NH

        def forward(self, input_ids: Tensor, attention_mask: Tensor, use_cache: bool, logits_to_keep: int) -> CausalLMOutput:
            return CausalLMOutput(logits=torch.nn.functional.linear(self._hidden_1NH[:, -logits_to_keep:, :], inputs.head_VH))

    args = SDPOConfig(
        output_dir="unused",
        report_to=[],
        use_cpu=not inputs.head_VH.is_cuda,
        temperature=TEMPERATURE,
        distillation_mode="topk_logits",
        distillation_topk=inputs.num_ids,
        distillation_add_tail=True,
        distillation_alpha=1.0,  # TRL's number for KL(student‖teacher)
    )
    trainer = SDPOTrainer.__new__(SDPOTrainer)  # its loss without its data, generation and optimizer
    trainer.args, trainer.temperature = args, args.temperature
    trainer.accelerator = Accelerator(mixed_precision="bf16" if args.bf16 else "no", cpu=args.use_cpu)
    trainer.model_kwarg_keys = {"logits_to_keep"}
    trainer.use_teacher_server, trainer.current_gradient_accumulation_steps = False, 1
    trainer._metrics = {"train": defaultdict(list), "eval": defaultdict(list)}
    # The row of positions begins at the prompt's last token and ends before the response's last, whose logits TRL drops.
    student_1NH = with_last(inputs.hidden_NH.detach()).requires_grad_()
    trainer.model = trainer.accelerator.prepare_model(OutputEmbedding(student_1NH), evaluation_mode=True)
    trainer.teacher_model = trainer.accelerator.prepare_model(OutputEmbedding(with_last(inputs.teacher_NH)), evaluation_mode=True)
    ids_1N, prompt_11 = inputs.ids_N[None], inputs.ids_N[None, :1]
    ones_1N, one_11 = torch.ones_like(ids_1N), torch.ones_like(prompt_11)
    batch = {
        "prompt_ids": prompt_11,
        "prompt_mask": one_11,
        "completion_ids": ids_1N,
        "completion_mask": ones_1N,
        "teacher_input_ids": torch.cat([prompt_11, ids_1N], dim=1),
        "teacher_attention_mask": torch.cat([one_11, ones_1N], dim=1),
    }
    return lambda: trainer.compute_loss(trainer.model, batch), student_1NH


def with_last(hidden_NH: Tensor) -> Tensor:
    """[1, N + 1, H]"""
    return torch.cat([hidden_NH, hidden_NH[-1:]])[None]


def liger(inputs: Inputs) -> tuple[Step, Tensor]:
    from liger_kernel.chunked_loss.jsd_loss import (  # type: ignore[import-not-found, import-untyped, unused-ignore]
        LigerFusedLinearJSDLoss,
    )

    loss = LigerFusedLinearJSDLoss(weight_hard_loss=0.0, weight_soft_loss=1.0, beta=JSD_BETA, temperature=TEMPERATURE)
    head = inputs.head_VH
    return lambda: loss(inputs.hidden_NH, head, inputs.teacher_NH, head.detach(), inputs.ids_N), inputs.hidden_NH


PREPARED: dict[str, Callable[[Inputs], tuple[Step, Tensor]]] = {
    "ours": ours,
    "materialised": materialised,
    "trl": trl,
    "liger": liger,
}
"""What computes the loss, and the leaf that gets the hidden states' gradient."""


def exact_gradient(inputs: Inputs, checked: int, num_tokens: int) -> Tensor:
    """[checked, H] fp64 gradient of the mean by the first hidden states, from fp64 logits of the same bf16 numbers."""
    blocks = [block.detach() for block in inputs.head_VH.split(HEAD_ROWS)]
    student_nH, teacher_nH = inputs.hidden_NH.detach()[:checked].double(), inputs.teacher_NH[:checked].double()
    student_nV = torch.cat([student_nH @ block.double().T for block in blocks], dim=-1).div_(TEMPERATURE).requires_grad_()
    teacher_nV = torch.cat([teacher_nH @ block.double().T for block in blocks], dim=-1).div_(TEMPERATURE)
    loss = plain_comparison(student_nV.log_softmax(-1), teacher_nV.log_softmax(-1), inputs.num_ids).sum() / num_tokens
    by_logits_nV = torch.autograd.grad(loss, student_nV)[0] / TEMPERATURE
    parts = zip(by_logits_nV.split(HEAD_ROWS, dim=-1), blocks, strict=True)
    return torch.stack([part @ block.double() for part, block in parts]).sum(0)


class ResidentPeak:
    """The largest resident set from now on: the kernel's own high-water mark, or samples where that may not be reset."""

    def __init__(self) -> None:
        with suppress(OSError, AttributeError):  # what the C library has freed and kept must not hide what is allocated now
            ctypes.CDLL(None).malloc_trim(0)
        self._before = psutil.Process().memory_info().rss
        self._sampler: _Sampler | None = None
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            self._sampler = _Sampler()

    def above(self) -> int:
        return (self._sampler.stop() if self._sampler else proc_status("VmHWM")) - self._before


class _Sampler(threading.Thread):
    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._peak, self._is_over, self._process = 0, threading.Event(), psutil.Process()
        self.start()

    def run(self) -> None:
        while not self._is_over.wait(0.002):
            self._peak = max(self._peak, self._process.memory_info().rss)

    def stop(self) -> int:
        self._is_over.set()
        self.join()
        return self._peak


class CudaPeak:
    """The same of CUDA's allocator."""

    def __init__(self) -> None:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        self._before = torch.cuda.memory_allocated()

    def above(self) -> int:
        return torch.cuda.max_memory_allocated() - self._before


def limit_memory() -> None:
    """What asks for more than there is fails by itself, and takes nothing else down."""
    limit = proc_status("VmData") + psutil.virtual_memory().available * 95 // 100
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def proc_status(name: str) -> int:
    """Bytes, of this process."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


def described_machine(device: str) -> dict[str, str]:
    machine = {
        "cpu": cpu_model(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    return machine | {package: installed_version(package) or "not installed" for package in PEERS.values()}


def cpu_model() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def installed_version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def in_words(setting: Setting) -> str:
    support = "full vocabulary" if setting.num_ids is None else f"K {setting.num_ids}"
    return f"vocabulary {setting.vocabulary:,}, {support}, {setting.implementation}"


def as_table(rows: list[Row]) -> Table:
    table = Table(title=f"Distillation loss and gradients, {rows[0].setting.tokens:,} response tokens, bf16")
    for heading in ("vocabulary", "divergence", "K", "implementation"):
        table.add_column(heading)
    for heading in ("seconds (range)", "peak MiB", "bytes/token", "loss", "‖head gradient‖", "error"):
        table.add_column(heading, justify="right")
    group = None
    for row in rows:
        setting = row.setting
        if group not in (None, (setting.vocabulary, setting.num_ids)):
            table.add_section()
        group = (setting.vocabulary, setting.num_ids)
        first = f"{setting.vocabulary:,}", "JSD" if setting.num_ids is None else "reverse KL", str(setting.num_ids or "all")
        if not row.readings:
            table.add_row(*first, setting.implementation, "not measured", *["–"] * 5)
            continue
        times, reading = [reading.seconds for reading in row.readings], row.readings[0]
        table.add_row(
            *first,
            setting.implementation,
            f"{row.seconds:.2f} ({min(times):.2f}–{max(times):.2f})",
            f"{row.peak_bytes / MIB:,.0f}",
            f"{row.peak_bytes / setting.tokens:,.0f}",
            f"{reading.loss:.5f}",
            f"{reading.head_norm:.5f}",
            f"{reading.error:.1e}",
        )
    return table


def compared_with_peers(rows: list[Row], vocabulary: int, num_ids: int) -> dict[str, float | None]:
    """Ours over theirs at one vocabulary; None where either is missing."""
    found = {
        (row.setting.implementation, row.setting.num_ids): row
        for row in rows
        if row.setting.vocabulary == vocabulary and row.readings
    }
    ratios: dict[str, float | None] = {}
    for peer, support in (("materialised", num_ids), ("trl", num_ids), ("liger", None)):
        mine, theirs = found.get(("ours", support)), found.get((peer, support))
        ratios[f"memory_vs_{peer}"] = round(mine.peak_bytes / theirs.peak_bytes, 4) if mine and theirs else None
        ratios[f"time_vs_{peer}"] = round(mine.seconds / theirs.seconds, 4) if mine and theirs else None
    return ratios


if __name__ == "__main__":
    main()
