"""Models on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.learner.samples import write_calm_model


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_calm_model(tmp_path_factory.mktemp("learner") / "tied")


@pytest.fixture(scope="session")
def untied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_calm_model(tmp_path_factory.mktemp("learner") / "untied", tie_embeddings=False, seed=1)
