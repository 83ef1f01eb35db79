"""Which isolations ``make test`` attacks with what: the strongest here with everything, the others with samples."""

from __future__ import annotations

from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

from sdpo.envs import sandbox
from sdpo.envs.sandbox import Isolation

EVERY = 4
"""Of the cases of a test, the other isolations get every fourth; a test without cases is run under each isolation."""


@cache
def strongest() -> Isolation:
    return next((kind for kind, reason in sandbox.reasons_against().items() if not reason), Isolation.bubblewrap)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the rest of the matrix of isolations and cases ``full``."""
    seen: dict[tuple[str, Isolation], int] = defaultdict(int)
    for item in items:
        if not isinstance(item, pytest.Function) or Path(__file__).parent not in item.path.parents:
            continue
        cases = dict(item.callspec.params) if hasattr(item, "callspec") else {}
        kind = cases.pop("kind", None) or cases.pop("level", None)
        if not isinstance(kind, Isolation) or not cases or kind is strongest():
            continue
        place = seen[item.originalname, kind]
        seen[item.originalname, kind] += 1
        if place % EVERY:
            item.add_marker("full")
