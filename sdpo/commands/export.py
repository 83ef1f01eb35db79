"""A checkpoint as a plain Hugging Face folder, for transformers, vLLM and everything that loads such."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from rich.console import Console
from safetensors.torch import load_file

from sdpo.config import ExportConfig, ExportedWeights
from sdpo.errors import UserError
from sdpo.learner import checkpoint, policy_folder, shard_files
from sdpo.run.files import refuse_existing, whole_folder


def run_export(config: ExportConfig) -> int:
    """``sdpo export``. The folder appears whole or not at all. Returns the exit code."""
    source, target = Path(config.checkpoint), Path(config.to).absolute()
    refuse_existing(target)
    console = Console()
    within = checkpoint.POLICY if config.weights is ExportedWeights.policy else None
    counters = checkpoint.verify(source, lambda sentence: console.print(sentence, highlight=False, markup=False), within=within)
    with whole_folder(target) as scratch:
        shutil.copytree(source / checkpoint.POLICY, scratch)
        parameters = load_file(scratch / policy_folder.WEIGHTS)
        types = {name: tensor.dtype for name, tensor in parameters.items()}
        if config.weights is ExportedWeights.average:
            parameters = _average(source, parameters)
        if config.dtype is not None:
            types = dict.fromkeys(types, getattr(torch, config.dtype.value))
        if config.weights is ExportedWeights.average or config.dtype is not None:
            policy_folder.put(scratch, {name: tensor.to(types[name]) for name, tensor in parameters.items()})
    size = sum(tensor.numel() for tensor in parameters.values())
    console.print(
        f"{config.weights.value} of step {counters.step}: {size / 1e6:.1f} M parameters, {target}",
        highlight=False,
        soft_wrap=True,
    )
    return 0


def _average(source: Path, parameters: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The teacher's average, fp32, of the names in ``parameters``."""
    found = shard_files.whole(source, "average", {name: tensor.shape for name, tensor in parameters.items()})
    missing = sorted(parameters.keys() - found.keys())
    if missing:
        raise UserError(
            "weights=average needs a checkpoint of a run with algorithm.teacher.kind=ema, on_gain or periodic that trains all "
            f"weights; {source} keeps no average of {missing[0]}. Export weights=policy."
        )
    return {name: found[name] for name in parameters}
