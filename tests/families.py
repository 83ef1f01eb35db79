"""Tiny random models of the families that the learner is proved on, with biases, scales and caps that matter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, PretrainedConfig, PreTrainedModel

from tests.tiny import write_tiny_model

VOCABULARY = 61
Sizes = dict[str, Any]
SIZES: Sizes = {
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


FAMILIES: dict[str, Callable[[Sizes, Sizes], PretrainedConfig]] = {
    "llama": lambda s, h: config("llama", **h),
    "llama, tied": lambda s, h: config("llama", **h, tie_word_embeddings=True),
    "mistral": lambda s, h: config("mistral", **h, sliding_window=6),
    "qwen2": lambda s, h: config("qwen2", **s),
    "qwen3": lambda s, h: config("qwen3", **h),
    "qwen3_moe": lambda s, h: config(
        "qwen3_moe", **h, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16, decoder_sparse_step=1
    ),
    "olmo3": lambda s, h: config("olmo3", **s, sliding_window=6, layer_types=_BOTH),
    "smollm3": lambda s, h: config("smollm3", **s, no_rope_layers=[1, 0]),
    "gemma2": lambda s, h: config(
        "gemma2", **h, final_logit_softcapping=3.0, attn_logit_softcapping=None, sliding_window=6, layer_types=_BOTH
    ),
    "gemma3_text": lambda s, h: config("gemma3_text", **h, final_logit_softcapping=3.0, sliding_window=6, layer_types=_BOTH),
    "gemma3": lambda s, h: config(
        "gemma3",
        text_config={**h, "sliding_window": 6, "layer_types": _BOTH},
        vision_config={**VISION, "model_type": "siglip_vision_model"},
        image_token_index=50,
        boi_token_index=51,
        eoi_token_index=52,
    ),
    "phi": lambda s, h: config("phi", **s, partial_rotary_factor=0.5),
    "phi3": lambda s, h: config("phi3", **s),
    "granite": lambda s, h: config("granite", **s, logits_scaling=3.0, embedding_multiplier=2.0, attention_multiplier=0.4),
    "granitemoe": lambda s, h: config("granitemoe", **s, **_FEW_EXPERTS, logits_scaling=3.0),
    "cohere": lambda s, h: config("cohere", **s, logit_scale=0.25),
    "cohere2": lambda s, h: config("cohere2", **h, logit_scale=0.25, sliding_window=6, layer_types=_BOTH),
    "gpt_neox": lambda s, h: config("gpt_neox", **s),
    "nanochat": lambda s, h: config("nanochat", **s, final_logit_softcapping=3.0),
    "minicpm3": lambda s, h: config(
        "minicpm3",
        **{**s, "num_key_value_heads": 4},
        dim_model_base=8,
        q_lora_rank=16,
        kv_lora_rank=8,
        qk_nope_head_dim=8,
        qk_rope_head_dim=8,
        v_head_dim=8,
    ),
    "hyperclovax": lambda s, h: config("hyperclovax", **h, logits_scaling=0.25),
}
"""By name, of the sizes without and with the size of a head. Each call makes a config of its own: a model writes into it."""


def tiny_model(name: str, implementation: str = "eager") -> PreTrainedModel:
    """The same weights each time; biases are not 0, as they would be at the start."""
    return _model(FAMILIES[name](SIZES, HEADS), implementation)


def write_family(folder: Path, name: str) -> Path:
    """A model of the family in the sizes and with the tokenizer of ``tests.tiny``, as transformers would save it."""
    write_tiny_model(folder)
    tiny = LlamaConfig.from_pretrained(folder)
    kept = {key: getattr(tiny, key) for key in (*SIZES, "dtype")}
    # Phi has no grouped queries in vLLM.
    kept = {**kept, "num_key_value_heads": 2, "initializer_range": 0.1}
    _model(FAMILIES[name](kept, {**kept, "head_dim": 32}), "eager").save_pretrained(folder)
    return folder


def _model(of: PretrainedConfig, implementation: str) -> PreTrainedModel:
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(of, attn_implementation=implementation, dtype=torch.float32)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.5)
    return model
