"""One uniform number a token draws from the distribution that was asked for."""

import pytest
import torch

from sdpo.rollout.cpu_sampling import inverse_cdf

LAST = 1.0 - 2.0**-53
"""The largest number that a uniform draw in fp64 can give."""


def log_of(*probabilities: float) -> torch.Tensor:
    return torch.tensor([probabilities]).log()


def drawn(logprobs: torch.Tensor, *uniform: float) -> list[int]:
    rows = logprobs.expand(len(uniform), -1)
    return inverse_cdf(rows, torch.tensor(uniform, dtype=torch.float64)).tolist()


def test_each_token_owns_an_interval_as_long_as_its_probability():
    quarters = log_of(0.25, 0.5, 0.25)
    assert drawn(quarters, 0.0, 0.24, 0.26, 0.74, 0.76, LAST) == [0, 0, 1, 1, 2, 2]


def test_frequencies_match_the_probabilities():
    """Pearson's chi-square with eight degrees of freedom: 26.1 is exceeded by chance once in a thousand seeds."""
    probabilities = [0.3, 0.2, 0.15, 0.12, 0.1, 0.06, 0.04, 0.02, 0.01]
    num = 100_000
    uniform = torch.rand(num, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    tokens = inverse_cdf(log_of(*probabilities).expand(num, -1), uniform)
    counts = torch.bincount(tokens, minlength=9).tolist()
    statistic = sum((c - num * p) ** 2 / (num * p) for c, p in zip(counts, probabilities, strict=True))
    assert statistic < 26.1


@pytest.mark.parametrize(
    "probabilities",
    [
        (0.0, 0.0, 0.5, 0.0, 0.5, 0.0, 0.0),
        (0.0, 1.0),
        (1.0, 0.0),
        (0.0, 1e-30, 1.0, 1e-30, 0.0),
        (0.1,) * 10 + (0.0,) * 5,
    ],
)
def test_a_token_of_probability_zero_is_never_drawn(probabilities):
    """Not even by a number that was rounded up to one."""
    edges = [0.0, 5e-324, 2.0**-53, 0.5, 1.0 - 2.0**-24, LAST, 1.0]
    grid = (torch.arange(1000, dtype=torch.float64) / 1000).tolist()
    tokens = drawn(log_of(*probabilities), *edges, *grid)
    assert all(probabilities[token] > 0.0 for token in tokens)


def test_the_ends_of_the_range_are_the_first_and_the_last_token():
    generator = torch.Generator().manual_seed(1)
    logprobs = (3 * torch.randn(20, 5000, generator=generator)).log_softmax(-1)
    assert inverse_cdf(logprobs, torch.zeros(20, dtype=torch.float64)).tolist() == [0] * 20
    assert inverse_cdf(logprobs, torch.full((20,), LAST, dtype=torch.float64)).tolist() == [4999] * 20


def test_probabilities_that_sum_to_a_little_less_or_more_than_one_do_not_run_over():
    """fp32 log-probabilities of a large vocabulary are off by rounding."""
    for total in (0.999, 1.001):
        uneven = (torch.full((1, 1000), total / 1000)).log()
        assert drawn(uneven, LAST, 0.0) == [999, 0]


def test_a_row_is_drawn_from_its_own_distribution():
    rows = torch.stack([log_of(1.0, 0.0)[0], log_of(0.0, 1.0)[0], log_of(0.5, 0.5)[0]])
    assert inverse_cdf(rows, torch.full((3,), 0.5, dtype=torch.float64)).tolist() == [0, 1, 1]
