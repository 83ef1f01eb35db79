"""Rules that a single value keeps; a breach is a ValueError that says the rule and what was found."""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass

MAX_SEED = 2**32 - 1
"""numpy's generator, which engines seed, takes no larger one."""
MAX_NAME_BYTES = 200
"""A folder's name has 255 bytes, and scratch folders and sweeps add to a run's."""


def at_least(key: str, value: float, bound: float, reason: str) -> None:
    finite(key, value)
    if not value >= bound:
        raise ValueError(f"{key} must be at least {bound} ({reason}); got {value}.")


def finite(key: str, value: float) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{key} must be a finite number; got {value}. Give a number.")


def finite_throughout(config: object, prefix: str = "") -> None:
    """Every number of a config's dataclasses is finite, whether or not it keeps another rule."""
    assert is_dataclass(config)
    for field in fields(config):
        value = getattr(config, field.name)
        if isinstance(value, float):
            finite(f"{prefix}{field.name}", value)
        elif is_dataclass(value):
            finite_throughout(value, f"{prefix}{field.name}.")


def seed_within(seed: int) -> None:
    if not 0 <= seed <= MAX_SEED:
        raise ValueError(f"seed must lie between 0 and {MAX_SEED} (the engines' generators take 32 bits); got {seed}.")


def folder_name(name: str, of: str) -> None:
    """``of``: whose folder it is, ``run`` or ``search``."""
    if "/" in name or name.startswith("."):
        raise ValueError(f"name must be a plain folder name (the {of}'s folder under runs_dir); got {name!r}.")
    if not name.isprintable():
        raise ValueError(f"name must be printable text (the {of}'s folder and trackers are called by it); got {name!r}.")
    if len(name.encode()) > MAX_NAME_BYTES:
        raise ValueError(
            f"name must have at most {MAX_NAME_BYTES} bytes (the {of}'s folder is called by it); got {len(name.encode())}: "
            f"{name[:40] + '…'!r}. Choose a shorter name=."
        )


def between(key: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"{key} must lie between {low} and {high}; got {value}.")


def positive(key: str, value: float) -> None:
    finite(key, value)
    if not value > 0.0:
        raise ValueError(f"{key} must be positive; got {value}.")


def probability(key: str, value: float) -> None:
    if not 0.0 < value <= 1.0:
        raise ValueError(f"{key} must lie in (0, 1]; got {value}.")
