"""The buckets over which two distributions are compared: what each holds, and that they are a distribution.

Which ids are chosen, and the gradient, are the fused loss's (``test_fused.py``).
"""

import itertools
import math

import pytest
import torch
from torch import Tensor

from sdpo.objectives.support import Buckets
from tests.objectives.kinds import KINDS, divergence

VOCABULARY = 12


def logits(seed: int, num: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(num, VOCABULARY, generator=generator, dtype=torch.float64)


def buckets(logits_NV: Tensor, num_ids: int) -> Buckets:
    """With the first ``num_ids`` ids for a support; what the other fields hold is in their docstrings."""
    logits_NV = logits_NV - logits_NV.amax(-1, keepdim=True)
    outside = logits_NV[:, num_ids:]
    return Buckets(
        inside_NK=logits_NV[:, :num_ids],
        lse_N=logits_NV.logsumexp(-1),
        tail_lse_N=outside.logsumexp(-1) if outside.shape[1] else None,
    )


@pytest.mark.parametrize("tail", [True, False])
@pytest.mark.parametrize("num_ids", [1, 4, VOCABULARY - 1, VOCABULARY])
def test_buckets_sum_to_one(num_ids, tail):
    logprobs = buckets(logits(0), num_ids).logprobs(tail=tail)
    assert logprobs.shape == (5, num_ids + (tail and num_ids < VOCABULARY))
    torch.testing.assert_close(logprobs.exp().sum(-1), torch.ones(5, dtype=torch.float64))


def test_ids_of_the_support_keep_their_true_logprobs_beside_a_tail():
    torch.testing.assert_close(buckets(logits(0), 4).logprobs(tail=True)[:, :4], logits(0).log_softmax(-1)[:, :4])


def test_tail_holds_what_the_support_leaves_out():
    logprobs = buckets(logits(0), 4).logprobs(tail=True)
    torch.testing.assert_close(logprobs[:, 4], (1 - logprobs[:, :4].exp().sum(-1)).log())


def test_without_a_tail_the_ids_keep_their_odds():
    probabilities = logits(0).softmax(-1)[:, :4]
    expected = (probabilities / probabilities.sum(-1, keepdim=True)).log()
    torch.testing.assert_close(buckets(logits(0), 4).logprobs(tail=False), expected)


@pytest.mark.parametrize("tail", [True, False])
def test_support_of_the_whole_vocabulary_is_the_softmax(tail):
    torch.testing.assert_close(buckets(logits(0), VOCABULARY).logprobs(tail=tail), logits(0).log_softmax(-1))


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_finer_buckets_see_no_less(kind):
    """Merging buckets never raises a divergence (data processing), so with a tail it grows with K up to the full one."""
    by_size = [
        divergence(*(buckets(logits(seed), num_ids).logprobs(tail=True) for seed in (0, 1)), kind, 0.5)
        for num_ids in range(1, VOCABULARY + 1)
    ]
    assert all((finer - coarser).min() > -1e-12 for coarser, finer in itertools.pairwise(by_size))


def test_support_of_one_id_with_a_tail_compares_two_coins():
    sides = [buckets(torch.tensor([shares]).log(), 1).logprobs(tail=True) for shares in ([0.7, 0.2, 0.1], [0.4, 0.5, 0.1])]
    expected = 0.7 * math.log(0.7 / 0.4) + 0.3 * math.log(0.3 / 0.6)
    assert divergence(*sides, "reverse_kl", 0.5).item() == pytest.approx(expected, rel=1e-5)


def test_tail_is_right_in_fp32_when_the_support_holds_nearly_everything():
    """log(1 - Σp) is log 0 here: 1e-17 is far below what fp32 can tell from nothing."""
    sure = torch.tensor([[40.0, 38.0, 0.0, -1.0]])
    exact = sure.double().log_softmax(-1)[0, 2:].logsumexp(-1)
    assert buckets(sure, 2).logprobs(tail=True)[0, 2].item() == pytest.approx(exact.item(), rel=1e-6)
