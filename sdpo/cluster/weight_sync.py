"""How do weights get from the learner's ranks to the engines? Ours: through Ray's object store, shared memory or the network."""

from __future__ import annotations

from typing import cast

import ray

from sdpo.plugins.seam import made
from sdpo.plugins.seams import WEIGHT_SYNCS
from sdpo.protocols import WeightSync
from sdpo.weights import PackedWeights

FETCH_TIMEOUT_S = 30.0
"""Longest wait for one bucket, also from another machine. Ray itself would wait without end for an object whose owner died
while it was on its way."""


def weight_sync(name: str) -> WeightSync:
    """The one of that name. Raises ValueError where there is none, or what is named is none."""
    make = WEIGHT_SYNCS.load(name)
    found = made(make, f"rollout.weight_sync {name!r}")
    if not callable(getattr(found, "put", None)) or not callable(getattr(found, "fetch", None)):
        raise ValueError(
            f"rollout.weight_sync must name a class with put and fetch (sdpo.protocols.WeightSync); {name!r} is {make!r}"
        )
    return cast(WeightSync, found)


class ObjectStore:
    """The WeightSync of a run."""

    def put(self, bucket: PackedWeights) -> object:
        """A reference. The driver passes it on and never holds the bucket."""
        return ray.put(bucket)

    def fetch(self, place: object) -> PackedWeights:
        """The bucket, without a copy where it is on this machine."""
        assert isinstance(place, ray.ObjectRef)
        weights = ray.get(place, timeout=FETCH_TIMEOUT_S)
        assert isinstance(weights, PackedWeights)
        return weights
