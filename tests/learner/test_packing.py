"""Rows lie as the model needs them, end to end or side by side; and the update is the same."""

from __future__ import annotations

import copy
import importlib
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import (
    AutoModelForCausalLM,
    BambaConfig,
    BloomConfig,
    FalconH1Config,
    Gemma2Config,
    GptOssConfig,
    JambaConfig,
    Lfm2Config,
    OlmoHybridConfig,
    PretrainedConfig,
    PreTrainedModel,
    Qwen3_5TextConfig,
    Qwen3Config,
    Qwen3NextConfig,
)

from sdpo.batches.packs import pack_rows, why_it_takes_longer
from sdpo.batches.updates import pack
from sdpo.config import AlgorithmConfig, BatchConfig, Blend, Dtype, FrozenTeacher, LearnerConfig, PackingChoice, SDPOConfig
from sdpo.errors import UserError
from sdpo.learner import attention, packing
from sdpo.learner.forward import response_hidden
from sdpo.learner.model import load
from sdpo.learner.packing import choose_packing, fault_of, leak, movement
from sdpo.types import Packing, Ranks, Sample, Update
from tests.learner.launch import launch
from tests.learner.ranks import Leg, Setup, courses, gradients

VOCABULARY = 61
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "initializer_range": 0.1,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 1,
}
DELTA = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_conv_kernel_dim": 4,
    "layer_types": ["linear_attention", "full_attention"],
}
EXPERTS = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
}
MAMBA = {
    "mamba_d_state": 8,
    "mamba_n_heads": 8,
    "mamba_d_head": 8,
    "mamba_n_groups": 1,
    "mamba_d_conv": 4,
    "mamba_chunk_size": 16,
}
HYBRIDS: dict[str, PretrainedConfig] = {
    "qwen3-next": Qwen3NextConfig(**SIZES, **DELTA, **EXPERTS),
    "qwen3.5": Qwen3_5TextConfig(**SIZES, **DELTA),
    "olmo hybrid": OlmoHybridConfig(**SIZES, **DELTA),
    "lfm2": Lfm2Config(**SIZES, layer_types=["conv", "full_attention"]),
    "falcon-h1": FalconH1Config(**SIZES, **MAMBA, mamba_d_ssm=64),
    "bamba": BambaConfig(**SIZES, **MAMBA, attn_layer_indices=[1]),
    "jamba": JambaConfig(
        **SIZES,
        attn_layer_period=2,
        attn_layer_offset=1,
        num_experts=2,
        mamba_d_state=8,
        mamba_dt_rank=4,
        use_mamba_kernels=False,
    ),
}
PLAIN: dict[str, PretrainedConfig] = {
    "qwen3": Qwen3Config(**SIZES),
    "gemma 2": Gemma2Config(
        **SIZES, sliding_window=6, query_pre_attn_scalar=3, attn_logit_softcapping=5.0, final_logit_softcapping=None
    ),
    "gpt-oss": GptOssConfig(**SIZES, sliding_window=6, num_local_experts=4, num_experts_per_tok=2),
}
SCORED_PLAINLY = ("qwen3-next", "qwen3.5", "olmo hybrid", "lfm2", "gemma 2", "gpt-oss", "qwen3")
"""Families whose logits are the hidden states times the head."""
EVERY = HYBRIDS | PLAIN
attention.install()


def model(config: PretrainedConfig, implementation: str = attention.NAME) -> PreTrainedModel:
    """The same weights each time."""
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(copy.deepcopy(config), attn_implementation=implementation, dtype=torch.float32)


def rows() -> list[tuple[int, ...]]:
    draw = random.Random(0)

    def ids(num: int) -> tuple[int, ...]:
        return tuple(draw.randrange(2, VOCABULARY) for _ in range(num))

    prompt = ids(12)
    return [prompt + ids(14), prompt + ids(3), ids(25), ids(1), ids(70)]


ROWS = rows()
ASKED = [range(len(row) // 2, len(row)) for row in ROWS]


def on(made: PreTrainedModel) -> packing.Run:
    return lambda ask: ask(made)


def off_by(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@torch.no_grad()
def logprobs_row_by_row(plain: PreTrainedModel) -> Tensor:
    """As transformers says them: one row a forward, its own attention, its own logits."""
    found = [plain(input_ids=torch.tensor([row])).logits[0].log_softmax(-1) for row in ROWS]
    return torch.cat([of_row[list(asked)] for of_row, asked in zip(found, ASKED, strict=True)])


@pytest.mark.parametrize("name", list(EVERY))
def test_every_family_is_scored_as_transformers_does_it_alone(name: str) -> None:
    """Hybrid models were refused, and so were sinks and soft-capped scores."""
    ours, plain = model(EVERY[name]), model(EVERY[name], "eager")
    chosen = choose_packing({name: on(ours)}, LearnerConfig(dtype=Dtype.float32))
    assert chosen is (Packing.whole if name in HYBRIDS else Packing.packed)
    with torch.no_grad():
        hidden, _ = response_hidden(ours, pack_rows(ROWS, ASKED, packing=chosen))
        alone = [plain.base_model(input_ids=torch.tensor([row]), use_cache=False).last_hidden_state[0] for row in ROWS]
    expected = torch.cat([of_row[list(asked)] for of_row, asked in zip(alone, ASKED, strict=True)])
    assert off_by(hidden, expected) < 1e-5
    if name in SCORED_PLAINLY:
        found = (hidden @ ours.get_output_embeddings().weight.detach().T).log_softmax(-1)
        assert float((found - logprobs_row_by_row(plain)).abs().max()) < 1e-5


@pytest.mark.parametrize("name", list(HYBRIDS))
def test_packed_a_hybrid_model_would_learn_from_other_rows(name: str) -> None:
    """The reason for the choice: what a row says depends on what happens to lie before it in the pack."""
    ours = model(HYBRIDS[name])
    assert leak(on(ours), Packing.packed) > 0.01
    assert movement(on(ours), Packing.packed) > 0.01
    with torch.no_grad():
        packed, whole = (response_hidden(ours, pack_rows(ROWS, ASKED, packing=way))[0] for way in (Packing.packed, Packing.whole))
    assert off_by(packed, whole) > 0.01


@pytest.mark.parametrize("dtype", list(Dtype), ids=lambda dtype: dtype.value)
@pytest.mark.parametrize("name", list(PLAIN))
def test_where_attention_alone_mixes_tokens_nothing_leaks_at_all(name: str, dtype: Dtype) -> None:
    """A bf16 model was refused where it moved by 1 %, which rounding does. A leak is now told from rounding, not by its size."""
    ours = model(PLAIN[name]).to(getattr(torch, dtype.value))
    for way in Packing:
        assert leak(on(ours), way) == 0.0
        assert fault_of(on(ours), way, dtype) is None


def test_a_leak_is_found_however_small_it_is() -> None:
    """The hidden states of this model, fresh as transformers makes it, move by less in a pack than rounding moves others."""
    config = Lfm2Config(
        **{**SIZES, "initializer_range": 0.02, "num_hidden_layers": 4}, layer_types=["full_attention"] * 3 + ["conv"]
    )
    ours = model(config).to(torch.bfloat16)
    assert 0.0 < movement(on(ours), Packing.packed) < 0.01
    assert choose_packing({"lfm2": on(ours)}, LearnerConfig(dtype=Dtype.bfloat16)) is Packing.whole


def test_distances_that_are_counted_through_the_pack_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """They leak nothing of the other row but its length."""
    ours = model(PLAIN["qwen3"])
    rotary = ours.base_model.rotary_emb
    original = rotary.forward
    monkeypatch.setattr(rotary, "forward", lambda hidden, positions: original(hidden, torch.arange(positions.shape[1])[None]))
    assert leak(on(ours), Packing.packed) == 0.0
    assert "move by" in str(fault_of(on(ours), Packing.packed, Dtype.bfloat16))
    assert choose_packing({"odd": on(ours)}, LearnerConfig(dtype=Dtype.bfloat16)) is Packing.whole


def test_a_model_that_looks_ahead_is_refused_however_rows_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = model(HYBRIDS["lfm2"])
    module = importlib.import_module(type(ours).__module__)
    plainly = module.causal_conv1d_fn
    monkeypatch.setattr(module, "causal_conv1d_fn", lambda states, *rest, **more: plainly(states.flip(2), *rest, **more).flip(2))
    with pytest.raises(UserError, match=r"packing=packed a row depends .*packing=whole a row depends .* Choose another model"):
        choose_packing({"lfm2": on(ours)}, LearnerConfig(dtype=Dtype.float32))


def test_an_external_teacher_is_tried_too() -> None:
    """It scores packs like the policy. A hybrid one, over a policy that is none, scored packs that leak."""
    policy, teacher = model(PLAIN["qwen3"]), model(HYBRIDS["lfm2"])
    found = choose_packing({"policy": on(policy), "teacher": on(teacher)}, LearnerConfig(dtype=Dtype.float32))
    assert found is Packing.whole


def test_what_was_asked_for_is_tried_and_nothing_else() -> None:
    ours, plain = model(HYBRIDS["lfm2"]), model(PLAIN["qwen3"])
    with pytest.raises(
        UserError, match=r"packing=packed a row depends on its neighbours \(.*%.*in lfm2. Set learner.packing=auto"
    ):
        choose_packing({"lfm2": on(ours)}, LearnerConfig(dtype=Dtype.float32, packing=PackingChoice.packed))
    by_hand = LearnerConfig(dtype=Dtype.float32, packing=PackingChoice.whole)
    assert choose_packing({"qwen3": on(plain)}, by_hand) is Packing.whole


def test_a_team_of_ranks_cannot_share_rows_of_a_hybrid_model() -> None:
    config = LearnerConfig(dtype=Dtype.float32, num_ranks=2, sequence_parallel=2)
    with pytest.raises(UserError, match=r"Set learner.sequence_parallel=1: layers that mix neighbouring tokens need rows whole"):
        choose_packing({"lfm2": on(model(HYBRIDS["lfm2"]))}, config)
    with pytest.raises(ValueError, match=r"sequence_parallel above 1 needs learner.packing=packed .* got packing=whole"):
        LearnerConfig(num_ranks=2, sequence_parallel=2, packing=PackingChoice.whole)


def test_alibi_is_refused_since_it_goes_past_the_attention_that_is_replaced(tmp_path: Path) -> None:
    config = BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4, pad_token_id=0)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="attention interface"):
        load(str(tmp_path), LearnerConfig(dtype=Dtype.float32), {})


# Borders: transformers hands them to kernels that run on GPUs alone. Others stand in for these, and take what they take.


def convolved(states: Tensor, weight: Tensor, bias: Tensor | None, seq_idx: Tensor, **ignored: object) -> Tensor:
    """As causal-conv1d does it: [B, H, T] within each stretch of one ``seq_idx``, int32 [B, T]."""
    assert (seq_idx.dtype, seq_idx.shape) == (torch.int32, (states.shape[0], states.shape[2]))
    parts = states.split(seq_idx[0].unique_consecutive(return_counts=True)[1].tolist(), dim=2)
    width = weight.shape[-1]
    return torch.cat(
        [
            functional.conv1d(part, weight[:, None], bias, padding=width - 1, groups=len(weight))[..., : part.shape[2]]
            for part in parts
        ],
        dim=2,
    )


def delta_rule_of(plainly: Callable[..., tuple[Tensor, None]]) -> Callable[..., tuple[Tensor, None]]:
    def stretchwise(
        query: Tensor, key: Tensor, value: Tensor, *, g: Tensor, beta: Tensor, cu_seqlens: Tensor, **ignored: object
    ) -> tuple[Tensor, None]:
        """As flash-linear-attention does it: within each stretch between ``cu_seqlens``."""
        lengths = cu_seqlens.diff().tolist()
        parts = zip(*(part.split(lengths, dim=1) for part in (query, key, value, g, beta)), strict=True)
        outs = [plainly(q, k, v, g=decay, beta=rate, use_qk_l2norm_in_kernel=True)[0] for q, k, v, decay, rate in parts]
        return torch.cat(outs, dim=1), None

    return stretchwise


@pytest.mark.parametrize("name", ["lfm2", "qwen3-next"])
def test_where_kernels_know_borders_rows_lie_end_to_end(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, plain = model(HYBRIDS[name]), model(HYBRIDS[name], "eager")
    expected = logprobs_row_by_row(plain)
    module = importlib.import_module(type(ours).__module__)

    def activated(states: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None = None, **more: Tensor) -> Tensor:
        out = convolved(states, weight, bias, **more)
        return out if activation is None else functional.silu(out)

    monkeypatch.setattr(module, "causal_conv1d_fn", activated)
    if name == "qwen3-next":
        monkeypatch.setattr(module, "torch_chunk_gated_delta_rule", delta_rule_of(module.torch_chunk_gated_delta_rule))
    assert fault_of(on(ours), Packing.joined, Dtype.float32) is None
    with torch.no_grad():
        hidden, _ = response_hidden(ours, pack_rows(ROWS, ASKED, packing=Packing.joined))
    found = (hidden @ ours.get_output_embeddings().weight.detach().T).log_softmax(-1)
    assert float((found - expected).abs().max()) < 1e-5


def test_where_there_is_no_such_kernel_joined_rows_are_refused_by_name() -> None:
    by_hand = LearnerConfig(dtype=Dtype.float32, packing=PackingChoice.joined)
    with pytest.raises(
        UserError, match=r"packing=joined borders are refused .*causal_conv1d.* in lfm2. Set learner.packing=auto"
    ):
        choose_packing({"lfm2": on(model(HYBRIDS["lfm2"]))}, by_hand)


def test_the_user_is_told_what_costs_time() -> None:
    assert why_it_takes_longer(Packing.packed) is None
    assert "side by side, padded (learner.packing=whole)" in str(why_it_takes_longer(Packing.whole))
    assert "once a row, and an update takes longer" in str(why_it_takes_longer(Packing.joined))


# The whole learner, on the hybrid models.

BLEND = SDPOConfig(routing=Blend(policy_gradient_share=0.4), teacher=FrozenTeacher())


def samples() -> tuple[Sample, ...]:
    draw = random.Random(1)

    def ids(num: int) -> tuple[int, ...]:
        return tuple(draw.randrange(2, VOCABULARY) for _ in range(num))

    prompt = ids(15)
    return tuple(
        Sample(
            prompt_ids=prompt,
            teacher_prompt_ids=None if row == 3 else (*prompt, *ids(4 + 3 * row)),
            response_ids=ids(5 + 6 * row),
            loss_mask=(True,) * (5 + 6 * row),
            sampled_logprobs=(-4.0,) * (5 + 6 * row),
            advantage=(0.5, -0.75, 1.0, -1.0)[row],
            distillation_weight=0.6,
            policy_gradient_weight=0.4,
            attempt_index=row,
        )
        for row in range(4)
    )


def update_of(algorithm: AlgorithmConfig, *, budget: int, num_ranks: int = 1) -> Update:
    ranks = Ranks(num=num_ranks, pairs_per_token=200.0, packing=Packing.whole)
    (update,) = pack(samples(), BatchConfig(num_tasks=1, group_size=4, micro_batch_tokens=budget), ranks, algorithm)
    return update


def saved(name: str, folder: Path) -> Path:
    model(HYBRIDS[name], "eager").save_pretrained(folder)
    return folder


@pytest.mark.integration
@pytest.mark.parametrize("name", ["lfm2", pytest.param("qwen3-next", marks=pytest.mark.full)])
def test_a_hybrid_model_learns_and_beside_others_a_row_has_the_gradient_that_it_has_alone(name: str, tmp_path: Path) -> None:
    setup = Setup(model=saved(name, tmp_path), algorithm=BLEND)
    together, alone = (update_of(BLEND, budget=budget) for budget in (100_000, 1))
    assert max(one.student.num_rows for one in together.micro_batches[0]) > 1
    assert {one.student.num_rows for one in alone.micro_batches[0]} == {1}
    legs = [
        Leg(setup=setup, steps=[], next=together),
        Leg(setup=setup, steps=[], next=alone),
        Leg(setup=setup, steps=[[together], [together]]),
    ]
    (of_together, of_alone, learned) = launch(1, courses, legs)[0]
    first, second = of_together.next, of_alone.next
    assert first is not None
    assert second is not None
    assert first.loss == pytest.approx(second.loss, rel=1e-5)
    assert off_by(first.vector, second.vector) < 2e-6
    assert learned.num_updates == 2
    assert learned.metrics[1]["loss"] < learned.metrics[0]["loss"]


@pytest.mark.integration
def test_two_ranks_that_share_the_parameters_of_a_hybrid_model_have_the_gradient_of_one(tmp_path: Path) -> None:
    """Under ZeRO 3 the trial of how rows must lie goes through collectives, and every rank runs as many forwards."""
    setup = Setup(model=saved("lfm2", tmp_path), algorithm=BLEND)
    (one,) = launch(1, gradients, [(setup, [update_of(BLEND, budget=100_000)])])
    two = launch(2, gradients, [(setup.with_(zero_stage=3), [update_of(BLEND, budget=100_000, num_ranks=2)])])
    assert off_by(two[0][0][0].vector, one[0][0].vector) < 2e-6
