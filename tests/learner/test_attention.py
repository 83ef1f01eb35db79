"""A packed forward is the plain one: hidden states and gradients of each row, as if it had been computed alone."""

from __future__ import annotations

import copy
import random
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GptOssConfig,
    LlamaConfig,
    Olmo3Config,
    PretrainedConfig,
    PreTrainedModel,
    Qwen3Config,
)

from sdpo.batches.packs import pack_rows
from sdpo.learner import attention
from sdpo.learner.attention import Layout, packed_attention
from sdpo.learner.forward import response_hidden, tokens_here
from sdpo.types import Pack, Packing, Segment
from tests.batches.packs import seen_from

VOCABULARY, WINDOW = 61, 6
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 1,
}
CONFIGS: dict[str, PretrainedConfig] = {
    "llama": LlamaConfig(**SIZES),
    "llama without grouped queries": LlamaConfig(**{**SIZES, "num_key_value_heads": 4}),
    "qwen3": Qwen3Config(**SIZES),
    "olmo3": Olmo3Config(**SIZES, sliding_window=WINDOW, layer_types=["sliding_attention", "full_attention"]),
    "gemma2": Gemma2Config(**SIZES, sliding_window=WINDOW, query_pre_attn_scalar=3, attn_logit_softcapping=5.0),
    "gpt-oss": GptOssConfig(**SIZES, sliding_window=WINDOW, num_local_experts=4, num_experts_per_tok=2),
}
TOLERANCE = 1e-5


def rows() -> list[tuple[int, ...]]:
    """Two families of siblings, one with a beginning within the beginning; a row alone; a row that another begins with."""
    draw = random.Random(0)

    def ids(num: int) -> tuple[int, ...]:
        return tuple(draw.randrange(2, VOCABULARY) for _ in range(num))

    template, question = ids(9), ids(11)
    return [
        template + question + ids(14),
        template + question + ids(3),
        template + question,
        ids(25),
        template + ids(20),
        ids(1),
    ]


ROWS = rows()
ASKED = [range(len(row) // 2, len(row)) for row in ROWS]
"""Like responses: the ends of the rows. Those of the third lie in what others begin with."""

attention.install()
every_model = pytest.mark.parametrize("name", list(CONFIGS))
bundled = pytest.mark.parametrize("bundle", [1, 40, 10_000], ids=["each alone", "some together", "all at once"])
"""How many tokens one call on a CPU serves."""
however_they_lie = pytest.mark.parametrize(
    ("packing", "bundle"),
    [(Packing.packed, 1), (Packing.packed, 40), (Packing.packed, 10_000), (Packing.joined, 40), (Packing.whole, 40)],
)


def model(config: PretrainedConfig, implementation: str) -> PreTrainedModel:
    """The same weights each time. A config of its own, since a model writes into it how it attends."""
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(copy.deepcopy(config), attn_implementation=implementation, dtype=torch.float32)


def one_by_one(plain: PreTrainedModel) -> Tensor:
    return torch.cat(
        [
            plain.base_model(input_ids=torch.tensor([row]), use_cache=False).last_hidden_state[0][list(asked)]
            for row, asked in zip(ROWS, ASKED, strict=True)
        ]
    )


def weights_of(hidden: Tensor) -> Tensor:
    """Of a sum that no symmetry makes 0, as that of normed states nearly is."""
    return torch.randn(hidden.shape, generator=torch.Generator().manual_seed(1))


def gradients(of: PreTrainedModel, hidden: Tensor) -> dict[str, Tensor]:
    (hidden * weights_of(hidden)).sum().backward()
    return {name: parameter.grad for name, parameter in of.named_parameters() if parameter.grad is not None}


def off_by(found: Tensor, expected: Tensor) -> float:
    """Relative to the size of the whole tensor."""
    return float((found - expected).detach().norm() / expected.detach().norm())


@every_model
@however_they_lie
@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "gradient checkpointing"])
def test_hidden_states_and_gradients_are_those_of_each_row_alone(
    name: str, packing: Packing, bundle: int, checkpointing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "BUNDLE_TOKENS", bundle)
    plain, packed = model(CONFIGS[name], "eager"), model(CONFIGS[name], attention.NAME)
    packed.train()
    if checkpointing:
        packed.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    assert packed.is_activation_checkpointing is checkpointing
    expected = one_by_one(plain)
    found, mine = response_hidden(packed, pack_rows(ROWS, ASKED, packing=packing))
    assert mine.tolist() == list(range(len(expected)))
    assert off_by(found, expected) < TOLERANCE
    by_row, by_pack = gradients(plain, expected), gradients(packed, found)
    assert by_pack.keys() == by_row.keys()
    assert len(by_pack) > 10
    assert {parameter: off_by(by_pack[parameter], by_row[parameter]) for parameter in by_row} == pytest.approx(
        dict.fromkeys(by_row, 0.0), abs=TOLERANCE
    )


def test_the_window_of_the_test_model_is_shorter_than_its_rows_and_matters() -> None:
    """Else the test above would not see it: without the window the hidden states differ."""
    windowed = CONFIGS["olmo3"]
    endless = Olmo3Config(**SIZES, sliding_window=100, layer_types=["sliding_attention", "full_attention"])
    pack = pack_rows(ROWS, ASKED)
    with torch.no_grad():
        a, b = (response_hidden(model(config, attention.NAME), pack)[0] for config in (windowed, endless))
    assert off_by(a, b) > 0.01


@every_model
@bundled
def test_a_row_does_not_feel_what_stands_beside_it(name: str, bundle: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the last bit: what is masked counts 0, not nearly 0."""
    monkeypatch.setattr(attention, "BUNDLE_TOKENS", bundle)
    packed = model(CONFIGS[name], attention.NAME)
    with torch.no_grad():
        beside_one, beside_other = (
            response_hidden(packed, pack_rows([others, ROWS[3]], [[], ASKED[3]]))[0] for others in (ROWS[0], ROWS[0][::-1])
        )
    assert torch.equal(beside_one, beside_other)


def test_the_layout_is_the_packs_also_where_the_model_builds_masks() -> None:
    """A mask over the whole pack, as transformers would build it, is not made: a pack of T tokens would cost T²."""
    made = [tensor for tensor in _masks_seen(model(CONFIGS["olmo3"], attention.NAME)) if tensor is not None]
    assert made == []


def _masks_seen(packed: PreTrainedModel) -> list[Tensor | None]:
    seen: list[Tensor | None] = []
    handles = [
        layer.register_forward_pre_hook(lambda _, args, kwargs: seen.append(kwargs["attention_mask"]), with_kwargs=True)
        for layer in packed.base_model.layers
    ]
    response_hidden(packed, pack_rows(ROWS, ASKED))
    for handle in handles:
        handle.remove()
    assert len(seen) == 2
    return seen


def test_the_plan_of_the_one_call_on_a_gpu_says_who_sees_whom() -> None:
    """The kernel aligns the last query with the last key, so a segment's keys are what its last token sees."""
    pack = pack_rows(ROWS, ASKED)
    keys, query_starts, key_starts = attention._plan(pack.segments, torch.device("cpu"))
    assert query_starts.tolist() == [0, *(segment.last for segment in pack.segments)]
    assert [keys[first:last].tolist() for first, last in pairwise(key_starts.tolist())] == [
        seen_from(pack, segment.last - 1) for segment in pack.segments
    ]
    assert {query_starts.dtype, key_starts.dtype} == {torch.int32}


def test_what_one_layer_works_out_the_next_one_uses() -> None:
    calls: list[str] = []
    layout = Layout(segments=(Segment(first=0, last=3, before=()),))
    found = [layout.once("plan", lambda: calls.append("worked") or len(calls)) for _ in range(3)]
    assert (found, calls) == ([1, 1, 1], ["worked"])


def test_all_of_a_packs_tokens_are_here_where_nobody_shares_it() -> None:
    pack = pack_rows(ROWS, ASKED)
    assert tokens_here(pack, None).tolist() == list(range(sum(map(len, ASKED))))


def test_a_pack_that_predicts_nothing_gives_no_hidden_states() -> None:
    hidden, mine = response_hidden(model(CONFIGS["llama"], attention.NAME), pack_rows([(1,)], [[]]))
    assert (hidden.shape, mine.shape) == ((0, 32), (0,))


# What it does not know it refuses, rather than leave it out.


class SomeAttention(nn.Module):
    """Whose name the refusal must tell."""


def attend(**options: object) -> Tensor:
    query, key, value = torch.randn(3, 1, 2, 4, 8, generator=torch.Generator().manual_seed(0))
    layout = Layout(segments=(Segment(first=0, last=4, before=()),))
    return packed_attention(SomeAttention(), query, key, value, None, layout=layout, **options)[0]


@pytest.mark.parametrize("option", ["position_bias", "sinks", "block_indices"])
def test_what_would_change_the_scores_and_is_not_known_is_refused_with_the_name_of_the_layer(option: str) -> None:
    with pytest.raises(ValueError, match=f"knows no {option}; SomeAttention asks for it"):
        attend(**{option: torch.zeros(2)})


def test_models_that_ask_for_nothing_special_may_say_so() -> None:
    assert attend(softcap=None, s_aux=None, position_bias=None, dropout=0.0, is_causal=True).shape == (1, 4, 2, 8)


def test_scores_are_computed_in_chunks_of_queries_that_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """To the rounding of another split; one query a chunk is the least."""
    whole = attend(softcap=0.5, s_aux=torch.ones(2))
    monkeypatch.setattr(attention, "SCORES_BYTES", 1)
    assert off_by(attend(softcap=0.5, s_aux=torch.ones(2)), whole) < TOLERANCE
    assert off_by(attend(s_aux=torch.ones(2)), whole) > 0.01
    assert off_by(attend(softcap=0.5), whole) > 0.01


def test_a_model_without_capping_is_not_taken_for_one_that_has_it() -> None:
    config = Gemma2Config(**SIZES, sliding_window=WINDOW, query_pre_attn_scalar=3, attn_logit_softcapping=None)
    pack: Pack = pack_rows(ROWS, ASKED)
    with torch.no_grad():
        found = response_hidden(model(config, attention.NAME), pack)[0]
        assert off_by(found, one_by_one(model(config, "eager"))) < TOLERANCE
