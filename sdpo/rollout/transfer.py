"""A backend of vLLM's weight transfer protocol (start, update, finish) that takes buckets from this process's memory.

vLLM brings backends for CUDA alone (``nccl``, ``ipc``); this one is for everything else. It is found by its name in vLLM's own
registry, also by the workers of a tensor-parallel engine, which load it as a plugin (``vllm.general_plugins``).

vLLM repacks weights for its CPU kernels layer by layer, as soon as all of a layer's have come. That passes over a tied output
head: no tensor of that name arrives, so the head's packed copy stays the *old* embedding, and every token would be sampled from
a mixture of two models (vLLM 0.30, CPU). The head is therefore packed again at the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from vllm.distributed.weight_transfer.base import WeightTransferEngine, WeightTransferInitInfo, WeightTransferUpdateInfo
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

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
        finalize_layerwise_reload(self.model, self.model_config)  # type: ignore[no-untyped-call]
        model: Any = self.model
        head = getattr(model, "lm_head", None)
        is_tied = bool(getattr(model.config, "tie_word_embeddings", False))
        if is_tied and head is not None and self.device.type == "cpu":
            with torch.no_grad():
                head.quant_method.process_weights_after_loading(head)

    def shutdown(self) -> None:
        """Nothing is held."""
