"""What a rank is told when it is made: where it stands, how its losses are scaled, what it keeps."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

START_TIMEOUT_S = 600.0
"""Longest that a rank may take to load its model and meet the others, or ``learner.timeout_s`` where that is longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A rank's place among the others."""

    rank: int
    num_ranks: int
    rendezvous: str
    """``tcp://host:port`` or ``file:///path`` that all ranks reach."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """What the learner knows and a micro-batch does not."""

    temperature: float
    max_response_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """How much is kept of single tokens."""

    share: float
    """Share of the distilled attempts that is kept."""
    num_top: int
    """Most probable tokens kept at a position."""

    def draws(self, step: int, row_key: tuple[int, int]) -> bool:
        """Whether an attempt is kept: a pure function of the step and of where the attempt stands in it.

        A repeated step keeps the same ones, and so do two runs that are compared.
        """
        digest = blake2b(f"{step}/{row_key[0]}/{row_key[1]}".encode(), digest_size=8).digest()
        return int.from_bytes(digest) < self.share * 2**64
