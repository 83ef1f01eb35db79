"""What the example of docs/python.md does, on the real engine and learner; and ``import sdpo`` costs nothing."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest

import sdpo

ROOT = Path(__file__).parent.parent.parent
HEAVY = ("torch", "transformers", "vllm", "ray", "deepspeed", "omegaconf", "numpy")


@pytest.fixture(scope="module")
def came_of_it(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("page")
    done = subprocess.run(
        [sys.executable, "-m", "tests.machines.page", str(folder)], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return cast(dict[str, Any], json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.integration
def test_the_page_s_example_trains_two_steps_and_searches_one_task(came_of_it: dict[str, Any]) -> None:
    rows, evaluations = came_of_it["metrics"], came_of_it["evaluations"]
    assert [row["step"] for row in rows] == [1, 2]
    assert all(math.isfinite(row["loss"]) and row["updates"] == 1 for row in rows)
    assert [found["step"] for found in evaluations] == [0, 2]
    assert came_of_it["groups"] == [[4] * 4] * 2
    assert came_of_it["changed"] == came_of_it["parameters"], "every weight has moved"
    found = came_of_it["found"]
    assert found["ending"] == "solved" if found["solution"] is not None else found["attempts"] == 32
    assert not came_of_it["has_ray"]


@pytest.mark.integration
def test_a_search_that_cannot_succeed_learns_and_spends_its_budget(came_of_it: dict[str, Any]) -> None:
    hopeless = came_of_it["hopeless"]
    assert (hopeless["solution"], hopeless["ending"], hopeless["attempts"]) == (None, "attempts", 8)
    assert hopeless["learned"] == [4, 4]
    assert len(set(hopeless["texts"])) > 1


def test_importing_sdpo_imports_nothing_heavy() -> None:
    script = f"import sys, sdpo; print([name for name in {HEAVY} if name in sys.modules], sdpo.__version__)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", sdpo.__version__]
