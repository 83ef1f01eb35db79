"""What libraries say again and again of things that are as they should be is not in the logs; what is wrong still is."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from sdpo.rollout.importing import import_vllm

RELOAD_LOGGER = "vllm.model_executor.model_loader.reload.layerwise"


class Collected(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.sentences: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.sentences.append(record.getMessage())


@pytest.fixture
def collected(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """What one of vLLM's loggers says; it does not pass records on to the root's handlers."""
    import_vllm(compiles=False)  # it sets up its loggers; and collecting the tests should not wait for it
    handler, logger = Collected(), logging.getLogger(request.param)
    logger.addHandler(handler)
    yield handler.sentences
    logger.removeHandler(handler)


class Rotary(nn.Module):
    """Nothing but what is computed from the config."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("cache", torch.arange(4.0), persistent=False)


class Statistics(nn.Module):
    """A buffer that a checkpoint holds."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.ones(3))


class Config:
    def __init__(self, *, is_tied: bool) -> None:
        self.tie_word_embeddings = is_tied


class Model(nn.Module):
    def __init__(self, *, is_tied: bool) -> None:
        super().__init__()
        self.config = Config(is_tied=is_tied)
        self.embed = nn.Embedding(5, 2)
        self.rotary = Rotary()
        self.statistics = Statistics()
        self.lm_head = nn.Linear(2, 5, bias=False)


def reloaded(model: Model, weights: dict[str, Tensor]) -> None:
    """As an update does it, with those weights alone."""
    from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload
    from vllm.model_executor.model_loader.reload.layerwise import record_metadata_for_reloading

    from sdpo.rollout.transfer import expect_nothing_of_weightless_layers, tied_head

    record_metadata_for_reloading(model)
    initialize_layerwise_reload(model)
    parameters = dict(model.named_parameters())
    for name, weight in weights.items():
        parameters[name].weight_loader(parameters[name], weight)  # type: ignore[attr-defined, operator]
    expect_nothing_of_weightless_layers(model, tied_head(model))
    finalize_layerwise_reload(model, None)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("collected", [RELOAD_LOGGER], indirect=True)
def test_layers_without_weights_of_their_own_are_not_missed(collected: list[str]) -> None:
    """A rotary embedding and a tied head were reported at every update of the weights."""
    model = Model(is_tied=True)
    head = model.lm_head.weight.detach().clone()
    reloaded(model, {"embed.weight": torch.full((5, 2), 7.0)})
    assert collected == ["Statistics: Failed to load weights"]
    assert torch.equal(model.embed.weight, torch.full((5, 2), 7.0))
    assert torch.equal(model.rotary.cache, torch.arange(4.0))
    assert torch.equal(model.lm_head.weight, head)


@pytest.mark.parametrize("collected", [RELOAD_LOGGER], indirect=True)
def test_layers_whose_weights_did_not_come_are_still_reported(collected: list[str]) -> None:
    reloaded(Model(is_tied=False), {})
    assert sorted(collected) == [f"{name}: Failed to load weights" for name in ("Embedding", "Linear", "Statistics")]


READ_ONLY = """
import warnings, numpy, torch
from sdpo.weights import packed
torch.set_warn_always(True)
warnings.simplefilter("error", append=True)
weights = packed({"x": torch.arange(3.0)})
weights.buffer.flags.writeable = False
assert dict(weights.tensors())["x"].tolist() == [0.0, 1.0, 2.0]
try:
    torch.from_numpy(weights.buffer)
except UserWarning:
    print("others are warned")
"""


def test_weights_in_read_only_memory_are_read_without_a_warning_and_others_are_warned() -> None:
    done = subprocess.run([sys.executable, "-c", READ_ONLY], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "others are warned\n"), done.stderr
