"""What passes between a check and the process in which the environment is examined."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from sdpo.environments.findings import Finding


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Which environment to examine, and how."""

    spec: str
    """Means the same in every folder (``plugins.seam.anywhere``)."""
    options: Mapping[str, object]
    train_split: str
    heldout_split: str
    num_tasks: int
    """Tasks a split whose verdicts are examined."""
    verdict_limit_s: float
    """A verdict that takes longer counts as hung."""
    tasks_limit_s: float
    """Tasks that take longer count as endless."""
    search_path: tuple[str, ...]
    """``sys.path`` of the process that asks: what it can import, the other can."""
    restored: Mapping[str, tuple[bytes, ...]]
    """Split to pickled tasks that another process made. Empty: examine everything; else: judge these, and look at ``tasks``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Began:
    """What the process does from now on, and for how long it may before it counts as hung."""

    where: str
    limit_s: float
    rule: str = "hangs"
    remedy: str = "Bound what an answer may cost: its length, its nesting, the time it runs. The rest was not checked."


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The environment cannot be made: the sentence that says why."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """The tasks of a split."""

    split: str
    num_tasks: int
    """All of them."""
    fingerprints: tuple[tuple[str, str], ...]
    """(id, fingerprint) of each that was looked at, in order."""
    pickled: tuple[bytes, ...]
    """Those whose verdicts are examined."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """What must be the same whenever and wherever an answer is judged. Metrics may hold times, so they may differ."""

    reward: float
    feedback: str | None
    metric_names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """The verdicts of the first round."""

    rulings: Mapping[tuple[str, str], Ruling]
    """(task id, name of the answer) to ruling."""
    seconds: tuple[float, ...]
    """How long each call took."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """Heavy libraries that the environment imported."""

    libraries: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """Everything has been examined."""


Record: TypeAlias = Began | Ended | Finding | Imported | Judged | Listed | Refused
Send: TypeAlias = Callable[[Record], None]
"""How the process in which an environment is examined tells what it found."""
