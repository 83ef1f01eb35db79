"""The most probable tokens, a chunk at a time, are those of the whole softmax."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sdpo.objectives.logits import Budget, Logits
from sdpo.objectives.top_tokens import top_tokens

NUM, HIDDEN, VOCABULARY = 7, 5, 23


def parts(num: int, *, rows: int = VOCABULARY) -> list[Logits]:
    generator = torch.Generator().manual_seed(3)
    return [
        Logits(
            hidden_NH=torch.randn(NUM, HIDDEN, generator=generator),
            head_VH=torch.randn(rows, HIDDEN, generator=generator),
            weight=1.0 if num == 1 else 0.5,
        )
        for _ in range(num)
    ]


def whole(of: list[Logits], temperature: float) -> Tensor:
    logits = sum(part.weight * part.hidden_NH.double() @ part.head_VH[:VOCABULARY].double().T for part in of)
    assert isinstance(logits, Tensor)
    return (logits / temperature).log_softmax(-1)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("num_parts", [1, 2])
@pytest.mark.parametrize("chunk_tokens", [1, 3, 100])
def test_they_are_those_of_the_whole_softmax(temperature, num_parts, chunk_tokens):
    budget = Budget(temperature=temperature, chunk_mib=chunk_tokens * VOCABULARY * 4 / 2**20)
    found = top_tokens(parts(num_parts), VOCABULARY, 4, budget=budget)
    expected = whole(parts(num_parts), temperature).topk(4)
    assert torch.equal(found.ids_nk, expected.indices)
    torch.testing.assert_close(found.logprobs_nk.double(), expected.values, atol=1e-5, rtol=0)


def test_rows_of_a_head_beyond_the_vocabulary_are_no_tokens():
    """A teacher's output embedding may be padded further than the student's."""
    found = top_tokens(parts(1, rows=VOCABULARY + 9), VOCABULARY, VOCABULARY, budget=Budget())
    assert int(found.ids_nk.max()) == VOCABULARY - 1
    torch.testing.assert_close(found.logprobs_nk.exp().sum(-1), torch.ones(NUM))


def test_a_small_vocabulary_has_no_more_tokens_than_it_has():
    assert top_tokens(parts(1), VOCABULARY, 1000, budget=Budget()).ids_nk.shape == (NUM, VOCABULARY)


def test_no_position_has_no_tokens():
    empty = [Logits(hidden_NH=part.hidden_NH[:0], head_VH=part.head_VH) for part in parts(1)]
    assert top_tokens(empty, VOCABULARY, 4, budget=Budget()).ids_nk.shape == (0, 4)


def test_logits_too_large_for_a_plain_exponential_have_finite_logprobs():
    large = [Logits(hidden_NH=part.hidden_NH * 1e3, head_VH=part.head_VH) for part in parts(1)]
    found = top_tokens(large, VOCABULARY, 3, budget=Budget())
    assert torch.isfinite(found.logprobs_nk).all()
    assert bool((found.logprobs_nk <= 0.0).all())
