"""A backend of vLLM's weight transfer protocol (start, update, finish) that takes buckets from this process's memory.

vLLM brings backends for CUDA alone (``nccl``, ``ipc``); this one works on every device. It is found by its name in vLLM's own
registry, also by the workers of a tensor-parallel engine, which load it as a plugin (``vllm.general_plugins``).

vLLM repacks weights for its CPU kernels layer by layer, as soon as all of a layer's have come. That passes over a tied output
head: no tensor of that name arrives, so the head's packed copy stays the *old* embedding. Every token would then be sampled
from a mixture of two models (vLLM 0.30, CPU). The head is therefore packed again at the end.

vLLM also warns at every update of each layer for which no tensor came, that head and layers without weights included. It is told
to expect nothing of these. A layer whose weights are missing is still warned of.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from vllm.distributed.weight_transfer.base import WeightTransferEngine, WeightTransferInitInfo, WeightTransferUpdateInfo
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload
from vllm.model_executor.model_loader.reload.layerwise import get_layerwise_info

from sdpo.weights import PackedWeights

BACKEND = "object_store"


def register() -> None:
    """Make the backend known to vLLM in this process."""
    if BACKEND not in WeightTransferEngineFactory._registry:
        WeightTransferEngineFactory.register_engine(BACKEND, BucketTransfer)


@dataclass
class NoInit(WeightTransferInitInfo):
    """Nobody has to be met."""


@dataclass
class Bucket(WeightTransferUpdateInfo):
    """Some of the parameters."""

    weights: PackedWeights


class BucketTransfer(WeightTransferEngine[NoInit, Bucket]):
    """Runs inside vLLM's worker."""

    init_info_cls = NoInit
    update_info_cls = Bucket

    def init_transfer_engine(self, init_info: NoInit) -> None:
        """Nothing to prepare."""

    def start_weight_update(self) -> None:
        initialize_layerwise_reload(self.model)

    def update_weights(self, update_info: dict[str, Any]) -> None:
        self.receive_weights(self.parse_update_info(update_info))
        if self.device.type != "cpu":
            torch.accelerator.synchronize()  # the bucket may go once this returns

    def receive_weights(self, update_info: Bucket) -> None:
        model: Any = self.model
        model.load_weights(update_info.weights.tensors())

    def finish_weight_update(self) -> None:
        model: Any = self.model
        head = tied_head(model)
        expect_nothing_of_weightless_layers(model, head)
        finalize_layerwise_reload(model, self.model_config)  # type: ignore[no-untyped-call]
        if head is not None and self.device.type == "cpu":
            with torch.no_grad():
                head.quant_method.process_weights_after_loading(head)

    def shutdown(self) -> None:
        """Nothing is held."""


def tied_head(model: Any) -> Any:
    """The output head where its weights are the embedding's, so that none of its own arrive; else None."""
    return getattr(model, "lm_head", None) if getattr(model.config, "tie_word_embeddings", False) else None


def expect_nothing_of_weightless_layers(model: nn.Module, head: object) -> None:
    """Set to 0 what vLLM waits for at the tied ``head``, and at layers that have nothing but buffers which no checkpoint holds
    (rotary embeddings). Call it between start and finish. vLLM restores these layers as before."""
    for layer in model.modules():
        info = get_layerwise_info(layer)
        if info.kernel_tensors is None or info.load_numel:
            continue
        parameters, buffers = info.kernel_tensors
        is_computed = not parameters and info.kernel_non_persistent_buffers.issuperset(buffers)
        if layer is head or is_computed:
            info.load_numel_total = 0
