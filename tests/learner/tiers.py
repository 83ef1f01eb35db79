"""Corners of matrices: ``make test`` runs these of all the ways to be a learner, which cost seconds each; the rest is ``full``.

Corners are chosen so that each ZeRO stage, dtype, number of ranks, offload and adapter occurs, rather together than alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import TypeVar

import pytest

K = TypeVar("K")
V = TypeVar("V")


def tiered(cases: Iterable[object], corners: Collection[object]) -> list[object]:
    """For ``parametrize``: all cases, those that are no corners marked ``full``."""
    every = list(cases)
    assert all(corner in every for corner in corners), "a corner must be one of the cases"
    return [case if case in corners else pytest.param(case, marks=pytest.mark.full) for case in every]


def ranks_and(corners: Iterable[str], every: Iterable[str]) -> list[object]:
    """For ``parametrize`` with ``num_ranks`` and ``labels``: the corners on two ranks; all on one and all on two are ``full``."""
    full = tuple(every)
    return [
        pytest.param(2, tuple(corners), id="2-corners"),
        pytest.param(1, full, id="1-all", marks=pytest.mark.full),
        pytest.param(2, full, id="2-all", marks=pytest.mark.full),
    ]


class MadeOnce(dict[K, V]):
    """What a fixture makes of a key when a test asks for it first."""

    def __init__(self, make: Callable[[K], V]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, key: K) -> V:
        self[key] = self._make(key)
        return self[key]
