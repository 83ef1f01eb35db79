"""Plans in a few words, in bf16 whatever this machine would choose."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from functools import cache
from typing import Any

import yaml

from sdpo.config import Config
from sdpo.config.compose import train_config
from sdpo.planning.gpu_plan import GpuPlan, Machine, gpu_plan
from sdpo.planning.learner_state import Learning
from sdpo.planning.shapes import PUBLISHED, ModelShape
from sdpo.planning.terms import Term

QWEN_8B = PUBLISHED["Qwen/Qwen3-8B"]
PAPER = (
    "model=qwen3_8b", "sampling.max_prompt_tokens=2048", "sampling.max_response_tokens=8192",
    "algorithm.hindsight.max_prompt_tokens=10240", "batch.num_tasks=32", "batch.group_size=8", "batch.micro_batch_tokens=24576",
    "cluster.object_store_gib=40",
)  # fmt: skip
"""The lengths and the batch of arXiv 2601.20802."""


@cache
def config_of(*words: str) -> Config:
    """Groups and the paper's lengths are composed by hydra, once each; other values are set in their order, which is quicker."""
    by_hydra = [word for word in words if "." not in (key := word.partition("=")[0]) or key.endswith(".kind") or word in PAPER]
    config = _composed(*by_hydra)
    for word in words:
        key, _, value = word.partition("=")
        if word not in by_hydra:
            config = _with(config, key.split("."), yaml.safe_load(value))
    return config


@cache
def _composed(*groups: str) -> Config:
    return train_config(["cluster.address=auto", "learner.dtype=bfloat16", "rollout.dtype=bfloat16", *groups])


def _with(part: Any, keys: list[str], value: object) -> Any:
    first, *others = keys
    now = getattr(part, first)
    if others:
        return replace(part, **{first: _with(now, others, value)})
    return replace(part, **{first: type(now)(value) if isinstance(now, Enum) else value})


def planned(*words: str, gpus: int = 4, gib: float = 80.0, shape: ModelShape = QWEN_8B, host: float | None = None) -> GpuPlan:
    return gpu_plan(config_of(*words), shape, None, Machine(gpus_per_node=gpus, gpu_gib=gib, host_gib=host))


def learning(*words: str, shape: ModelShape = QWEN_8B, is_gpu: bool = True) -> Learning:
    config = config_of(*words)
    return Learning(shape=shape, learner=config.learner, algorithm=config.algorithm, is_gpu=is_gpu)


def sizes(terms: tuple[Term, ...]) -> dict[str, float]:
    """Bytes by name; terms of one name added up."""
    found: dict[str, float] = {}
    for term in terms:
        found[term.name] = found.get(term.name, 0.0) + term.num_bytes
    return found
