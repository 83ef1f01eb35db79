"""The memory of a learner rank and of an engine: values by hand, what ZeRO splits, and what must never go the wrong way."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, Olmo3Config, PreTrainedModel, Qwen3Config
from transformers.models.llama.modeling_llama import LlamaForCausalLM
from transformers.models.olmo3.modeling_olmo3 import Olmo3ForCausalLM
from transformers.models.qwen3.modeling_qwen3 import Qwen3ForCausalLM

from sdpo.batches.packs import pack_rows
from sdpo.learner import attention
from sdpo.learner.forward import response_hidden
from sdpo.planning.engine_memory import engine_memory, kv_token_bytes
from sdpo.planning.gpu_plan import rank_terms
from sdpo.planning.learner_pass import layer_bytes, pass_tokens, passing
from sdpo.planning.learner_state import MAX_LIVE, REDUCE_BUCKET, adapter_parameters, state
from sdpo.planning.shapes import PUBLISHED, ModelShape, QkNorm
from sdpo.planning.terms import GIB, total
from tests.planning.plans import PAPER, QWEN_8B, config_of, learning, sizes

P = 8_190_735_360


def test_zero_3_over_four_ranks_by_hand() -> None:
    """Of 8.19 G parameters in bf16 a rank has 2P/4 of weights, 4P/4 of gradients, 12P/4 of masters and moments, 4P/4 of average,
    2P/4 of the teacher's copy; besides 2 GB of parameters at once and a bucket of 5e8 fp32 numbers."""
    assert sizes(state(learning("model=qwen3_8b", "learner=zero3"))) == {
        "weights": P / 2, "parameters gathered": 2.0 * MAX_LIVE, "gradients, summed": P, "master weights and moments": 3 * P,
        "gradient bucket": 4.0 * REDUCE_BUCKET, "teacher's average (fp32)": P, "teacher's weights": P / 2,
    }  # fmt: skip


def test_zero_1_in_bf16_sums_whole_gradients_in_fp32_by_hand() -> None:
    found = sizes(state(learning("model=qwen3_8b", "learner.num_ranks=4", "learner.zero_stage=1")))
    assert found == {
        "weights": 2.0 * P, "gradients, summed": 4.0 * P, "gradients": 2.0 * P, "master weights and moments": 3.0 * P,
        "gradient bucket": 4.0 * REDUCE_BUCKET, "teacher's average (fp32)": P, "teacher's weights": 2.0 * P,
    }  # fmt: skip


def test_without_zero_parameters_are_their_own_masters() -> None:
    found = sizes(state(learning("algorithm=grpo", "learner.dtype=float32", "learner.zero_stage=0")))
    assert found == {"weights": 4.0 * P, "gradients": 4.0 * P, "moments": 8.0 * P}


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_what_zero_splits_adds_up_to_the_same_on_any_number_of_ranks(stage: int) -> None:
    """Master weights, moments and average everywhere; gradients from stage 2 on, parameters at 3."""
    split = {1: ("master weights and moments", "teacher's average (fp32)")}
    split[1] = (*split[1], "gradient of the step")
    split[2] = (*split[1], "gradients, summed")
    split[3] = (*split[2], "weights", "teacher's weights")
    whole, parts = (
        sizes(state(learning("model=qwen3_8b", f"learner.num_ranks={ranks}", f"learner.zero_stage={stage}"))) for ranks in (1, 8)
    )
    for name in set(whole) - {"gradient bucket"}:
        assert parts[name] * (8 if name in split[stage] else 1) == pytest.approx(whole[name])


def test_on_one_rank_stages_1_and_2_hold_the_same_states() -> None:
    one, two = (sizes(state(learning(f"learner.zero_stage={stage}"))) for stage in (1, 2))
    for name in ("weights", "master weights and moments", "gradients, summed", "teacher's average (fp32)", "teacher's weights"):
        assert one[name] == two[name]


def test_adapters_by_hand_and_the_base_is_the_frozen_teacher() -> None:
    """Rank 32 on all seven products of a layer: 32 x (8192 + 2 x 5120 + 8192 + 3 x 16384)."""
    config = config_of("model=qwen3_8b", "learner=lora")
    assert adapter_parameters(QWEN_8B, config.learner.lora) == 36 * 32 * (8192 + 2 * 5120 + 8192 + 3 * 16384)
    some = config_of("model=qwen3_8b", "learner=lora", "learner.lora.target_modules=[q_proj,v_proj]")
    assert adapter_parameters(QWEN_8B, some.learner.lora) == 36 * 32 * (8192 + 5120)
    words = ("model=qwen3_8b", "learner=lora", "algorithm.teacher.kind=frozen", "algorithm.reference_kl=0.1")
    frozen = sizes(state(learning(*words)))
    assert not any("teacher" in name or "reference" in name for name in frozen)


@pytest.mark.parametrize(
    ("kind", "copies", "average"), [("live", 0, False), ("frozen", 1, False), ("trust_region", 1, False), ("ema", 1, True)]
)
def test_each_teacher_takes_what_the_table_of_docs_learner_says(kind: str, copies: int, average: bool) -> None:
    found = sizes(state(learning("model=qwen3_8b", f"algorithm.teacher.kind={kind}")))
    assert found.get("teacher's weights", 0.0) == copies * 2.0 * P
    assert ("teacher's average (fp32)" in found) is average


def test_what_is_offloaded_is_the_hosts_and_nothing_is_lost() -> None:
    here = state(learning("model=qwen3_8b", "learner=zero3"))
    away = state(learning("model=qwen3_8b", "learner=zero3_offload", "algorithm.teacher.offload=true"))
    moved = total(away, on_host=True)
    assert moved == pytest.approx(3 * P + P + P)
    assert total(here) - total(away) == pytest.approx(moved)


@cache
def kept_bytes(kind: str, dtype: torch.dtype, num_layers: int, num_tokens: int) -> int:
    """What autograd keeps of a pack of one row, each storage once, parameters aside."""
    makers: dict[str, tuple[type[PreTrainedModel], type]] = {
        "llama": (LlamaForCausalLM, LlamaConfig), "qwen3": (Qwen3ForCausalLM, Qwen3Config),
        "olmo3": (Olmo3ForCausalLM, Olmo3Config),
    }  # fmt: skip
    attention.install()
    model_class, config_class = makers[kind]
    config = config_class(
        vocab_size=100, hidden_size=64, intermediate_size=160, num_hidden_layers=num_layers, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, attn_implementation=attention.NAME, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    model = model_class(config).to(dtype)
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    alive: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            alive[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        response_hidden(model, pack_rows([list(range(2, 2 + num_tokens))], [[num_tokens - 1]]))
    return sum(tensor.untyped_storage().nbytes() for tensor in alive.values())


@pytest.mark.parametrize(("dtype", "num_bytes"), [(torch.float32, 4), (torch.bfloat16, 2)])
@pytest.mark.parametrize(("kind", "norm"), [("llama", QkNorm.none), ("qwen3", QkNorm.head), ("olmo3", QkNorm.row)])
def test_a_layers_activations_are_what_autograd_keeps_of_the_real_one(
    kind: str, norm: QkNorm, dtype: torch.dtype, num_bytes: int
) -> None:
    """A CPU's attention keeps its output twice and its log-sum-exps besides: some 5 % that a GPU's does not."""
    shape = ModelShape(
        source="", vocabulary=100, hidden=64, intermediate=160, num_layers=4, num_heads=4, num_kv_heads=2, head_size=16,
        is_tied=False, qk_norm=norm, has_qkv_bias=False, has_output_bias=False, has_mlp_bias=False, max_tokens=None,
    )  # fmt: skip
    real = (kept_bytes(kind, dtype, 4, 96) - kept_bytes(kind, dtype, 2, 96)) / 2 / 96
    assert 0.92 * real <= layer_bytes(shape, num_bytes) <= real


def test_the_loss_never_counts_the_logits_of_all_tokens() -> None:
    config = config_of(*PAPER)
    found = sizes(passing(learning(*PAPER), config))
    assert found["logits of a chunk"] <= 2 * config.learner.logits_chunk_mib * 2**20
    assert found["gradient of the head"] == pytest.approx(4 * 151_936 * 4096, rel=0.02)
    whole = sizes(passing(learning(*PAPER, "algorithm.support.kind=full"), config_of(*PAPER, "algorithm.support.kind=full")))
    assert whole["logits of a chunk"] == pytest.approx(1.5 * found["logits of a chunk"])
    assert "logits of the support" not in whole
    adapters = sizes(passing(learning(*PAPER, "learner=lora"), config_of(*PAPER, "learner=lora")))
    assert "gradient of the head" not in adapters


def test_recomputed_activations_by_hand() -> None:
    """12,288 of the student's tokens: the input of 36 layers, 2 B x 4096 each, and one layer whole."""
    words = (*PAPER, "learner.gradient_checkpointing=true")
    found = sizes(passing(learning(*words), config_of(*words)))
    assert found["activations"] == 12_288 * (36 * 2 * 4096 + layer_bytes(QWEN_8B, 2))


def test_a_row_longer_than_the_budget_goes_alone_and_a_team_shares_it() -> None:
    words = (*PAPER, "batch.micro_batch_tokens=1024")
    assert pass_tokens(config_of(*words)).student == 2048 + 8192
    assert pass_tokens(config_of(*words)).teacher == 10_240 + 8192
    shared = (*words, "learner.num_ranks=4", "learner.sequence_parallel=4")
    assert pass_tokens(config_of(*shared)).student == (2048 + 8192) // 4


def test_an_engine_of_qwen3_8b_by_hand() -> None:
    """Half of 80 GiB, less 2 B x 8.19 G of weights, the trial pass over 18,432 tokens, a step's logits, CUDA; 144 KiB a token."""
    found = engine_memory(QWEN_8B, config_of(*PAPER), 80.0)
    assert found.token_bytes == 2 * 36 * 8 * 128 * 2 == 147_456
    fixed = 2 * P + 18_432 * 2 * (2 * 4096 + 3 * 12_288) + 3 * 4 * 128 * 151_936 + 0.6 * GIB
    assert found.cache_bytes == pytest.approx(40 * GIB - fixed)
    assert sum(term.num_bytes for term in found.terms) == pytest.approx(40 * GIB)


def test_key_value_heads_are_repeated_where_there_are_fewer_than_gpus() -> None:
    assert kv_token_bytes(QWEN_8B, 2, 8) == kv_token_bytes(QWEN_8B, 2, 1) / 8
    assert kv_token_bytes(QWEN_8B, 2, 16) == kv_token_bytes(QWEN_8B, 2, 8)


SHAPES = st.builds(
    ModelShape,
    source=st.just(""),
    vocabulary=st.integers(1, 300_000),
    hidden=st.integers(1, 16_384),
    intermediate=st.integers(1, 60_000),
    num_layers=st.integers(1, 130),
    num_heads=st.integers(1, 128),
    num_kv_heads=st.integers(1, 16),
    head_size=st.sampled_from([32, 64, 128, 256]),
    is_tied=st.booleans(),
    qk_norm=st.sampled_from(QkNorm),
    has_qkv_bias=st.booleans(),
    has_output_bias=st.booleans(),
    has_mlp_bias=st.booleans(),
    max_tokens=st.none(),
)
WAYS = ((), ("learner.zero_stage=2",), ("learner.zero_stage=3",), ("learner=lora",), ("algorithm=grpo",))


def rank_bytes(shape: ModelShape, *words: str) -> float:
    return total(rank_terms(config_of(*words), shape, None))


@settings(max_examples=40, deadline=None)
@given(shape=SHAPES, way=st.sampled_from(WAYS))
def test_a_rank_never_needs_less_for_longer_packs_nor_more_on_more_ranks(shape: ModelShape, way: tuple[str, ...]) -> None:
    short, long = (rank_bytes(shape, *way, f"batch.micro_batch_tokens={tokens}") for tokens in (2048, 8192))
    assert short <= long
    few, many = (rank_bytes(shape, *way, f"learner.num_ranks={ranks}", "learner.zero_stage=3") for ranks in (2, 16))
    assert many <= few
    kept, again = (rank_bytes(shape, *way, f"learner.gradient_checkpointing={flag}") for flag in ("false", "true"))
    assert again <= kept * 1.001 or shape.num_layers == 1


@settings(max_examples=40, deadline=None)
@given(shape=SHAPES)
def test_an_engine_has_more_cache_on_a_larger_gpu_and_with_a_larger_share(shape: ModelShape) -> None:
    small, large = (engine_memory(shape, config_of(), gib).cache_bytes for gib in (40.0, 80.0))
    assert small < large
    greedy = engine_memory(shape, config_of("rollout.gpu_memory_utilization=0.9"), 40.0).cache_bytes
    assert small < greedy


@settings(max_examples=40, deadline=None)
@given(shape=SHAPES)
def test_every_term_is_a_finite_number_of_bytes_with_its_arithmetic(shape: ModelShape) -> None:
    for words in WAYS:
        for term in rank_terms(config_of(*words), shape, None):
            assert 0.0 < term.num_bytes < 1e18
            assert term.arithmetic


def test_the_default_run_in_fp32_on_a_cpu_by_hand() -> None:
    """28 bytes a parameter: weights, gradients, masters, two moments, average and the teacher's copy, 4 each."""
    shape = PUBLISHED["package:smollm2_135m"]
    found = sizes(state(learning("learner.dtype=float32", shape=shape, is_gpu=False)))
    held = sum(size for name, size in found.items() if name not in ("gradient bucket", "gradient of the step"))
    assert held == 28 * 134_515_008
