"""Families whose logits are not the product of hidden states and head: engine and learner agree, and SDPO runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import ray
import torch
from transformers import AutoModelForCausalLM

from sdpo.cluster.actors import start
from sdpo.types import Sampling
from sdpo.weights import weight_payload
from tests.families import write_family
from tests.integration.conftest import Trainer
from tests.integration.test_engine import Host, logprobs

pytestmark = [pytest.mark.integration, pytest.mark.full]


@pytest.mark.parametrize("name", ["granite", "phi", "cohere", "gemma2"])
def test_the_engine_serves_the_family_as_transformers_does(name: str, tmp_path: Path, ray_cluster: None) -> None:
    """The learner is held against transformers by ``tests/learner/test_families.py``, in ``make test`` too."""
    folder = write_family(tmp_path / name, name)
    host = start(Host, folder, kind="engine")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    weights = weight_payload(model.named_parameters(), bucket_bytes=100_000)
    for version, temperature in enumerate((1.0, 0.7)):
        sampling = Sampling(temperature=temperature, top_p=1.0, max_response_tokens=12)
        for prompt, completion in ray.get(host.sample.remote(weights, version, sampling)):
            expected = logprobs(model, prompt, completion, temperature)
            assert torch.allclose(torch.tensor(completion.logprobs), expected, atol=1e-4)


def test_two_steps_of_sdpo_on_a_model_that_scales_its_logits(trainer: Trainer, tmp_path: Path) -> None:
    """``mismatch`` compares vLLM's log-probabilities with the learner's, which were 6 nats off, and trained on."""
    granite = replace(trainer, model=write_family(tmp_path / "granite", "granite"))
    granite.run(granite.words("num_steps=2", "evaluation.num_tasks=0"))
    rows = granite.rows()
    assert [row["step"] for row in rows] == [1, 2]
    for row in rows:
        assert row["mismatch"] < 1e-6
        assert row["updates"] == 1.0
        assert row["divergence"] > 0.0
