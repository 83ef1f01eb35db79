"""One vLLM engine in this process: token ids in, token ids and logprobs out. No Ray here; ``fleet.py`` is the shell.

Imports vllm only once an engine is made: importing it takes seconds and sets process-wide state.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from sdpo.config import RolloutConfig
from sdpo.rollout.reload import reload
from sdpo.types import TURN_BREAK, Completion, Finish, Prompt, Sampling
from sdpo.weights import PackedWeights

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
    from vllm.outputs import RequestOutput

_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the actor is the process; a second one only adds a hop
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # the learner wants the same cores while the engine rests
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
}


class VllmEngine:
    """Samples with the weights of ``model_path``, or with those it was given last."""

    def __init__(self, model_path: str, *, max_model_tokens: int, config: RolloutConfig, seed: int) -> None:
        """``max_model_tokens``: the longest prompt and response together."""
        os.environ.update(_ENVIRONMENT)
        os.environ["VLLM_CPU_KVCACHE_SPACE"] = str(config.kv_cache_gib)
        import torch
        from transformers import AutoTokenizer
        from vllm import LLM

        if not torch.cuda.is_available():
            from sdpo.rollout.cpu_sampling import sample_seeded_requests_with_one_draw

            sample_seeded_requests_with_one_draw()
        self.version = -1
        self._tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(model_path)
        self._llm = LLM(
            model_path,
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
            # Logprobs of the distribution that was sampled from: after temperature and truncation.
            logprobs_mode="processed_logprobs",
            skip_tokenizer_init=True,
            disable_log_stats=True,
        )
        self._stop_ids = sorted(_stop_ids(self._tokenizer, self._llm))

    def load(self, weights: PackedWeights, *, version: int) -> None:
        """Serve ``weights`` from now on."""
        self._llm.collective_rpc(reload, args=(weights,))
        self._llm.reset_prefix_cache()
        self.version = version

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[list[tuple[Prompt, Completion]]]:
        """One completion for each prompt, in the order in which they end; each item holds those that ended together."""
        from vllm import RequestOutput, SamplingParams, TokensPrompt

        engine = self._llm.llm_engine
        for index, prompt in enumerate(prompts):
            engine.add_request(
                str(index),
                TokensPrompt(prompt_token_ids=list(prompt.token_ids)),
                SamplingParams(
                    temperature=sampling.temperature,
                    top_p=sampling.top_p,
                    max_tokens=prompt.max_response_tokens or sampling.max_response_tokens,
                    seed=prompt.seed,
                    logprobs=0,
                    detokenize=False,
                    stop_token_ids=self._stop_ids,
                ),
            )
        while engine.has_unfinished_requests():
            ended = [output for output in engine.step() if isinstance(output, RequestOutput) and output.finished]
            if ended:
                yield [(prompts[int(output.request_id)], self._completion(output)) for output in ended]

    def _completion(self, output: RequestOutput) -> Completion:
        sampled = output.outputs[0]
        token_ids = tuple(sampled.token_ids)
        assert sampled.logprobs is not None, "logprobs were asked for"
        return Completion(
            token_ids=token_ids,
            logprobs=tuple(
                float(at[token_id].logprob) for at, token_id in zip(sampled.logprobs, token_ids, strict=True) if at is not None
            ),
            text=str(self._tokenizer.decode(list(token_ids), skip_special_tokens=True)).replace(TURN_BREAK, " "),
            finish=Finish.stop if sampled.finish_reason == "stop" else Finish.length,
            weights_version=self.version,
        )


def _stop_ids(tokenizer: PreTrainedTokenizerBase, llm: object) -> set[int]:
    """End-of-sequence ids of the tokenizer and of the model's generation config: chat models often have two."""
    from vllm import LLM

    assert isinstance(llm, LLM)
    declared = llm.model_config.try_get_generation_config().get("eos_token_id")
    ids = {declared} if isinstance(declared, int) else set(declared or ())
    if isinstance(tokenizer.eos_token_id, int):
        ids.add(tokenizer.eos_token_id)
    return ids
