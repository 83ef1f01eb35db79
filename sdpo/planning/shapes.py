"""How large is a language model? Its dimensions, and from them its parameters, without its weights.

Dense decoders with gated MLPs: Llama, Mistral, Qwen2, Qwen3, OLMo 2 and 3. ``config.json`` is read where there is a folder; the
hub's models that ``conf/model/`` names are known besides, from the config.json that their authors published.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from sdpo.config import Config
from sdpo.errors import UserError
from sdpo.preflight.models import PREFIX
from sdpo.run.cache import cache_folder


class QkNorm(Enum):
    """What queries and keys are normalised over, by a learned weight each."""

    none = "none"
    head = "head"
    """Each head's own dimensions (Qwen3)."""
    row = "row"
    """All heads' together (OLMo)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """A dense decoder."""

    source: str
    """Source of the numbers."""
    vocabulary: int
    """V"""
    hidden: int
    """H"""
    intermediate: int
    """I, of the gated MLP"""
    num_layers: int
    """L"""
    num_heads: int
    num_kv_heads: int
    head_size: int
    is_tied: bool
    """Whether the output embedding is the input's."""
    qk_norm: QkNorm
    has_qkv_bias: bool
    has_output_bias: bool
    """Whether attention's last product has a bias."""
    has_mlp_bias: bool
    max_tokens: int | None
    """Most tokens of prompt and response; None: it does not say."""

    @property
    def queries(self) -> int:
        """Width of all heads' queries."""
        return self.num_heads * self.head_size

    @property
    def keys(self) -> int:
        """Width of all key-value heads' keys, and of their values."""
        return self.num_kv_heads * self.head_size

    @property
    def layer_parameters(self) -> int:
        """Products H·queries + 2·H·keys + queries·H + 3·H·I, biases, and norms."""
        products = 2 * self.hidden * (self.queries + self.keys) + 3 * self.hidden * self.intermediate
        biases = (self.queries + 2 * self.keys) * self.has_qkv_bias + self.hidden * self.has_output_bias
        biases += (2 * self.intermediate + self.hidden) * self.has_mlp_bias
        normed = {QkNorm.none: 0, QkNorm.head: 2 * self.head_size, QkNorm.row: self.queries + self.keys}
        return products + biases + 2 * self.hidden + normed[self.qk_norm]

    @property
    def embedding_parameters(self) -> int:
        """V·H, the largest tensor of most models."""
        return self.vocabulary * self.hidden

    @property
    def num_parameters(self) -> int:
        """P: embeddings, once where they are tied, layers, and the last norm."""
        return (1 if self.is_tied else 2) * self.embedding_parameters + self.num_layers * self.layer_parameters + self.hidden

    def linear_sizes(self) -> dict[str, tuple[int, int]]:
        """In and out of a layer's products, by the names that adapters know."""
        h, q, k, i = self.hidden, self.queries, self.keys, self.intermediate
        return {
            "q_proj": (h, q), "k_proj": (h, k), "v_proj": (h, k), "o_proj": (q, h),
            "gate_proj": (h, i), "up_proj": (h, i), "down_proj": (i, h),
        }  # fmt: skip


def _published(
    source: str, v: int, h: int, i: int, layers: int, heads: int, kv: int, size: int, tied: bool, norm: QkNorm, most: int
) -> ModelShape:
    return ModelShape(
        source=source, vocabulary=v, hidden=h, intermediate=i, num_layers=layers, num_heads=heads, num_kv_heads=kv,
        head_size=size, is_tied=tied, qk_norm=norm, has_qkv_bias=False, has_output_bias=False, has_mlp_bias=False,
        max_tokens=most,
    )  # fmt: skip


PUBLISHED: Mapping[str, ModelShape] = {
    "Qwen/Qwen3-8B": _published(
        "config.json of Qwen/Qwen3-8B", 151936, 4096, 12288, 36, 32, 8, 128, False, QkNorm.head, 40960
    ),
    "Qwen/Qwen3-0.6B": _published(
        "config.json of Qwen/Qwen3-0.6B", 151936, 1024, 3072, 28, 16, 8, 128, True, QkNorm.head, 40960
    ),
    "allenai/Olmo-3-7B-Instruct": _published(
        "config.json of allenai/Olmo-3-7B-Instruct", 100278, 4096, 11008, 32, 32, 32, 128, False, QkNorm.row, 65536
    ),
    f"{PREFIX}smollm2_135m": _published(
        "config.json of HuggingFaceTB/SmolLM2-135M-Instruct", 49152, 576, 1536, 30, 9, 3, 64, True, QkNorm.none, 8192
    ),
}  # fmt: skip
"""By ``model.path``, as published on huggingface.co."""


def shape_of(path: str) -> ModelShape:
    """The shape of the model at ``model.path``. Raises UserError where it cannot be known without fetching it."""
    folder = cache_folder() / "models" / path.removeprefix(PREFIX) if path.startswith(PREFIX) else Path(path).expanduser()
    file = folder / "config.json"
    if file.is_file():
        return shape_in(file)
    if path in PUBLISHED:
        return PUBLISHED[path]
    raise UserError(
        f"sdpo plan must know the model's shape: model.path is a folder with a config.json (weights are not needed), or one of "
        f"{', '.join(PUBLISHED)}; got {path!r}, which is neither. Save the model's config.json in a folder and name that."
    )


def external_shape(config: Config) -> ModelShape | None:
    """The shape of the teacher that is another model; None where there is none. Raises UserError as ``shape_of`` does."""
    teacher = config.algorithm.taught_by
    path = None if teacher is None else teacher.other_model
    return None if path is None else shape_of(path)


_QK_NORMS = {
    "llama": QkNorm.none, "mistral": QkNorm.none, "qwen2": QkNorm.none, "qwen3": QkNorm.head, "olmo2": QkNorm.row,
    "olmo3": QkNorm.row,
}  # fmt: skip
"""By transformers' ``model_type``."""


def shape_in(file: Path) -> ModelShape:
    """The shape in a config.json. Raises UserError where it is none, or of a model that is not built of these parts."""
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} must be the JSON of a model's config; it cannot be read ({error}).") from error
    kind = found.get("model_type") if isinstance(found, dict) else None
    if not isinstance(kind, str) or kind not in _QK_NORMS:
        raise UserError(
            f"sdpo plan knows the shapes of the model types {', '.join(_QK_NORMS)}; {file} is of {kind!r}. Plan with a model of "
            "about its size."
        )
    size = {key: _size(found, key, file) for key in _SIZES}
    kv_heads = _size(found, "num_key_value_heads", file, size["num_attention_heads"])
    has_bias = found.get("attention_bias") is True
    return ModelShape(
        source=str(file),
        vocabulary=size["vocab_size"],
        hidden=size["hidden_size"],
        intermediate=size["intermediate_size"],
        num_layers=size["num_hidden_layers"],
        num_heads=size["num_attention_heads"],
        num_kv_heads=kv_heads,
        head_size=_size(found, "head_dim", file, max(1, size["hidden_size"] // size["num_attention_heads"])),
        is_tied=found.get("tie_word_embeddings") is True,
        qk_norm=_QK_NORMS[kind],
        has_qkv_bias=has_bias or kind == "qwen2",
        has_output_bias=has_bias,
        has_mlp_bias=found.get("mlp_bias") is True,
        max_tokens=_size(found, "max_position_embeddings", file, 0) or None,
    )


_SIZES = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
_LARGEST = 10**9


def _size(found: Mapping[str, object], key: str, file: Path, default: int | None = None) -> int:
    value = found.get(key)
    if value is None and default is not None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < _LARGEST:
        raise UserError(f"{key} in {file} must be a whole number above 0; got {str(value)[:80]!r}.")
    return value
