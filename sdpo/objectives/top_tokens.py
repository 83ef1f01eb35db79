"""Which tokens did a model find most probable? For people who look at a run; no loss asks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from sdpo.objectives.logits import Budget, Logits, follow, wide, wide_product
from sdpo.types import TopTokens


@torch.no_grad()
def top_tokens(parts: Sequence[Logits], vocabulary: int, num: int, *, budget: Budget) -> TopTokens:
    """The ``num`` most probable of the first ``vocabulary`` tokens at each of n positions, with their log-probabilities at the
    budget's temperature. The logits are the sum of ``parts``, and never more than a chunk of them is held."""
    num = min(num, vocabulary)
    hidden_nH = parts[0].hidden_NH
    chunk = budget.chunk_tokens(vocabulary, wide(hidden_nH).itemsize)
    found = [
        _top([_rows(part, slice(first, first + chunk)) for part in parts], vocabulary, num, budget.temperature)
        for first in range(0, len(hidden_nH), chunk)
    ]
    none = hidden_nH.new_zeros(0, num, dtype=torch.float32)
    return TopTokens(
        ids_nk=torch.cat([none.long(), *(ids_nk for ids_nk, _ in found)]),
        logprobs_nk=torch.cat([none, *(logprobs_nk for _, logprobs_nk in found)]),
    )


def _rows(part: Logits, tokens: slice) -> Logits:
    return replace(part, hidden_NH=part.hidden_NH[tokens])


def _top(parts: Sequence[Logits], vocabulary: int, num: int, temperature: float) -> tuple[Tensor, Tensor]:
    logits_nV: Tensor | None = None
    for part in parts:
        product_nV = torch.empty(len(part.hidden_NH), vocabulary, dtype=wide(part.hidden_NH), device=part.hidden_NH.device)
        wide_product(part.hidden_NH, part.head_VH[:vocabulary], product_nV)
        follow(part.rule, product_nV)
        product_nV.mul_(part.weight / temperature)
        logits_nV = product_nV if logits_nV is None else logits_nV.add_(product_nV)
    assert logits_nV is not None
    values_nk, ids_nk = logits_nV.topk(num, dim=-1)
    return ids_nk, (values_nk - logits_nV.logsumexp(-1, keepdim=True)).float()
