"""New weights into a running vLLM model. Runs inside vLLM's worker.

vLLM repacks weights for its CPU kernels, so they are loaded layer by layer through its own reload. That reload passes over a
tied output head: no tensor of that name arrives, so the head's packed copy stays the *old* embedding, and every token would be
sampled from a mixture of two models (vLLM 0.30, CPU). The head is therefore packed again here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from sdpo.weights import PackedWeights

if TYPE_CHECKING:
    from vllm.v1.worker.worker_base import WorkerBase


def reload(worker: WorkerBase, weights: PackedWeights) -> None:
    """Serve ``weights`` from the next forward on; no request may be running."""
    runner: Any = worker.model_runner
    runner.reload_weights(weights_iterator=weights.tensors())
    model: Any = runner.get_model()
    head = getattr(model, "lm_head", None)
    is_tied = bool(getattr(model.config, "tie_word_embeddings", False))
    if is_tied and head is not None and worker.device == torch.device("cpu"):
        with torch.no_grad():
            head.quant_method.process_weights_after_loading(head)
