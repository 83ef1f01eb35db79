"""Run folders, each written once and copied for the tests that change theirs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.report import runs


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three steps, to be left as it is."""
    return runs.write_run(tmp_path_factory.mktemp("written") / "run", num_steps=3)


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One whose completions attack, to be left as it is."""
    return runs.hostile_run(tmp_path_factory.mktemp("hostile") / "run")


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    """A run of three steps, to do with as a test likes."""
    return Path(shutil.copytree(written, tmp_path / "run"))
