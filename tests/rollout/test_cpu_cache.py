"""Large zeros cost nothing until they are touched, and are zeros all the same."""

from __future__ import annotations

from types import SimpleNamespace

import psutil
import pytest
import torch

from sdpo.rollout.cpu_cache import LARGE_BYTES, bound, zeroed_when_touched


def test_large_zeros_are_zeros_and_take_memory_as_they_are_used() -> None:
    """2 GiB of KV cache were written through at every start."""
    process = psutil.Process()
    before = process.memory_info().rss
    with zeroed_when_touched():
        large = torch.zeros(16 * LARGE_BYTES, dtype=torch.int8, device=torch.device("cpu"))
    assert process.memory_info().rss - before < LARGE_BYTES
    assert large.shape == (16 * LARGE_BYTES,)
    assert large.data_ptr() % 64 == 0  # as torch aligns its own
    assert not large[:: LARGE_BYTES // 8].any()
    large[5] = 3
    assert large.view(torch.float32)[:2].tolist() == [0.0, pytest.approx(1.08e-42, rel=0.1)]


@pytest.mark.parametrize("words", [{"dtype": torch.float32}, {}, {"dtype": torch.int8}])
def test_all_others_are_torchs_own(words: dict[str, torch.dtype]) -> None:
    with zeroed_when_touched():
        assert torch.equal(torch.zeros(2, 3, **words), torch.ones(2, 3, **words) * 0)
        assert torch.equal(torch.zeros((4,), **words), torch.zeros(4, **words))
        assert torch.zeros(0, **words).shape == (0,)


def test_torch_is_as_it_was_afterwards() -> None:
    before = torch.zeros
    with pytest.raises(RuntimeError), zeroed_when_touched():
        raise RuntimeError
    assert torch.zeros is before


GIB = 2**30


@pytest.mark.parametrize(
    ("num_layers", "head_size", "max_tokens", "expected"),
    [
        (2, 32, 400, LARGE_BYTES),  # 512 bytes a token: 4 * 64 rows of 400 tokens are 50 MiB
        (30, 64, 400, 4 * 64 * 400 * 30 * 2 * 64 * 4),
        (30, 192, 2000, 2 * GIB),
    ],
)
def test_the_cache_has_room_for_the_rows_that_run_at_once_and_no_more(
    num_layers: int, head_size: int, max_tokens: int, expected: int
) -> None:
    """vLLM made 131,072 objects of blocks, half of an engine's start, for a model whose rows fill a hundredth of them."""
    model = SimpleNamespace(
        get_total_num_kv_heads=lambda: 1,
        get_head_size=lambda: head_size,
        get_total_num_hidden_layers=lambda: num_layers,
        dtype=torch.float32,
        max_model_len=max_tokens,
    )
    config = SimpleNamespace(
        model_config=model,
        cache_config=SimpleNamespace(kv_cache_memory_bytes=2 * GIB),
        scheduler_config=SimpleNamespace(max_num_seqs=64),
    )
    bound(config)  # type: ignore[arg-type]
    assert config.cache_config.kv_cache_memory_bytes == expected
