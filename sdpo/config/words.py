"""What does a word of the command line mean? From what people type to what hydra's grammar reads.

Text comes as it was typed: ``model.path=~/copy (1)``, ``name=1e3``. hydra would take such a value apart, or read a number in it.
So the values of text keys are put into quotes. ``+KEY=`` and ``++KEY=`` mean ``KEY=``: no key is new because it is written so.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Union, get_args, get_origin, get_type_hints

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException

from sdpo.errors import UserError

OPEN = (
    "env.options.",
    "algorithm.filter.options.",
    "algorithm.filter.options=",
    "batch.order.options.",
    "batch.order.options=",
    "model.chat_template_options.",
    "cluster.env.",
    "cluster.env=",
    "cluster.node_selector=",
)
"""Keys under these are the environment's, the filter's, the order's, the template's and the pods' own, so any may be given."""
_OPEN_GROUPS = tuple(dict.fromkeys(key.rstrip(".=") for key in OPEN))


def plain(word: str) -> str:
    """The word without hydra's ``+`` and ``++``. Raises UserError for one that is no ``KEY=VALUE``, and for ``~KEY``.

    ``~KEY`` stays where keys are one's own: it takes away what the environment's YAML file gives.
    """
    if word.startswith("~"):
        if word[1:].startswith(OPEN):
            return word
        key = word[1:].partition("=")[0]
        raise UserError(
            f"~KEY takes away only what is one's own, under {', '.join(_OPEN_GROUPS)} (every other key has a value); got "
            f"{word!r}. Say {key}=VALUE, or leave it out for the default."
        )
    bare = word.lstrip("+")
    if "=" not in bare or bare.startswith("="):
        raise UserError(f"a word must be KEY=VALUE (sdpo COMMAND --help lists keys and flags); got {word!r}.")
    return bare


def readable(word: str, root: type) -> str:
    """A plain word as hydra reads it, with text in quotes where ``root``, a command's config, has text.

    Raises UserError for a value that is neither text nor anything hydra can read.
    """
    if word.startswith("~"):
        return word
    key, _, value = word.partition("=")
    if key in text_keys(root):
        return word if value == "null" or _is_quoted(value) else f"{key}={_quoted(_at_home(value))}"
    if not word.startswith(OPEN):
        if (reason := _unreadable(word)) is not None:
            raise UserError(
                f"{key} must have a value that hydra's grammar reads; {value!r} is none ({reason}). Text with other signs than "
                f"letters and digits goes into quotes: \"{key}='…'\"."
            )
        return word
    if value.startswith("~/") or (_unreadable(word) is not None and value[:1] not in ("[", "{")):
        word = f"{key}={_quoted(_at_home(value))}"
    return f"++{word}"  # hydra wants it before a key that no schema lists


def choices(word: str, root: type) -> list[str]:
    """A plain word of a sweep, once for each of its values. Raises UserError where they are not listed."""
    key, _, value = word.partition("=")
    if word.startswith("~"):
        return [word]
    if key in text_keys(root) and not set(value) & set("'\"()[]{}"):
        parts = value.split(",")
        if len(parts) == 1:
            return [word]
        if "" in parts:
            raise UserError(f"a sweep goes over values that are listed (a,b,c), none of them empty; got {word!r}.")
        return [f"{key}={part if _means_itself(part) else _quoted(_at_home(part))}" for part in parts]
    if key in text_keys(root) and _unreadable(word) is not None:
        return [word]
    override = _parsed(readable(word, object) if word.startswith(OPEN) else word)
    if not override.is_sweep_override():
        return [word]
    if override.is_discrete_sweep() and "glob(" not in word:
        return [f"{key}={found}" for found in override.sweep_string_iterator()]
    raise UserError(f"a sweep goes over values that are listed (a,b,c) or counted (range(1,4)); got {word!r}. List them.")


@cache
def text_keys(root: type) -> frozenset[str]:
    """Keys of a config's dataclass, and of those that may stand in its fields, whose values are text."""
    texts: set[str] = set()
    others: set[str] = set()
    for key, kind in _leaves(root):
        (texts if kind is str else others).add(key)
    return frozenset(key for key in texts - others if not key.endswith(".kind"))  # a kind is a choice: kinds.py


def _leaves(root: type, prefix: str = "") -> Iterator[tuple[str, object]]:
    if not is_dataclass(root):
        return
    hints = get_type_hints(root)
    for name in (field.name for field in fields(root)):
        kind = hints[name]
        if get_origin(kind) in (UnionType, Union):
            (kind,) = [part for part in get_args(kind) if part is not type(None)]
        if isinstance(kind, type) and is_dataclass(kind):
            kinds: list[type] = [kind, *_below(kind)]
            for one in kinds:
                yield from _leaves(one, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", kind


def _below(kind: type) -> Iterator[type]:
    subclasses: list[type] = kind.__subclasses__()
    for one in subclasses:
        yield one
        yield from _below(one)


def _parsed(word: str) -> Override:
    try:
        return OverridesParser.create().parse_override(word)
    except HydraException as error:
        raise UserError(f"{str(error).partition(chr(10))[0]} (in {word!r})") from error


def _unreadable(word: str) -> str | None:
    """What hydra's grammar says against a word; None where it reads it."""
    try:
        OverridesParser.create().parse_override(word)
    except HydraException as error:
        return str(error).partition("\n")[0].rstrip(".")
    return None


def _means_itself(value: str) -> bool:
    """Whether hydra reads just this text where it finds it without quotes."""
    word = f"text={value}"
    return _unreadable(word) is None and _parsed(word).value() == value


def _is_quoted(value: str) -> bool:
    if len(value) < 2 or value[0] not in "'\"" or value[-1] != value[0]:
        return False
    return _unreadable(f"text={value}") is None


def _quoted(text: str) -> str:
    return str(QuotedString(text=text, quote=Quote.single).with_quotes())


def _at_home(text: str) -> str:
    """A shell expands ``~`` only where a word begins with it."""
    return os.path.expanduser(text) if text.startswith("~/") else text
