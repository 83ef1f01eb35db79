"""Which tokens of a response is nothing learned from? What a token filter flags in its text.

A filter sees text, so that one serves every tokenizer: ``sdpo.protocols.TokenFilter``. A token is masked if any part of it is
flagged (as in arXiv 2601.21571). A masked token carries no loss of any kind, and no denominator counts it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

from sdpo.config import FilterConfig
from sdpo.plugins.seam import made
from sdpo.plugins.seams import FILTERS
from sdpo.protocols import Renderer, TokenFilter

_UNFINISHED = "\ufffd"
"""What stands for a part of a character."""
_LONGEST_CHARACTER = 8
"""Tokens that a single character may take, and a few more."""


def token_filter(config: FilterConfig) -> TokenFilter | None:
    """The filter that the config names; None where it names none. Raises ValueError where it cannot be made."""
    if config.name is None:
        return None
    make = FILTERS.load(config.name)
    found = made(make, f"algorithm.filter with the options {config.options!r}", **config.options)
    if not callable(getattr(found, "flags", None)):
        raise ValueError(
            f"algorithm.filter.name must name a class with a method flags (sdpo.protocols.TokenFilter); {config.name!r} is "
            f"{make!r}"
        )
    return cast(TokenFilter, found)


def unflagged(token_ids: Sequence[int], chosen: TokenFilter, renderer: Renderer) -> tuple[bool, ...]:
    """[R] whether each token of a response may be learned from."""
    runs = list(_pieces(token_ids, renderer))
    spans = [(first, last) for first, last in chosen.flags("".join(text for text, _ in runs)) if first < last]
    found: list[bool] = []
    at = 0
    for text, num_tokens in runs:
        is_flagged = any(first < at + len(text) and at < last for first, last in spans)
        found += [not is_flagged] * num_tokens
        at += len(text)
    return tuple(found)


def _pieces(token_ids: Sequence[int], renderer: Renderer) -> Iterator[tuple[str, int]]:
    """The response's text in pieces, each with its number of tokens: one, but for the tokens that share a character."""
    words = renderer.words(token_ids)
    place = 0
    while place < len(words):
        num, text = 1, words[place]
        while _UNFINISHED in text and num < _LONGEST_CHARACTER and place + num < len(words):
            num += 1
            text = renderer.text(token_ids[place : place + num])
        if _UNFINISHED in text:
            num, text = 1, words[place]
        yield text, num
        place += num
