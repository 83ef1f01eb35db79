"""Which object does a text in Python's notation mean? ``{'kind': 'elm', 'deep': True}``, as models write it for JSON.

Nothing is evaluated but texts, numbers, ``True``, ``False``, ``None`` (also as JSON spells them), lists, tuples and dicts.
Nesting is bounded, and a model's choice of keys makes nothing slow (``literal_text.py``).
"""

from __future__ import annotations

import re

from sdpo.envs.literal_text import Pairs, read_literal

_MAX_DEPTH = 64
_TOKEN = re.compile(
    r"""
    (?P<text>'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*")
    |(?P<word>[A-Za-z_]\w*)
    |(?P<open>[{\[(])
    |(?P<close>[}\])])
    |(?P<rest>-?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|[\s,:]+)
    """,
    re.VERBOSE,
)
_WORDS = {"true": "True", "false": "False", "null": "None", "True": "True", "False": "False", "None": "None"}


def python_object(text: str) -> dict[str, object] | None:
    """The dict at the beginning of ``text``, with lists for tuples; None where there is none that JSON could hold."""
    source = _beginning(text) if text.startswith("{") else None
    if source is None:
        return None
    try:
        value = _as_json(read_literal(source, most_values=len(source)))
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _beginning(text: str) -> str | None:
    """The text up to the bracket that closes the first one, in Python's words; None for one with other tokens in it."""
    pieces, depth, at = [], 0, 0
    while (token := _TOKEN.match(text, at)) is not None:
        at = token.end()
        piece = token.group()
        if token.lastgroup == "word":
            if piece not in _WORDS:
                return None
            piece = _WORDS[piece]
        pieces.append(piece)
        depth += (token.lastgroup == "open") - (token.lastgroup == "close")
        if depth > _MAX_DEPTH:
            return None
        if depth == 0:
            return "".join(pieces)
    return None


def _as_json(value: object) -> object:
    """Raises ValueError for what JSON does not have."""
    match value:
        case Pairs():
            if not all(isinstance(key, str) for key, _ in value.items):
                raise ValueError("the keys of a JSON object are texts")
            return {key: _as_json(item) for key, item in value.items}
        case list() | tuple():
            return [_as_json(item) for item in value]
        case None | bool() | int() | float() | str():
            return value
    raise ValueError(f"JSON has no {type(value).__name__}")
