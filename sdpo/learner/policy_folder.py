"""A policy as a plain Hugging Face folder, which transformers and vLLM load as they load any model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer, GenerationConfig

WEIGHTS = "model.safetensors"


def write(folder: Path, parameters: Mapping[str, Tensor], model_path: str) -> None:
    """A new folder of ``parameters``, with all else from ``model_path``."""
    folder.mkdir()
    AutoTokenizer.from_pretrained(model_path).save_pretrained(folder)
    _generation_config(model_path).save_pretrained(folder)
    AutoConfig.from_pretrained(model_path).save_pretrained(folder)
    put(folder, parameters)


def put(folder: Path, parameters: Mapping[str, Tensor]) -> None:
    """Give the model in ``folder`` these parameters; its config names their type, in which it will be loaded."""
    save_file({name: tensor.contiguous() for name, tensor in parameters.items()}, folder / WEIGHTS, metadata={"format": "pt"})
    config = AutoConfig.from_pretrained(folder)
    config.dtype = max(parameters.values(), key=lambda tensor: tensor.numel()).dtype
    config.save_pretrained(folder)


def _generation_config(model_path: str) -> GenerationConfig:
    """The model's own, which may know more ends of sequence than its config; else what the config says."""
    try:
        return GenerationConfig.from_pretrained(model_path)
    except OSError:
        return GenerationConfig.from_model_config(AutoConfig.from_pretrained(model_path))
