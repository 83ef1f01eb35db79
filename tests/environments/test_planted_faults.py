"""Each fault that an author may make is found under its own name, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdpo.environments import Inspection, check
from tests.environments.planted import PLANTED, SOUND, THIN
from tests.envs.test_check import FAULTS


def kinds(inspection: Inspection) -> list[str]:
    return sorted({f"{finding.severity.value} {finding.rule}" for finding in inspection.findings})


def test_there_are_ninety_planted_faults_and_more() -> None:
    """The table here and that of ``tests/envs/test_check.py`` have no fault in common."""
    assert not PLANTED.keys() & FAULTS.keys()
    assert len(PLANTED) + len(FAULTS) >= 90
    assert set(THIN) <= PLANTED.keys()


@pytest.mark.parametrize("name", ["Sound", "Guessing"])
def test_what_the_faults_are_planted_in_is_sound(name: str, tmp_path: Path) -> None:
    (tmp_path / "words.py").write_text(SOUND)
    inspection = check(f"{tmp_path / 'words.py'}:{name}")
    assert not inspection.findings, str(inspection)


@pytest.mark.parametrize("fault", [pytest.param(name, marks=() if name in THIN else pytest.mark.full) for name in PLANTED])
def test_each_planted_fault_is_found_and_nothing_else(fault: str, tmp_path: Path) -> None:
    """About fifty of ninety faults were found once, and a ``tasks()`` without an end only after 300 s."""
    planted = PLANTED[fault]
    (tmp_path / "words.py").write_text(f"{SOUND}\nclass Faulty({planted.base}):{planted.body}")
    inspection = check(f"{tmp_path / 'words.py'}:Faulty", num_tasks=2, verdict_limit_s=6.0, tasks_limit_s=2.5)
    assert kinds(inspection) == sorted(planted.findings), str(inspection)
    for finding in inspection.findings:
        assert finding.where
        assert finding.remedy.endswith(".")
        assert len(str(finding)) < 700
