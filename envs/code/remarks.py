"""How is a remark on an answer said within a budget of tokens?

No tokenizer is asked, since an environment does not know the model's. The rule is an upper bound: a token of a byte-level
vocabulary stands for at least one byte of UTF-8. So a text has no more tokens than bytes. (English has about a quarter.)

What does not fit is taken from the middle of the values that a remark quotes. If that is not enough, it is taken from what the
answer said of itself: the message of its exception, the line that raised it. It is never taken from the remark's own words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MIN_TOKENS = 160
"""The longest of our own sentences has some 120 bytes, and a function's name has to fit as well."""
_MARK = " ... "
_LEAST = 12
"""Bytes that a value keeps if a message is long."""


@dataclass(frozen=True, slots=True)
class Value:
    """A call, an input, a result: the first to be elided."""

    text: str


@dataclass(frozen=True, slots=True)
class Said:
    """Words of the answer's own choice: elided only where it is longer than all that is left."""

    text: str


Remark = tuple[str | Value | Said, ...]
"""What is said, in order. A plain string is never elided."""


def num_tokens_at_most(text: str) -> int:
    """Bytes of UTF-8."""
    return len(text.encode("utf-8", "backslashreplace"))


def render(remark: Remark, max_tokens: int) -> str:
    """The remark as printable Unicode of at most ``max_tokens`` tokens, as long as its own words leave room."""
    left = max(max_tokens - sum(num_tokens_at_most(part) for part in remark if isinstance(part, str)), 0)
    values = [num_tokens_at_most(part.text) for part in remark if isinstance(part, Value)]
    said = [num_tokens_at_most(part.text) for part in remark if isinstance(part, Said)]
    for_said = _shares(said, max(left - sum(min(size, _LEAST) for size in values), 0))
    for_values = _shares(values, left - sum(for_said))
    rooms = {Value: iter(for_values), Said: iter(for_said)}
    return "".join(_clean(part) if isinstance(part, str) else _elided(part.text, next(rooms[type(part)])) for part in remark)


def _clean(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _shares(sizes: Sequence[int], room: int) -> list[int]:
    """As much of ``room`` for each as it needs, the longest ones sharing equally what the shorter ones leave."""
    shares = [0] * len(sizes)
    waiting = sorted(range(len(sizes)), key=lambda index: sizes[index])
    for position, index in enumerate(waiting):
        shares[index] = min(sizes[index], room // (len(waiting) - position))
        room -= shares[index]
    return shares


def _elided(text: str, max_bytes: int) -> str:
    """``text``, its middle left out where it is longer than ``max_bytes``; a character is never halved."""
    encoded = text.encode("utf-8", "backslashreplace")
    if len(encoded) <= max_bytes:
        return encoded.decode("utf-8")
    kept = max_bytes - len(_MARK)
    if kept <= 0:
        return _MARK.strip()[:max_bytes]
    head, tail = encoded[: kept - kept // 2], encoded[len(encoded) - kept // 2 :]
    return head.decode("utf-8", "ignore") + _MARK + tail.decode("utf-8", "ignore")
