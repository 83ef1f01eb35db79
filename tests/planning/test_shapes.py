"""Parameters are counted as transformers has them, without weights, and a config.json that is none is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, Olmo3Config, Qwen2Config, Qwen3Config
from transformers.configuration_utils import PreTrainedConfig

from sdpo.errors import UserError
from sdpo.planning.shapes import PUBLISHED, shape_in, shape_of
from tests.tiny import write_tiny_model

SMALL = {
    "vocab_size": 320, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


def counted(config: PreTrainedConfig) -> int:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("tied", [True, False])
def test_the_tiny_model_has_as_many_parameters_as_its_shape_says(tied: bool, tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "model", tie_embeddings=tied)
    assert shape_of(str(folder)).num_parameters == counted(AutoConfig.from_pretrained(folder))


@pytest.mark.parametrize(
    "config",
    [
        Qwen3Config(**SMALL, head_dim=32),
        Qwen3Config(**SMALL, head_dim=16, attention_bias=True),
        Qwen2Config(**SMALL),
        Olmo3Config(**{**SMALL, "num_key_value_heads": 4}),
    ],
    ids=["qwen3", "qwen3-bias", "qwen2", "olmo3"],
)
def test_every_kind_of_model_is_counted_as_transformers_counts_it(config: PreTrainedConfig, tmp_path: Path) -> None:
    config.save_pretrained(tmp_path)
    assert shape_of(str(tmp_path)).num_parameters == counted(config)


def test_published_models_have_the_parameters_that_their_authors_name() -> None:
    """Qwen3-8B by hand: 2 x 151936 x 4096 of embeddings; a layer is 2 x 4096 x 5120 + 3 x 4096 x 12288 + 2 x 4096 + 2 x 128."""
    layer = 41_943_040 + 150_994_944 + 8_192 + 256
    assert PUBLISHED["Qwen/Qwen3-8B"].num_parameters == 1_244_659_712 + 36 * layer + 4_096 == 8_190_735_360
    assert PUBLISHED["Qwen/Qwen3-0.6B"].num_parameters == 596_049_920
    assert PUBLISHED["allenai/Olmo-3-7B-Instruct"].num_parameters == 7_298_011_136
    assert PUBLISHED["package:smollm2_135m"].num_parameters == 134_515_008


def test_every_model_of_conf_can_be_planned() -> None:
    for file in (Path(__file__).parent.parent.parent / "conf" / "model").glob("*.yaml"):
        path = next(line.split()[1] for line in file.read_text().splitlines() if line.startswith("path:"))
        assert path == "???" or path in PUBLISHED, file.name


def test_the_default_model_on_this_machine_is_the_one_in_the_table() -> None:
    """Where ``make setup`` or a run has fetched it, its own config.json is read."""
    here, table = shape_of("package:smollm2_135m"), PUBLISHED["package:smollm2_135m"]
    assert here.num_parameters == table.num_parameters
    assert (here.hidden, here.num_layers, here.keys, here.is_tied) == (576, 30, 192, True)


GOOD = {"model_type": "llama", **SMALL}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hidden_size": -64}, "hidden_size"),
        ({"vocab_size": "many"}, "vocab_size"),
        ({"num_hidden_layers": True}, "num_hidden_layers"),
        ({"intermediate_size": 10**30}, "intermediate_size"),
        ({"num_key_value_heads": 0}, "num_key_value_heads"),
        ({"hidden_size": None}, "hidden_size"),
        ({"model_type": "mamba"}, "mamba"),
        ({"model_type": ["llama"]}, "model types"),
        ({"model_type": "\x1b[2J"}, "model types"),
    ],
)
def test_a_config_of_no_such_model_is_refused_by_name(change: dict[str, object], said: str, tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**GOOD, **change}))
    with pytest.raises(UserError, match=said):
        shape_in(file)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[1, 2]", b"null", b'{"model_type": "llama"', b"[" * 100_000])
def test_what_is_no_config_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(UserError):
        shape_of(str(tmp_path))


def test_a_hub_model_that_nobody_knows_is_refused_with_the_remedy() -> None:
    with pytest.raises(UserError, match=r"Save the model's config\.json"):
        shape_of("somebody/unknown")
