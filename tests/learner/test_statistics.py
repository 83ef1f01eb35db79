"""The percentile of the mismatch, over all tokens of an update."""

from __future__ import annotations

import pytest
import torch

from sdpo.learner.statistics import SUMS, LossStatistics, joined

CPU = torch.device("cpu")


def statistics(values: list[float]) -> LossStatistics:
    return LossStatistics(sums=torch.full((len(SUMS),), float(len(values)), dtype=torch.float64), mismatch_n=torch.tensor(values))


@pytest.mark.parametrize(("num", "expected"), [(1, 1.0), (50, 50.0), (100, 99.0), (101, 100.0), (1000, 990.0)])
def test_a_token_in_a_hundred_lies_above_the_percentile(num: int, expected: float) -> None:
    values = [float(value) for value in torch.randperm(num, generator=torch.Generator().manual_seed(0)) + 1]
    assert statistics(values).mismatch_p99 == expected


def test_it_does_not_depend_on_how_the_tokens_were_split() -> None:
    values = torch.rand(997, generator=torch.Generator().manual_seed(1)).tolist()
    parts = [statistics(values[first : first + 100]) for first in range(0, 997, 100)]
    assert joined(parts, CPU).mismatch_p99 == statistics(values).mismatch_p99
    assert joined(parts, CPU).sums.tolist() == [997.0] * len(SUMS)


def test_without_a_token_it_is_nothing() -> None:
    assert joined([], CPU).mismatch_p99 == 0.0
    assert joined([statistics([])], CPU).sums.tolist() == [0.0] * len(SUMS)
