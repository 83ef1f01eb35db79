"""From a packed micro-batch to the hidden states that predict its response tokens.

Rows are right-padded to the longest: under causal attention no real token sees the padding, so no mask is needed and the
fast attention path is taken. Only the positions that predict a response token are kept; the rest never meet the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from sdpo.types import MicroBatch


def response_hidden(model: PreTrainedModel, ids_T: Tensor, offsets: Sequence[int], num_response_tokens: Sequence[int]) -> Tensor:
    """[N, H] in row order: the last hidden states, each of which predicts one response token.

    ``offsets`` [B+1] delimit the rows of ``ids_T``; a row of length 0 is passed over.
    """
    device = model.device
    rows = [
        (first, last, num)
        for first, last, num in zip(offsets[:-1], offsets[1:], num_response_tokens, strict=True)
        if last > first
    ]
    width = max(last - first for first, last, _ in rows)
    padded_BL = torch.zeros(len(rows), width, dtype=torch.int64, device=device)
    for row, (first, last, _) in enumerate(rows):
        padded_BL[row, : last - first] = ids_T[first:last].to(device)
    hidden_BLH = model.base_model(input_ids=padded_BL, use_cache=False).last_hidden_state
    return torch.cat([hidden_BLH[row, last - first - num - 1 : last - first - 1] for row, (first, last, num) in enumerate(rows)])


def head(model: PreTrainedModel) -> Tensor:
    """[V, H] the output embedding's weight."""
    weight = model.get_output_embeddings().weight
    assert isinstance(weight, Tensor)
    return weight


def response_ids(batch: MicroBatch) -> Tensor:
    """[N] the response tokens of all rows, in order."""
    ends = zip(batch.student_offsets[1:], batch.num_response_tokens_B, strict=True)
    return torch.cat([batch.student_ids_T[last - num : last] for last, num in ends])


def row_of_token(num_response_tokens: Sequence[int], device: torch.device) -> Tensor:
    """[N] int64: which row each response token belongs to."""
    lengths = torch.tensor(num_response_tokens, dtype=torch.int64, device=device)
    return torch.repeat_interleave(torch.arange(len(lengths), device=device), lengths)
