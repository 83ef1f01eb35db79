"""Tiny random models of the families that the learner is proved on, with biases, scales and caps that matter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
)

VOCABULARY = 61
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 1,
}
HEADS = {**SIZES, "head_dim": 8}
_FEW_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
_FULL = ["full_attention", "full_attention"]
_BOTH = ["sliding_attention", "full_attention"]
VISION = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}


def config(kind: str, /, **settings: Any) -> PretrainedConfig:
    """A config of transformers' ``model_type``."""
    found: PretrainedConfig = AutoConfig.for_model(kind, **settings)
    return found


FAMILIES: dict[str, Callable[[], PretrainedConfig]] = {
    "llama": lambda: config("llama", **HEADS),
    "llama, tied": lambda: config("llama", **HEADS, tie_word_embeddings=True),
    "mistral": lambda: config("mistral", **HEADS, sliding_window=6),
    "qwen2": lambda: config("qwen2", **SIZES),
    "qwen3": lambda: config("qwen3", **HEADS),
    "qwen3_moe": lambda: config(
        "qwen3_moe", **HEADS, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16, decoder_sparse_step=1
    ),
    "olmo3": lambda: config("olmo3", **SIZES, sliding_window=6, layer_types=_BOTH),
    "smollm3": lambda: config("smollm3", **SIZES, no_rope_layers=[1, 0]),
    "gemma2": lambda: config(
        "gemma2", **HEADS, final_logit_softcapping=3.0, attn_logit_softcapping=None, sliding_window=6, layer_types=_BOTH
    ),
    "gemma3_text": lambda: config("gemma3_text", **HEADS, final_logit_softcapping=3.0, sliding_window=6, layer_types=_BOTH),
    "gemma3": lambda: config(
        "gemma3",
        text_config={**HEADS, "sliding_window": 6, "layer_types": _BOTH},
        vision_config={**VISION, "model_type": "siglip_vision_model"},
        image_token_index=50,
        boi_token_index=51,
        eoi_token_index=52,
    ),
    "phi": lambda: config("phi", **SIZES, partial_rotary_factor=0.5),
    "phi3": lambda: config("phi3", **SIZES),
    "granite": lambda: config("granite", **SIZES, logits_scaling=3.0, embedding_multiplier=2.0, attention_multiplier=0.4),
    "granitemoe": lambda: config("granitemoe", **SIZES, **_FEW_EXPERTS, logits_scaling=3.0),
    "cohere": lambda: config("cohere", **SIZES, logit_scale=0.25),
    "cohere2": lambda: config("cohere2", **HEADS, logit_scale=0.25, sliding_window=6, layer_types=_BOTH),
    "gpt_neox": lambda: config("gpt_neox", **SIZES),
    "nanochat": lambda: config("nanochat", **SIZES, final_logit_softcapping=3.0),
    "minicpm3": lambda: config(
        "minicpm3",
        **{**SIZES, "num_key_value_heads": 4},
        dim_model_base=8,
        q_lora_rank=16,
        kv_lora_rank=8,
        qk_nope_head_dim=8,
        qk_rope_head_dim=8,
        v_head_dim=8,
    ),
    "hyperclovax": lambda: config("hyperclovax", **HEADS, logits_scaling=0.25),
}
"""By name; each call makes a config of its own, since a model writes into it how it attends."""


def tiny_model(name: str, implementation: str = "eager") -> PreTrainedModel:
    """The same weights each time; biases are not 0, as they would be at the start."""
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(
        FAMILIES[name](), attn_implementation=implementation, dtype=torch.float32
    )
    with torch.no_grad():
        for of, parameter in model.named_parameters():
            if of.endswith("bias"):
                parameter.normal_(std=0.5)
    return model
