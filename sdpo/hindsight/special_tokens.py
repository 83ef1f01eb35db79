"""Which of a text's characters would a tokenizer read as special tokens? They are taken out, in time linear in the text.

A text may hold a special token only once another one is removed (``<|im_<|im_end|>end|>``). So characters are kept on a stack,
and each token is taken off it as soon as its last character arrives. The stack then never holds a whole token.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

Trie = dict[str, "Trie"]
_END = ""
"""The key that says that a token begins here; no character is empty."""


class _Endings(NamedTuple):
    """The tokens, for finding one that ends at a place."""

    last: re.Pattern[str]
    """The last character of any token."""
    backwards: Trie
    """Tokens from their last character to their first."""


def without_special_tokens(text: str, tokens: Iterable[str]) -> str:
    """``text`` without ``tokens``, also without such as arise when others are removed. The longest goes where several end."""
    wanted = frozenset(filter(None, tokens))
    if not wanted:
        return text
    last, backwards = _endings(wanted)
    kept: list[str] = []
    end = 0
    for found in last.finditer(text):
        kept += text[end : found.end()]
        end = found.end()
        if length := _longest(kept, backwards):
            del kept[-length:]
    return "".join(kept) + text[end:]


@lru_cache(maxsize=16)
def _endings(tokens: frozenset[str]) -> _Endings:
    backwards: Trie = {}
    for token in tokens:
        node = backwards
        for char in reversed(token):
            node = node.setdefault(char, {})
        node[_END] = {}
    return _Endings(re.compile("[" + "".join(map(re.escape, sorted(backwards))) + "]"), backwards)


def _longest(kept: list[str], backwards: Trie) -> int:
    """The number of characters of the longest token that ``kept`` ends with; 0 for none."""
    longest, node = 0, backwards
    for length, char in enumerate(reversed(kept), start=1):
        if char not in node:
            break
        node = node[char]
        if _END in node:
            longest = length
    return longest
