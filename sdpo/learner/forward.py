"""From a pack to the hidden states that predict its response tokens; no other position ever meets the vocabulary."""

from __future__ import annotations

import torch
from torch import Tensor, distributed
from transformers import PreTrainedModel

from sdpo.learner.attention import Layout
from sdpo.types import Pack, Segment


def response_hidden(model: PreTrainedModel, pack: Pack, team: distributed.ProcessGroup | None = None) -> tuple[Tensor, Tensor]:
    """[n, H] the last hidden states, each of which predicts a response token, and [n] int64 which of the pack's N that is.

    All N of them where one rank computes the pack; in a ``team``, those that lie in this rank's slice of the tokens. A pack
    of rows side by side, or with borders, is no team's.
    """
    assert team is None or (pack.num_rows == 1 and not pack.has_borders), "only attention brings a team's slices together"
    device, (first, last) = model.device, _slice(pack, team)
    ids_T, positions_T, segments = pack.ids_T, pack.positions_T, pack.segments
    if team is not None:
        ids_T, positions_T, segments = _divisible(ids_T, positions_T, segments, distributed.get_world_size(team))
    hidden_TH = model.base_model(
        input_ids=ids_T[first:last].view(pack.num_rows, -1).to(device),
        position_ids=positions_T[first:last].view(pack.num_rows, -1).to(device),
        use_cache=False,
        layout=Layout(segments=segments, team=team),
        **(_borders(pack, device) if pack.has_borders else {}),
    ).last_hidden_state.flatten(0, 1)
    mine_n = tokens_here(pack, team)
    return hidden_TH.index_select(0, (pack.predicts_N[mine_n] - first).to(device)), mine_n


def _borders(pack: Pack, device: torch.device) -> dict[str, Tensor]:
    """Where the segments begin, [segments+1] int32, and [1, T] int32 which one each token is of, by transformers' names.

    Gated delta rules take the former (flash-linear-attention), Mamba and short convolutions the latter (mamba-ssm,
    causal-conv1d).
    """
    lengths = torch.tensor([segment.last - segment.first for segment in pack.segments])
    starts = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]).to(device, torch.int32)
    indices = torch.arange(len(lengths)).repeat_interleave(lengths).to(device, torch.int32)
    return {"cu_seq_lens_q": starts, "seq_idx": indices[None]}


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
