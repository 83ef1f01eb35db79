"""Attention over a pack: every token sees its own row alone, and what rows share is there once.

transformers calls this in place of its own attention, in every layer of every model that goes through its attention interface.
On a GPU it is one variable-length kernel a layer. On a CPU short segments are bundled into one call with a mask. A call there
costs as much as the pairs of a few hundred tokens do. Soft-capped scores (Gemma 2) and sinks (gpt-oss), which neither kernel
knows, are computed plainly, in chunks of queries that the backward computes again. Rows side by side are segments of one length.

Under Ulysses (arXiv 2309.14509) a rank holds a slice of the pack's tokens. An all-to-all trades it for a slice of the heads of
all tokens, and another one trades back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface, AttentionMaskInterface

from sdpo.errors import UserError
from sdpo.types import Segment

NAME = "sdpo_packed"
BUNDLE_TOKENS = 256
"""Tokens that a bundle's one call on a CPU may see. Above it the masked pairs cost more than the calls that are saved."""
SCORES_BYTES = 64 * 2**20
"""Size of the fp32 scores of a chunk of queries, where they are computed plainly."""
UNKNOWN = ("position_bias", "sinks", "block_indices")
"""What some models hand to their attention and this one does not know. Others' names carry no meaning here."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """How a layer's scores are made of queries and keys."""

    scaling: float | None
    """None: one by the root of D."""
    window: int | None
    """Tokens that one sees, itself included; None: all before it."""
    softcap: float | None = None
    """Scores are bent to lie within plus and minus that."""
    sinks_H: Tensor | None = None
    """A score for each head that takes its part of the softmax, and brings nothing."""

    @property
    def are_plain(self) -> bool:
        return self.softcap is None and self.sinks_H is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Who sees whom in a pack, and who holds which of its tokens."""

    segments: tuple[Segment, ...]
    team: distributed.ProcessGroup | None = None
    """The ranks that share the pack, each with an equal slice of its tokens; None: this rank has them all."""
    known: dict[object, Any] = field(default_factory=dict)
    """What one layer worked out of it and the next can use."""

    def once(self, key: object, work_out: Callable[[], T]) -> T:
        """What ``work_out`` returns, the first time."""
        if key not in self.known:
            self.known[key] = work_out()
        found: T = self.known[key]
        return found


def install() -> None:
    """Make ``attn_implementation=NAME`` known to transformers."""
    AttentionInterface.register(NAME, packed_attention)
    AttentionMaskInterface.register(NAME, lambda *args, **kwargs: None)  # the layout says it all


def packed_attention(
    module: nn.Module,
    query_BHTD: Tensor,
    key_BGTD: Tensor,
    value_BGTD: Tensor,
    attention_mask: None,
    *,
    layout: Layout | None = None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **ignored: object,
) -> tuple[Tensor, None]:
    """[B, T, H, D] attention outputs; H heads, G key-value heads, D per head. The signature is transformers'.

    B is 1, but for rows side by side.
    """
    if layout is None:
        raise UserError(
            "the learner tells a model's attention which tokens of a pack belong together, so a model must hand on what its "
            f"forward is given; {type(module).__name__} is not told. Choose another model."
        )
    unknown = [name for name in UNKNOWN if ignored.get(name) is not None]
    if unknown:
        raise ValueError(f"packed attention knows no {' and no '.join(unknown)}; {type(module).__name__} asks for it")
    num_rows = query_BHTD.shape[0]
    query_1HTD, key_1GTD, value_1GTD = (_end_to_end(part) for part in (query_BHTD, key_BGTD, value_BGTD))
    if layout.team is not None:
        if s_aux is not None:
            s_aux = s_aux.chunk(distributed.get_world_size(layout.team))[distributed.get_rank(layout.team)]
        repeats = _repeats(query_1HTD.shape[1], key_1GTD.shape[1], distributed.get_world_size(layout.team))
        key_1GTD, value_1GTD = key_1GTD.repeat_interleave(repeats, 1), value_1GTD.repeat_interleave(repeats, 1)
        query_1HTD, key_1GTD, value_1GTD = (
            _exchanged(part, layout.team, scatter=1, gather=2) for part in (query_1HTD, key_1GTD, value_1GTD)
        )
    scores = Scores(scaling=scaling, window=sliding_window, softcap=softcap, sinks_H=s_aux)
    attend = _on_gpu if query_1HTD.is_cuda and scores.are_plain else _by_bundle
    out_1HTD = attend(query_1HTD, key_1GTD, value_1GTD, layout, scores)
    if layout.team is not None:
        out_1HTD = _exchanged(out_1HTD, layout.team, scatter=2, gather=1)
    return out_1HTD.transpose(1, 2).unflatten(1, (num_rows, -1)).flatten(0, 1), None


def _end_to_end(part_BHTD: Tensor) -> Tensor:
    """[1, H, B·T, D]"""
    return part_BHTD if part_BHTD.shape[0] == 1 else part_BHTD.transpose(0, 1).flatten(1, 2)[None]


def _repeats(num_heads: int, num_key_value_heads: int, team_size: int) -> int:
    """How often a key-value head is repeated so that the team can deal them out evenly."""
    if num_heads % team_size:
        raise ValueError(
            f"learner.sequence_parallel must divide the model's attention heads (each rank takes some); got {team_size} and "
            f"{num_heads}."
        )
    if num_key_value_heads % team_size == 0:
        return 1
    return team_size // num_key_value_heads if team_size % num_key_value_heads == 0 else num_heads // num_key_value_heads


def _by_bundle(
    query_1HTD: Tensor,
    key_1GTD: Tensor,
    value_1GTD: Tensor,
    layout: Layout,
    scores: Scores,
) -> Tensor:
    """One attention a bundle of segments, over what precedes them and themselves."""
    window, device = scores.window, query_1HTD.device
    lengths = [segment.last - segment.first for segment in layout.segments]
    # Split once: a slice's backward would write a gradient of the whole pack's size for every segment.
    queries, keys, values = (part.split(lengths, dim=2) for part in (query_1HTD, key_1GTD, value_1GTD))
    grouped = query_1HTD.shape[1] != key_1GTD.shape[1]
    outputs = []
    for bundle in layout.once("bundles", lambda: _bundles(layout.segments)):
        seen = sorted({*bundle, *(b for index in bundle for b in layout.segments[index].before)})
        query, key, value = (
            torch.cat([parts[index] for index in indices], dim=2) if len(indices) > 1 else parts[indices[0]]
            for parts, indices in ((queries, bundle), (keys, seen), (values, seen))
        )
        is_causal = scores.are_plain and len(seen) == 1 and (window is None or key.shape[2] <= window)
        mask = None if is_causal else layout.once((bundle, window), partial(_mask, layout.segments, bundle, seen, window, device))
        outputs.append(
            functional.scaled_dot_product_attention(
                query, key, value, attn_mask=mask, is_causal=is_causal, scale=scores.scaling, enable_gqa=grouped
            )
            if mask is None or scores.are_plain
            else _plainly(query, key, value, mask, scores)
        )
    return torch.cat(outputs, dim=2)


def _plainly(query_1HqD: Tensor, key_1GkD: Tensor, value_1GkD: Tensor, mask_qk: Tensor, scores: Scores) -> Tensor:
    """[1, H, q, D] in chunks of queries. The backward computes each chunk's scores again, so that none are kept."""
    num_heads = query_1HqD.shape[1]
    key, value = (part.repeat_interleave(num_heads // part.shape[1], 1) for part in (key_1GkD, value_1GkD))
    num_queries = max(1, SCORES_BYTES // (4 * num_heads * key.shape[2]))
    chunks = zip(query_1HqD.split(num_queries, 2), mask_qk.split(num_queries), strict=True)
    return torch.cat(
        [
            checkpoint(_chunk, query, key, value, mask, scores, use_reentrant=False, preserve_rng_state=False)
            for query, mask in chunks
        ],
        dim=2,
    )


def _chunk(query_1HqD: Tensor, key_1HkD: Tensor, value_1HkD: Tensor, mask_qk: Tensor, scores: Scores) -> Tensor:
    scaling = query_1HqD.shape[-1] ** -0.5 if scores.scaling is None else scores.scaling
    scores_1Hqk = (query_1HqD @ key_1HkD.transpose(2, 3)).float() * scaling
    if scores.softcap is not None:
        scores_1Hqk = scores.softcap * torch.tanh(scores_1Hqk / scores.softcap)
    scores_1Hqk = scores_1Hqk.masked_fill(~mask_qk, -torch.inf)
    if scores.sinks_H is not None:
        sinks_1Hq1 = scores.sinks_H.float()[None, :, None, None].expand(1, -1, scores_1Hqk.shape[2], 1)
        weights_1Hqk = torch.cat([scores_1Hqk, sinks_1Hq1], dim=3).softmax(3)[..., :-1]
    else:
        weights_1Hqk = scores_1Hqk.softmax(3)
    return weights_1Hqk.to(value_1HkD.dtype) @ value_1HkD


def _bundles(segments: tuple[Segment, ...]) -> list[tuple[int, ...]]:
    """Bundles of neighbouring segments that one call serves: as many as see no more than BUNDLE_TOKENS together.

    The call also computes the pairs that it then masks. A longer segment goes alone.
    """
    bundles: list[tuple[int, ...]] = []
    seen: set[int] = set()
    for index, segment in enumerate(segments):
        wider = seen | {*segment.before, index}
        if bundles and sum(segments[i].last - segments[i].first for i in wider) <= BUNDLE_TOKENS:
            bundles[-1] = (*bundles[-1], index)
            seen = wider
        else:
            bundles.append((index,))
            seen = {*segment.before, index}
    return bundles


def _mask(
    segments: tuple[Segment, ...], bundle: Sequence[int], seen: Sequence[int], window: int | None, device: torch.device
) -> Tensor:
    """[queries, keys] bool: whether a token of ``bundle`` sees one of ``seen``."""
    lengths = [segment.last - segment.first for segment in segments]
    starts = [sum(lengths[b] for b in segment.before) for segment in segments]
    of_query = torch.cat([torch.full((lengths[i],), i) for i in bundle])
    place_of_query, place_of_key = (
        torch.cat([torch.arange(starts[i], starts[i] + lengths[i]) for i in indices]) for indices in (bundle, seen)
    )
    is_before = torch.tensor([[key == own or key in segment.before for key in seen] for own, segment in enumerate(segments)])
    columns = torch.cat([torch.full((lengths[i],), column) for column, i in enumerate(seen)])
    distance = place_of_query[:, None] - place_of_key[None, :]
    allowed = is_before[of_query][:, columns] & (distance >= 0)
    return (allowed if window is None else allowed & (distance < window)).to(device)


def _on_gpu(
    query_1HTD: Tensor,
    key_1GTD: Tensor,
    value_1GTD: Tensor,
    layout: Layout,
    scores: Scores,
) -> Tensor:
    """One variable-length FlashAttention for all segments; their last query and last key are aligned."""
    from torch.nn.attention.varlen import varlen_attn

    device = query_1HTD.device
    where, query_starts, key_starts = layout.once("plan", lambda: _plan(layout.segments, device))
    query, key, value = (part[0].transpose(0, 1) for part in (query_1HTD, key_1GTD, value_1GTD))
    if len(where) != len(query):  # something is shared
        key, value = key.index_select(0, where), value.index_select(0, where)
    out = varlen_attn(
        query.contiguous(),
        key.contiguous(),
        value.contiguous(),
        query_starts,
        key_starts,
        layout.once("longest query", lambda: int(query_starts.diff().max())),
        layout.once("longest key", lambda: int(key_starts.diff().max())),
        scale=scores.scaling,
        window_size=(-1 if scores.window is None else scores.window - 1, 0),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    assert isinstance(out, Tensor)
    return out.transpose(0, 1)[None]


def _plan(segments: tuple[Segment, ...], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """[keys] int64 which tokens are the segments' keys; int32 [segments+1] where each one's queries and keys start."""
    ranges = [torch.arange(segment.first, segment.last) for segment in segments]
    paths = [torch.cat([ranges[i] for i in (*segment.before, index)]) for index, segment in enumerate(segments)]
    starts = (_starts([len(part) for part in parts]) for parts in (ranges, paths))
    query_starts, key_starts = (start.to(device) for start in starts)
    return torch.cat(paths).to(device), query_starts, key_starts


def _starts(lengths: list[int]) -> Tensor:
    return torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)


def _exchanged(tensor: Tensor, team: distributed.ProcessGroup, *, scatter: int, gather: int) -> Tensor:
    """``tensor``, of which each of the team's ranks then has all of dimension ``gather`` and a part of ``scatter``."""
    exchanged: Tensor = _AllToAll.apply(tensor, team, scatter, gather)  # type: ignore[no-untyped-call]
    return exchanged


class _AllToAll(torch.autograd.Function):
    """Its backward is the same with the two dimensions exchanged."""

    @staticmethod
    def forward(ctx, tensor: Tensor, team: distributed.ProcessGroup, scatter: int, gather: int) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.way = team, scatter, gather
        parts = [part.contiguous() for part in tensor.chunk(distributed.get_world_size(team), dim=scatter)]
        received = [torch.empty_like(part) for part in parts]
        distributed.all_to_all(received, parts, group=team)
        return torch.cat(received, dim=gather)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[no-untyped-def]
        team, scatter, gather = ctx.way
        return _exchanged(gradient, team, scatter=gather, gather=scatter), None, None, None
