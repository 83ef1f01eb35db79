"""Large zeros cost nothing until they are touched, and are zeros all the same."""

from __future__ import annotations

import psutil
import pytest
import torch

from sdpo.rollout.cpu_cache import LARGE_BYTES, zeroed_when_touched


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
