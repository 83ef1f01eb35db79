"""The engine serves what the learner has: after a load, its logprobs are those of the same weights in transformers."""

from __future__ import annotations

from pathlib import Path

import pytest
import ray
import torch
from transformers import AutoModelForCausalLM

from sdpo.cluster.actors import start
from sdpo.config import Dtype, RolloutConfig
from sdpo.rollout.engine import VllmEngine
from sdpo.types import Completion, Prompt, Sampling
from sdpo.weights import WeightPayload, weight_payload
from tests.tiny import write_tiny_model

pytestmark = pytest.mark.integration
PROMPTS = [Prompt(token_ids=tuple(range(5, 25 + index)), seed=index, task_index=index, attempt_index=0) for index in range(5)]


class Host:
    """An engine in a process of its own, since vLLM keeps process-wide state."""

    def __init__(self, path: Path) -> None:
        config = RolloutConfig(dtype=Dtype.float32, kv_cache_gib=1)
        self._engine = VllmEngine(str(path), max_model_tokens=200, config=config, seed=0)

    def sample(self, weights: WeightPayload, version: int, sampling: Sampling) -> list[tuple[Prompt, Completion]]:
        self._engine.load(weights.in_memory(), version=version)
        return [pair for ended in self._engine.sample(PROMPTS, sampling) for pair in ended]


@pytest.mark.parametrize("tied", [True, False])
def test_logprobs_after_a_load_are_those_of_the_loaded_model(tied: bool, tmp_path: Path, ray_cluster: None) -> None:
    """With a tied head, vLLM's reload left the packed copy of the *old* head in place: sampling mixed two models."""
    paths = [write_tiny_model(tmp_path / str(seed), tie_embeddings=tied, seed=seed) for seed in (0, 1)]
    host = start(Host, paths[0], kind="engine")
    for version, path in enumerate([*paths, paths[0]]):
        model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
        weights = weight_payload(model.named_parameters(), bucket_bytes=100_000)
        for temperature in (1.0, 0.7):
            sampling = Sampling(temperature=temperature, top_p=1.0, max_response_tokens=12)
            pairs = ray.get(host.sample.remote(weights, version, sampling))
            again = ray.get(host.sample.remote(weights, version, sampling))
            assert sorted(pairs, key=lambda pair: pair[0].seed) == sorted(again, key=lambda pair: pair[0].seed)
            assert len(pairs) == len(PROMPTS)
            for prompt, completion in pairs:
                assert completion.weights_version == version
                expected = logprobs(model, prompt, completion, temperature)
                assert torch.allclose(torch.tensor(completion.logprobs), expected, atol=1e-4)


def test_greedy_completions_after_a_load_are_those_of_the_loaded_model(tmp_path: Path, ray_cluster: None) -> None:
    """Token for token; the engine began with other weights."""
    paths = [write_tiny_model(tmp_path / str(seed), seed=seed) for seed in (0, 1)]
    host = start(Host, paths[0], kind="engine")
    model = AutoModelForCausalLM.from_pretrained(paths[1], dtype=torch.float32)
    sampling = Sampling(temperature=0.0, top_p=1.0, max_response_tokens=40)
    weights = weight_payload(model.named_parameters(), bucket_bytes=100_000)
    pairs = ray.get(host.sample.remote(weights, 7, sampling))
    assert len(pairs) == len(PROMPTS)
    for prompt, completion in pairs:
        ids = torch.tensor([prompt.token_ids])
        expected = model.generate(ids, max_new_tokens=40, do_sample=False, attention_mask=torch.ones_like(ids))[0, ids.shape[1] :]
        assert list(completion.token_ids) == expected.tolist()
        assert torch.allclose(torch.tensor(completion.logprobs), logprobs(model, prompt, completion, 1.0), atol=1e-4)


@torch.no_grad()
def logprobs(model: torch.nn.Module, prompt: Prompt, completion: Completion, temperature: float) -> torch.Tensor:
    ids = torch.tensor([[*prompt.token_ids, *completion.token_ids]])
    every = (model(ids).logits[0] / temperature).log_softmax(-1)
    first = len(prompt.token_ids) - 1
    return every[first:-1].gather(-1, torch.tensor(completion.token_ids)[:, None])[:, 0]
