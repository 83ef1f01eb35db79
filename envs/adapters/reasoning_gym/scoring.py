"""How does the trainer ask reasoning-gym for puzzles and scores without running any of it in its own process?

By a helper (``sandbox/helpers.py``) that runs ``worker.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sdpo.envs.sandbox.helpers import Helper, Limits, helper

WORKER = Path(__file__).with_name("worker.py")
PACKAGE = "reasoning_gym"


@dataclass(frozen=True, slots=True, kw_only=True)
class Puzzle:
    """A task's payload."""

    dataset: str
    reference: str | None
    """A right answer, never to be shown to a student; None where the dataset gives none."""
    entry: bytes
    """What the scorer wants back, pickled by the worker and opaque here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What a scorer gave an answer."""

    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Unscored:
    """Why a scorer came to no score: ``"it raised ValueError"``."""

    reason: str


def worker() -> Helper:
    """This process's helper."""
    return helper(WORKER, PACKAGE)


def dataset_names() -> tuple[str, ...]:
    """Every dataset that the package has."""
    names = worker().about
    assert isinstance(names, list)
    return tuple(names)


def puzzles(dataset: str, options: Mapping[str, object], split: str, heldout_share: float) -> list[tuple[str, Puzzle]]:
    """Each question of ``split`` with its puzzle. Raises ValueError for options that the dataset does not take."""
    match worker().ask(("puzzles", dataset, dict(options), split, heldout_share)):
        case ("puzzles", list(made)):
            return [(question, Puzzle(dataset=dataset, reference=answer, entry=entry)) for question, answer, entry in made]
        case reply:
            raise AssertionError(reply)


def score(puzzle: Puzzle, options: Mapping[str, object], answer: str, limits: Limits) -> Score | Unscored:
    """What the dataset's scorer says of ``answer``. Raises RuntimeError where scoring itself is broken."""
    request = ("score", puzzle.dataset, dict(options), puzzle.entry, answer, limits.wall_s, limits.memory_bytes)
    try:
        reply = worker().ask(request)
    except ValueError as error:
        raise RuntimeError(f"the scorer of {puzzle.dataset} could not be run: {error}") from error
    match reply:
        case ("score", float(value)):
            return Score(value=value)
        case ("raised", str(error_name)):
            return Unscored(reason=f"it raised {error_name}")
        case ("stopped", str(reason)):
            return Unscored(reason=reason)
    raise AssertionError(reply)
