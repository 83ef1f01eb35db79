"""One vLLM engine in this process: token ids in, token ids and logprobs out. No Ray here; ``engine_loop.py`` runs it for as long
as its process lives.

It is stepped by hand rather than by vLLM's AsyncLLM. Requests may be added between any two steps all the same. Weights can only
change there, so every token's version is known exactly. An engine is one process, which a kill ends wholly.

vllm is imported only once an engine is made: importing it takes seconds and sets process-wide state.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sdpo.config import RolloutConfig
from sdpo.rollout.importing import import_vllm
from sdpo.types import Completion, Finish, Prompt, Sampling
from sdpo.weights import Checksum, PackedWeights

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
    from vllm.outputs import RequestOutput
    from vllm.v1.engine.llm_engine import LLMEngine

CPU_BLOCK_TOKENS = 32
"""Tokens of a block of the KV cache: the least that vLLM's CPU attention takes. Only whole blocks are shared between siblings.
With its default of 128 there, a shorter prompt was computed anew for every attempt. For 8 tasks x 6 attempts of 114 tokens that
took 15 s instead of 6."""


@dataclass(slots=True)
class _Running:
    """A prompt that is being continued."""

    prompt: Prompt
    internal_id: str
    """vLLM's own name of the request."""
    version: int
    """Version of the weights that sample its tokens from now on."""
    sampled_before: list[tuple[int, int]] = field(default_factory=list)
    """Earlier versions, each with the number of tokens that had come when it ended."""

    def versions(self, num_tokens: int) -> tuple[tuple[int, int], ...]:
        """Runs of (version, tokens that it sampled), without empty ones."""
        runs, start = [], 0
        for version, end in (*self.sampled_before, (self.version, num_tokens)):
            if end > start:
                runs.append((version, end - start))
            start = end
        return tuple(runs)


class VllmEngine:
    """Samples with the weights of ``model_path``, or with those it was given last."""

    def __init__(
        self, model_path: str, *, max_model_tokens: int, config: RolloutConfig, seed: int, may_rest: bool = False
    ) -> None:
        """``max_model_tokens``: the longest prompt and response together. ``may_rest``: keep the memory in a form that can be
        given back."""
        os.environ["VLLM_CPU_KVCACHE_SPACE"] = str(config.kv_cache_gib)
        import_vllm(compiles=not config.enforce_eager)
        import torch
        from transformers import AutoTokenizer
        from vllm.config import WeightTransferConfig
        from vllm.engine.arg_utils import EngineArgs
        from vllm.usage.usage_lib import UsageContext
        from vllm.v1.engine.llm_engine import LLMEngine

        from sdpo.rollout import token_renderer, transfer

        making: AbstractContextManager[None] = nullcontext()
        if not torch.cuda.is_available():
            from sdpo.rollout.cpu_cache import bound, zeroed_when_touched
            from sdpo.rollout.cpu_sampling import sample_seeded_requests_with_one_draw

            sample_seeded_requests_with_one_draw()
            making = zeroed_when_touched()
        transfer.register()
        token_renderer.register()
        self.version, self.checksum = -1, ""
        self._running: dict[str, _Running] = {}
        self._is_resting = False
        self._tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(model_path)
        arguments = EngineArgs(
            model=model_path,
            dtype=config.dtype.value,
            seed=seed,
            max_model_len=max_model_tokens,
            max_num_seqs=config.max_num_seqs,
            # Room for whole prompts: on the CPU a split prompt breaks per-request seeds, and kills the engine.
            enable_chunked_prefill=False,
            max_num_batched_tokens=max(8192, max_model_tokens),
            enforce_eager=config.enforce_eager,
            tensor_parallel_size=config.tensor_parallel_size,
            gpu_memory_utilization=config.gpu_memory_utilization,
            enable_prefix_caching=True,
            block_size=None if torch.cuda.is_available() else CPU_BLOCK_TOKENS,
            enable_sleep_mode=may_rest,
            # Logprobs of the distribution that was sampled from: after temperature and truncation.
            logprobs_mode="processed_logprobs",
            weight_transfer_config=WeightTransferConfig(backend=transfer.BACKEND),
            skip_tokenizer_init=True,
            disable_log_stats=True,
            use_tqdm_on_load=False,  # a log keeps every state of a progress bar
        )
        with making:
            context = UsageContext.LLM_CLASS
            vllm_config = arguments.create_engine_config(context)
            if not torch.cuda.is_available():
                bound(vllm_config)
            self._engine = LLMEngine.from_vllm_config(vllm_config, usage_context=context, disable_log_stats=True)
        self._stop_ids = sorted(_stop_ids(self._tokenizer, self._engine))

    @property
    def has_work(self) -> bool:
        return bool(self._running)

    def load(self, buckets: Iterable[PackedWeights], *, version: int) -> None:
        """Serve these from the next step on. What is being continued is kept: its cache is computed anew, under the new weights.

        After an error the engine has parts of two models and must not be used again.
        """
        self._wake()
        checksum = Checksum()
        self._engine.collective_rpc("start_weight_update")
        for bucket in buckets:
            checksum.add(bucket)
            self._engine.collective_rpc("update_weights", kwargs={"update_info": {"weights": bucket}})
        self._engine.collective_rpc("finish_weight_update")
        self._engine.set_weight_version(str(version))
        for running in self._running.values():
            running.sampled_before.append((running.version, self._num_sampled(running)))
            running.version = version
        self._engine.reset_prefix_cache(reset_running_requests=self.has_work)
        self.version, self.checksum = version, str(checksum)

    def add(self, request_id: str, prompt: Prompt, sampling: Sampling) -> None:
        """Continue the prompt, from the next step on, beside what is running."""
        from vllm import SamplingParams, TokensPrompt
        from vllm.sampling_params import RequestOutputKind

        self._wake()
        internal_id = self._engine.add_request(
            request_id,
            TokensPrompt(prompt_token_ids=list(prompt.token_ids)),
            SamplingParams(
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                max_tokens=prompt.max_response_tokens or sampling.max_response_tokens,
                seed=prompt.seed,
                logprobs=0,
                detokenize=False,
                stop_token_ids=self._stop_ids,
                output_kind=RequestOutputKind.FINAL_ONLY,
            ),
        )
        self._running[request_id] = _Running(prompt=prompt, internal_id=internal_id, version=self.version)

    def abort(self, request_ids: Iterable[str]) -> None:
        """Forget these."""
        known = [request_id for request_id in request_ids if self._running.pop(request_id, None) is not None]
        if known:
            self._engine.abort_request(known)

    def step(self) -> list[tuple[str, Completion]]:
        """Sample a token more for each running request. Returns those that ended with it, by their ids."""
        from vllm import RequestOutput

        ended = [o for o in self._engine.step() if isinstance(o, RequestOutput) and o.finished]
        return [(output.request_id, self._completion(output)) for output in ended]

    def rest(self) -> None:
        """Move the weights into the host's memory and drop the cache, until there is work or weights."""
        assert not self.has_work
        self._engine.sleep(level=1)
        self._is_resting = True

    def _wake(self) -> None:
        if self._is_resting:
            self._engine.wake_up()
            self._is_resting = False

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[list[tuple[Prompt, Completion]]]:
        """One completion for each prompt, in the order in which they end; each item holds those that ended together. Closing the
        iterator early makes the engine forget the rest."""
        assert not self.has_work
        for index, prompt in enumerate(prompts):
            self.add(str(index), prompt, sampling)
        try:
            while self.has_work:
                ended = self.step()
                if ended:
                    yield [(prompts[int(request_id)], completion) for request_id, completion in ended]
        finally:
            self.abort(tuple(self._running))

    def _num_sampled(self, running: _Running) -> int:
        """Tokens of a running request so far."""
        core: Any = self._engine.engine_core
        count: int = core.engine_core.scheduler.requests[running.internal_id].num_output_tokens
        return count

    def _completion(self, output: RequestOutput) -> Completion:
        sampled, running = output.outputs[0], self._running.pop(output.request_id)
        token_ids = tuple(sampled.token_ids)
        versions = running.versions(len(token_ids))
        assert sampled.logprobs is not None, "logprobs were asked for"
        return Completion(
            token_ids=token_ids,
            logprobs=tuple(
                float(at[token_id].logprob) for at, token_id in zip(sampled.logprobs, token_ids, strict=True) if at is not None
            ),
            text=str(self._tokenizer.decode(list(token_ids), skip_special_tokens=True)),
            finish=Finish.stop if sampled.finish_reason == "stop" else Finish.length,
            weights_version=min(version for version, _ in versions),
            versions=versions if len(versions) > 1 else (),
        )


def _stop_ids(tokenizer: PreTrainedTokenizerBase, engine: LLMEngine) -> set[int]:
    """End-of-sequence ids of the tokenizer and of the model's generation config: chat models often have two."""
    declared = engine.model_config.try_get_generation_config().get("eos_token_id")
    ids = {declared} if isinstance(declared, int) else set(declared or ())
    if isinstance(tokenizer.eos_token_id, int):
        ids.add(tokenizer.eos_token_id)
    return ids
