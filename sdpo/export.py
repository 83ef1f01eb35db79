"""A checkpoint as a plain Hugging Face folder, for transformers, vLLM and everything that loads such."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch
from rich.console import Console
from safetensors.torch import load_file, save_file
from transformers import AutoConfig

from sdpo.config import ExportConfig, ExportedWeights
from sdpo.errors import UserError
from sdpo.learner import checkpoint, shard_files

WEIGHTS = "model.safetensors"


def run_export(config: ExportConfig) -> int:
    """``sdpo export``. The folder appears whole or not at all. Returns the exit code."""
    source, target = Path(config.checkpoint), Path(config.to).absolute()
    counters = checkpoint.counters_of(source)
    if target.exists():
        raise UserError(f"to= must name a folder that is not there yet (nothing is overwritten); {target} is. Choose another.")
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.with_name(f".{target.name}.partial")
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        shutil.copytree(source / checkpoint.POLICY, scratch)
        parameters = load_file(scratch / WEIGHTS)
        if config.weights is ExportedWeights.average:
            parameters = _average(source, parameters)
        dtype = None if config.dtype is None else getattr(torch, config.dtype.value)
        if config.weights is ExportedWeights.average or dtype is not None:
            parameters = {name: tensor.to(dtype or tensor.dtype).contiguous() for name, tensor in parameters.items()}
            save_file(parameters, scratch / WEIGHTS, metadata={"format": "pt"})
        if dtype is not None:
            settings = AutoConfig.from_pretrained(scratch)
            settings.dtype = dtype
            settings.save_pretrained(scratch)
        os.replace(scratch, target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    size = sum(tensor.numel() for tensor in parameters.values())
    Console().print(
        f"{config.weights.value} of step {counters.step}: {size / 1e6:.1f} M parameters, {target}",
        highlight=False,
        soft_wrap=True,
    )
    return 0


def _average(source: Path, parameters: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The teacher's moving average, in the types of ``parameters``."""
    found = shard_files.whole(source, "average", {name: tensor.shape for name, tensor in parameters.items()})
    missing = sorted(parameters.keys() - found.keys())
    if missing:
        raise UserError(
            "weights=average needs a checkpoint of a run with algorithm.teacher.kind=ema that trains all weights; "
            f"{source} keeps no average of {missing[0]}. Export weights=policy."
        )
    return {name: found[name].to(tensor.dtype) for name, tensor in parameters.items()}
