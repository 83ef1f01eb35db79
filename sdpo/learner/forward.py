"""From a pack to the hidden states that predict its response tokens; no other position ever meets the vocabulary."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, distributed
from transformers import PreTrainedModel

from sdpo.batches.packs import pack_rows
from sdpo.errors import UserError
from sdpo.learner.attention import Layout
from sdpo.types import Pack, Segment

LEAK = 0.01
"""Relative. Rounding does nothing where kernels see the same sizes (SmolLM2 in bf16: 0.0 %); leaks begin at 5 %."""


def response_hidden(model: PreTrainedModel, pack: Pack, team: distributed.ProcessGroup | None = None) -> tuple[Tensor, Tensor]:
    """[n, H] the last hidden states, each of which predicts a response token, and [n] int64 which of the pack's N that is.

    All N of them where one rank computes the pack; in a ``team``, those that lie in this rank's slice of the tokens.
    """
    device, (first, last) = model.device, _slice(pack, team)
    ids_T, positions_T, segments = pack.ids_T, pack.positions_T, pack.segments
    if team is not None:
        ids_T, positions_T, segments = _divisible(ids_T, positions_T, segments, distributed.get_world_size(team))
    hidden_TH = model.base_model(
        input_ids=ids_T[None, first:last].to(device),
        position_ids=positions_T[None, first:last].to(device),
        use_cache=False,
        layout=Layout(segments=segments, team=team),
    ).last_hidden_state[0]
    mine_n = tokens_here(pack, team)
    return hidden_TH.index_select(0, (pack.predicts_N[mine_n] - first).to(device)), mine_n


def refuse_leaks(run: Callable[[Callable[[PreTrainedModel], Tensor]], Tensor], name: str) -> None:
    """Raise UserError for a model in which a row of a pack is affected by its neighbours.

    Recurrent and convolutional layers do that silently, and so do distances that are counted through the pack. ``run`` runs
    something on the model, which is called ``name``.
    """
    shared, own, asked = list(range(1, 17)), [20, 21, 22, 23], range(16, 20)
    packs = [pack_rows([shared + other, shared + own], [[], asked]) for other in ([9, 10, 11], [15, 14] * 20)]
    assert all(pack.segments[-1].before == (0,) and pack.predicts_N[-1] == len(pack.ids_T) - 1 for pack in packs), "own last"
    with torch.no_grad():
        before, after = (run(partial(_only_hidden, pack)).float() for pack in packs)
    difference = float((before - after).norm() / before.norm())
    if not difference < LEAK:
        raise UserError(
            "the learner packs rows end to end, so a model's layers may mix tokens in attention alone, and by their positions; "
            f"{name} does otherwise: a row's hidden state moved by {difference:.1%} when its neighbour changed. Models with "
            "recurrent or convolutional layers are not supported."
        )


def _only_hidden(pack: Pack, model: PreTrainedModel) -> Tensor:
    return response_hidden(model, pack)[0]


def tokens_here(pack: Pack, team: distributed.ProcessGroup | None) -> Tensor:
    """[n] int64: which of the pack's N response tokens are predicted in this rank's slice."""
    first, last = _slice(pack, team)
    return ((pack.predicts_N >= first) & (pack.predicts_N < last)).nonzero()[:, 0]


def _slice(pack: Pack, team: distributed.ProcessGroup | None) -> tuple[int, int]:
    """The half-open range of the pack's tokens that this rank computes."""
    if team is None:
        return 0, len(pack.ids_T)
    width = -(-len(pack.ids_T) // distributed.get_world_size(team))
    return distributed.get_rank(team) * width, (distributed.get_rank(team) + 1) * width


def _divisible(
    ids_T: Tensor, positions_T: Tensor, segments: tuple[Segment, ...], size: int
) -> tuple[Tensor, Tensor, tuple[Segment, ...]]:
    """The pack with a last segment that nobody asks for, so that its length is a multiple of ``size``."""
    missing = -len(ids_T) % size
    if not missing:
        return ids_T, positions_T, segments
    filler = Segment(first=len(ids_T), last=len(ids_T) + missing, before=())
    return (
        torch.cat([ids_T, ids_T.new_zeros(missing)]),
        torch.cat([positions_T, torch.arange(missing)]),
        (*segments, filler),
    )
