"""Answers that are nearly right: a correct one with a single small edit, of the kind that a small model gets wrong.

Knows no language and no environment: numbers, operators, words and whatever stands between blanks. An edit may leave the answer
right; only the environment can tell. Fences and tags are left alone, since an answer that cannot be found in its markup brings
feedback on the markup alone.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, pairwise, zip_longest

_FIXED = r"```[^\n]*|</?[^\W\d][\w-]*>|\s+"
_PIECES = re.compile(rf"{_FIXED}|[^\W\d]\w*|\d+|==|!=|<=|>=|//|\*\*|&&|\|\||.", re.DOTALL)
_IS_FIXED = re.compile(rf"(?:{_FIXED})\Z")
_OPPOSITES = {
    "+": "-", "*": "+", "/": "*", "//": "%", "%": "//", "**": "*",
    "<": "<=", ">": ">=", "<=": "<", ">=": ">", "==": "!=", "!=": "==", "&&": "||",
    "and": "or", "or": "and", "True": "False", "False": "True", "true": "false", "false": "true",
    "min": "max", "max": "min", "any": "all", "all": "any", "upper": "lower", "lower": "upper",
}  # fmt: skip
_OPPOSITES |= {other: one for one, other in _OPPOSITES.items() if other not in _OPPOSITES}


def perturbed(text: str, num: int, seed: str) -> tuple[str, ...]:
    """At most ``num`` different texts, each one edit away from ``text``; the same for the same seed.

    Kinds of edits take turns, those of values and operators first. A token dropped is mostly a syntax error, and many of those
    teach the same.
    """
    pieces = _PIECES.findall(text)
    places = [place for place, piece in enumerate(pieces) if not _IS_FIXED.match(piece)]
    draw = random.Random(seed)
    kinds = [[edit for edit in kind(pieces, places, draw) if edit != text and edit.strip()] for kind in (_values, _words, _order)]
    for edits in kinds:
        draw.shuffle(edits)
    in_turn = (edit for edit in chain.from_iterable(zip_longest(*kinds)) if edit is not None)
    return tuple(dict.fromkeys(in_turn))[:num]


Kind = Callable[[Sequence[str], Sequence[int], random.Random], Iterator[str]]


def _values(pieces: Sequence[str], places: Sequence[int], draw: random.Random) -> Iterator[str]:
    """Another number, the operator next to it in meaning, a digit in a name or a formula."""
    for place in places:
        piece = pieces[place]
        if piece.isdecimal() and piece.isascii():
            number = int(piece)
            yield from (_with(pieces, place, str(near)) for near in (number - 1, number + 1) if near >= 0)
        elif piece in _OPPOSITES:
            yield _with(pieces, place, _OPPOSITES[piece])
        else:
            for at in (at for at, char in enumerate(piece) if char.isdecimal()):
                other = draw.choice([digit for digit in "0123456789" if digit != piece[at]])
                yield _with(pieces, place, piece[:at] + other + piece[at + 1 :])


def _words(pieces: Sequence[str], places: Sequence[int], draw: random.Random) -> Iterator[str]:
    """Another word of the text in a word's place; where there is no other, the word misspelt."""
    words = sorted({pieces[place] for place in places if pieces[place].isidentifier()})
    for place in places:
        others = [word for word in words if word != pieces[place]]
        if pieces[place] in words and others:
            yield _with(pieces, place, draw.choice(others))
        elif pieces[place] in words:
            word = pieces[place]
            yield from (_with(pieces, place, word[:at] + word[at + 1 :]) for at in range(len(word)))


def _order(pieces: Sequence[str], places: Sequence[int], draw: random.Random) -> Iterator[str]:
    """A token dropped, or two neighbours exchanged."""
    for place in places:
        yield _with(pieces, place, "")
    for place, following in pairwise(places):
        swapped = list(pieces)
        swapped[place], swapped[following] = pieces[following], pieces[place]
        yield "".join(swapped)


def _with(pieces: Sequence[str], place: int, piece: str) -> str:
    return "".join((*pieces[:place], piece, *pieces[place + 1 :]))
