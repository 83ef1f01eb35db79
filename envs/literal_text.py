"""Which value does a text in Python's notation mean? Read here where a program or a model chose the text.

Only what ``repr`` writes of built-in values is read: None, booleans, numbers, texts, bytes, lists, tuples, dicts and sets.
Python's own parser takes a hundred times the text's size. A dict or a set takes quadratic time where the hashes of its keys
collide on purpose. So the number of values is bounded here, and time and memory grow with the text alone. What would be a dict or
a set is told as the list of what stands in it (``Pairs``, ``Members``).
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from threading import Lock

MOST_VALUES = 1 << 12
"""Values in a text for which nothing else is said."""
_MAX_DEPTH = 64
_MOST_DIGITS = 4000
"""Of a decimal integer, since Python takes quadratic time for more. Longer ones are written in base 16."""
_MOST_COLLIDING = 64
"""Keys whose hash another one has."""
PARSING = Lock()
"""Python 3.11 keeps the depth of the tree that it builds in one place for all threads, and raises SystemError if two build."""

_NUMBER = r"(?:0x[0-9a-f]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?)"
_TOKEN = re.compile(
    rf"""\s*(?:
    (?P<number>-?{_NUMBER})(?![\w.])
    |(?P<complex>-?{_NUMBER}j|\(-?{_NUMBER}[+-]{_NUMBER}j\))
    |(?P<set>set\(\))
    |(?P<word>[A-Za-z]+)(?![\w'"])
    |(?P<text>b?['"])
    |(?P<mark>[\[\](){{}},:])
    )""",
    re.VERBOSE,
)
_SPACE = re.compile(r"\s*")
_END_OF_TEXT = {quote: re.compile(rf"[\\\n{quote}]") for quote in "'\""}
_CLOSES = {"[": "]", "(": ")", "{": "}"}
_WORDS = {"None": None, "True": True, "False": False}


class TooManyValues(ValueError):
    """It may well be a literal, but is not read to its end."""


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """What a dict holds, in the order of the text. Keys may be equal: then nobody but a forger wrote it."""

    items: tuple[tuple[object, object], ...]

    def __len__(self) -> int:
        return len(self.items)

    def __repr__(self) -> str:
        return "{" + ", ".join(f"{key!r}: {value!r}" for key, value in self.items) + "}"


@dataclass(frozen=True, slots=True, eq=False)
class Members:
    """What a set holds, likewise."""

    items: tuple[object, ...]

    def __len__(self) -> int:
        return len(self.items)

    def __repr__(self) -> str:
        return "{" + ", ".join(map(repr, self.items)) + "}" if self.items else "set()"


def read_literal(text: str, *, most_values: int = MOST_VALUES) -> object:
    """The value of a literal, with Pairs for dicts and Members for sets. Raises ValueError for anything else, and for what holds
    more than ``most_values`` values."""
    value, end = read_beginning(text, most_values=most_values)
    if text[end:].strip():
        raise ValueError(f"a result must be one Python literal; got {text[:80]!r}")
    return value


def read_beginning(text: str, *, most_values: int = MOST_VALUES) -> tuple[object, int]:
    """The value of the literal that ``text`` begins with, and where it ends. Raises ValueError as ``read_literal`` does."""
    reader = _Reader(text, most_values)
    return reader.value(), reader.at


def plain(value: object) -> object:
    """The same with dicts for Pairs and sets for Members. Raises ValueError where keys are equal, or collide on purpose."""
    match value:
        case Pairs():
            _check_hashes([key for key, _ in value.items])
            made: object = {key: plain(item) for key, item in value.items}
        case Members():
            _check_hashes(value.items)
            made = set(value.items)
        case list():
            return [plain(item) for item in value]
        case tuple():
            return tuple(plain(item) for item in value)
        case _:
            return value
    assert isinstance(made, dict | set)
    if len(made) != len(value):
        raise ValueError("the keys of a dict and the members of a set must differ")
    return made


def num_values(value: object) -> int:
    """How many values a literal's value holds, itself and keys included."""
    total, left = 0, [value]
    while left:
        one = left.pop()
        total += 1
        match one:
            case dict():
                left += [*one.keys(), *one.values()]
            case list() | tuple() | set() | frozenset():
                left += one
            case Pairs():
                left += [part for pair in one.items for part in pair]
            case Members():
                left += one.items
    return total


class _Reader:
    """Reads from ``at`` on. Its time grows with the text, and its memory with the number of values."""

    def __init__(self, text: str, most_values: int) -> None:
        self._text, self.at = text, 0
        self._left = most_values

    def value(self, depth: int = 0) -> object:
        kind, token = self._token()
        match kind:
            case "number":
                self._count()
                return _number(token)
            case "complex":
                self._count()
                return complex(_checked(token))
            case "text":
                self._count()
                return self._strings(token)
            case "set":
                self._count()
                return Members(())
            case "word" if token in _WORDS:
                self._count()
                return _WORDS[token]
            case "mark" if token in _CLOSES and depth < _MAX_DEPTH:
                self._count()
                return self._dict_or_set(depth) if token == "{" else self._list_or_tuple(token, depth)
        raise self._no_literal()

    def _list_or_tuple(self, opened: str, depth: int) -> object:
        items: list[object] = []
        has_comma = False
        while not self._takes(_CLOSES[opened]):
            if items and not has_comma:
                raise self._no_literal()
            items.append(self.value(depth + 1))
            has_comma = self._takes(",")
        if opened == "[":
            return items
        return items[0] if len(items) == 1 and not has_comma else tuple(items)

    def _dict_or_set(self, depth: int) -> object:
        keys: list[object] = []
        values: list[object] = []
        has_comma = False
        while not self._takes("}"):
            if keys and not has_comma:
                raise self._no_literal()
            keys.append(_hashable(self.value(depth + 1)))
            if self._takes(":"):
                values.append(self.value(depth + 1))
            if len(values) not in (0, len(keys)):
                raise self._no_literal()
            has_comma = self._takes(",")
        return Pairs(tuple(zip(keys, values, strict=True))) if values or not keys else Members(tuple(keys))

    def _token(self) -> tuple[str, str]:
        found = _TOKEN.match(self._text, self.at)
        if found is None or found.lastgroup is None:
            raise self._no_literal()
        self.at = found.end()
        return found.lastgroup, found[found.lastgroup]

    def _takes(self, mark: str) -> bool:
        """Whether ``mark`` comes next; if so, go past it and the space behind it."""
        if not self._text.startswith(mark, self.at):
            self._skip_space()
            if not self._text.startswith(mark, self.at):
                return False
        self.at += 1
        self._skip_space()
        return True

    def _skip_space(self) -> None:
        if self._text[self.at : self.at + 1].isspace():
            found = _SPACE.match(self._text, self.at)
            assert found is not None
            self.at = found.end()

    def _strings(self, opening: str) -> str | bytes:
        """One text, or several that stand side by side, which are one."""
        parts = [self._string(opening)]
        while True:
            self._skip_space()
            found = _TOKEN.match(self._text, self.at)
            if found is None or found["text"] is None:
                break
            self.at = found.end()
            parts.append(self._string(found["text"]))
        texts, bytes_ = [part for part in parts if isinstance(part, str)], [part for part in parts if isinstance(part, bytes)]
        if texts and bytes_:
            raise self._no_literal()
        return "".join(texts) if texts else b"".join(bytes_)

    def _string(self, opening: str) -> str | bytes:
        start, quote = self.at - len(opening), opening[-1]
        has_escape = False
        while (found := _END_OF_TEXT[quote].search(self._text, self.at)) is not None and found[0] != "\n":
            if found[0] == quote:
                self.at = found.end()
                if not has_escape and opening == quote:
                    return self._text[start + 1 : self.at - 1]
                return _unescaped(self._text[start : self.at])
            has_escape = True
            self.at = found.end() + 1
        raise self._no_literal()

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise TooManyValues("a literal must hold no more values than is expected of it")

    def _no_literal(self) -> ValueError:
        return ValueError(f"a result must be a Python literal; got {self._text[:80]!r}")


def _number(token: str) -> int | float:
    if "x" in token:
        return int(token, 16)
    _checked(token)
    return float(token) if any(mark in token for mark in ".eE") else int(token)


def _checked(token: str) -> str:
    if len(token) > _MOST_DIGITS:
        raise ValueError(f"a result must be a Python literal of at most {_MOST_DIGITS} digits; got {token[:80]!r}")
    return token


def _unescaped(token: str) -> str | bytes:
    """The value of one text in quotes, by Python's own parser, whose work grows with its length alone."""
    try:
        with PARSING, warnings.catch_warnings(action="ignore"):  # the answer's text, not ours, is what is warned of
            value = ast.literal_eval(token)
    except (ValueError, SyntaxError, MemoryError) as error:
        raise ValueError(f"a result must be a Python literal; got {token[:80]!r}") from error
    assert isinstance(value, str | bytes)
    return value


def _hashable(key: object) -> object:
    if isinstance(key, list | Pairs | Members):
        raise ValueError("a result must be a Python literal; the keys of this one cannot be keys")
    if isinstance(key, tuple):
        for item in key:
            _hashable(item)
    return key


def _check_hashes(keys: Iterable[object]) -> None:
    hashes = [hash(key) for key in keys]
    if len(hashes) - len(set(hashes)) > _MOST_COLLIDING:
        raise ValueError("keys must not be made to collide")
