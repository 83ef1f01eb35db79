"""Are two tasks the same, made in different processes? A digest of what a task is made of, whatever its payload's class.

Sets count without their order, objects by their class and attributes. An object without either (a function of C, a numpy array)
counts by its class only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from hashlib import blake2b

from sdpo.types import Task

MAX_DEPTH = 100
"""What lies deeper does not count, as nothing that deep can be walked through safely."""


def fingerprint(task: Task) -> str:
    """Depends on nothing but the task's contents."""
    digest = blake2b(digest_size=12)
    for part in _parts(task, ()):
        digest.update(part.encode("utf-8", "surrogatepass"))
        digest.update(b"\0")
    return digest.hexdigest()


def _parts(value: object, within: tuple[int, ...]) -> Iterator[str]:
    """The value as a stream of words; ``within``: ids of what it stands in, so that a cycle ends."""
    kind = type(value)
    yield f"{kind.__module__}.{kind.__qualname__}"
    if id(value) in within or len(within) > MAX_DEPTH:
        return
    inside = (*within, id(value))
    if isinstance(value, Enum):
        yield value.name
    elif isinstance(value, str):
        yield str.__str__(value)
    elif isinstance(value, int):
        yield f"{value:x}"  # decimal digits of a huge number are refused
    elif isinstance(value, (float, bytes, bytearray)):
        yield value.hex()
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _parts(key, inside)
            yield from _parts(item, inside)
    elif isinstance(value, (list, tuple)):
        yield str(len(value))
        for item in value:
            yield from _parts(item, inside)
    elif isinstance(value, (set, frozenset)):
        yield from sorted(" ".join(_parts(item, inside)) for item in value)
    else:
        for name, attribute in _attributes(value):
            yield name
            yield from _parts(attribute, inside)


def _attributes(value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, type) or callable(value):
        yield "name", getattr(value, "__qualname__", "")  # classes and functions have one; other callables need not
    elif is_dataclass(value):
        yield from ((field.name, getattr(value, field.name)) for field in fields(value))
    elif hasattr(value, "__dict__"):
        yield from sorted(vars(value).items())
