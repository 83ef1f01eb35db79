"""What can an argument of a one-line function be? Values near the function's own parameters, so that a wrong one shows.

A number is drawn among the parameters and their neighbours as often as from afar, a word is made with the parameter's letters.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping

from sdpo.envs.code.trials import Arguments

Parameters = Mapping[str, int | float | str]

# fmt: off
_WORDS = (
    "apple", "banana", "bread", "cherry", "dog", "egg", "glass", "hat", "lemon", "moon", "nut", "pear", "rabbit", "sand",
    "tent", "house", "clap", "bat", "net", "carpet", "table", "lamp", "stone", "lantern",
)
# fmt: on


def arguments_of(kinds: Iterable[str], parameters: Parameters, draw: random.Random) -> Arguments:
    """One call. Raises KeyError for a kind that there is not."""
    return tuple(_KINDS[kind](parameters, draw) for kind in kinds)


def _int(parameters: Parameters, draw: random.Random) -> int:
    numbers = [value for value in parameters.values() if isinstance(value, int)]
    if numbers and draw.random() < 0.6:
        return draw.choice(numbers) + draw.choice((-1, 0, 0, 1, 2))
    return draw.randint(0, 2 * max(numbers, default=10) + 5)


def _small(parameters: Parameters, draw: random.Random) -> int:
    return draw.randint(1, 6)


def _above(parameters: Parameters, draw: random.Random) -> int:
    return max(value for value in parameters.values() if isinstance(value, int)) + draw.randint(1, 5)


def _ints(parameters: Parameters, draw: random.Random) -> list[int]:
    return [_int(parameters, draw) for _ in range(draw.randint(3, 5))]


def _long(parameters: Parameters, draw: random.Random) -> list[int]:
    return [draw.randint(1, 9) for _ in range(draw.randint(5, 9))]


def _multiples(parameters: Parameters, draw: random.Random) -> list[int]:
    """Mostly multiples of a parameter, or of a half or a third of it."""
    number = draw.choice([value for value in parameters.values() if isinstance(value, int)])
    of = (number, number, max(number // 2, 1), max(number // 3, 1))
    return [
        draw.choice(of) * draw.randint(1, 4) if draw.random() < 0.7 else _int(parameters, draw) for _ in range(draw.randint(3, 5))
    ]


def _floor(parameters: Parameters, draw: random.Random) -> list[int]:
    """A list whose least number is a parameter or the one after it."""
    numbers = [value for value in parameters.values() if isinstance(value, int)]
    found = [draw.choice(numbers) + draw.randint(1, 9) for _ in range(draw.randint(2, 4))]
    return draw.sample([*found, draw.choice(numbers) + draw.choice((0, 1))], len(found) + 1)


def _sized(parameters: Parameters, draw: random.Random) -> str:
    """As many letters as a parameter says, or one more or less."""
    size = draw.choice([value for value in parameters.values() if isinstance(value, int)]) + draw.choice((-1, 0, 0, 1, 2))
    return (draw.choice(_WORDS) + draw.choice(_WORDS) + draw.choice(_WORDS))[:size]


def _sized_words(parameters: Parameters, draw: random.Random) -> list[str]:
    return [_sized(parameters, draw) for _ in range(draw.randint(3, 4))]


def _multiple(parameters: Parameters, draw: random.Random) -> int:
    return _multiples(parameters, draw)[0]


def _letters(parameters: Parameters) -> list[str]:
    return [value for value in parameters.values() if isinstance(value, str)]


def _word(parameters: Parameters, draw: random.Random) -> str:
    word, letters = draw.choice(_WORDS), _letters(parameters)
    if letters and draw.random() < 0.6:
        at = draw.choice((0, len(word), len(word) // 2))
        word = word[:at] + draw.choice(letters) + word[at:]
    return word


def _text(parameters: Parameters, draw: random.Random) -> str:
    return " ".join(_word(parameters, draw) for _ in range(draw.randint(1, 3)))


def _parts(parameters: Parameters, draw: random.Random) -> str:
    """Words with the parameter between them."""
    return draw.choice(_letters(parameters)).join(draw.sample(_WORDS, draw.randint(1, 4)))


def _words(parameters: Parameters, draw: random.Random) -> list[str]:
    return [_word(parameters, draw) for _ in range(draw.randint(3, 4))]


def _dict(parameters: Parameters, draw: random.Random) -> dict[str, int]:
    return {name: _int(parameters, draw) for name in draw.sample("abcdefg", 3)}


def _key(parameters: Parameters, draw: random.Random) -> str:
    return draw.choice("abcdefg")


_KINDS: Mapping[str, Callable[[Parameters, random.Random], object]] = {
    "int": _int,
    "small": _small,
    "above": _above,
    "multiple": _multiple,
    "ints": _ints,
    "long": _long,
    "multiples": _multiples,
    "floor": _floor,
    "word": _word,
    "text": _text,
    "parts": _parts,
    "words": _words,
    "sized": _sized,
    "sized_words": _sized_words,
    "dict": _dict,
    "key": _key,
}
