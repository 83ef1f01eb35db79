"""From nothing to a checked environment, as a plug-in's author goes: new, install, check. ``test_plugins`` trains on one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def called(*words: str, folder: Path, timeout_s: float = 120.0) -> str:
    """What a command printed; it must succeed."""
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env={**os.environ, "COLUMNS": "200"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a new package, installed where every process that is started from here finds it."""
    called("-m", "sdpo.cli", "envs", "new", "word_mirror", "plugin", folder=tmp_path)
    installed = tmp_path / "installed"
    pip = ("-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--no-index")
    called(*pip, "--target", str(installed), str(tmp_path / "plugin"), folder=tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(installed))
    return tmp_path / "plugin"


def test_a_new_package_installs_is_found_by_name_and_keeps_the_rules(plugin: Path) -> None:
    cli = ("-m", "sdpo.cli", "envs")
    assert "word_mirror:WordMirror" in called(*cli, "list", folder=plugin)
    assert "word_mirror: 0 errors, 0 warnings" in called(*cli, "check", "word_mirror", "ignore_case=true", folder=plugin)
    assert "the reference" in called(*cli, "sample", "word_mirror", "1", folder=plugin)


def test_a_new_packages_own_tests_pass_before_it_is_installed(plugin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH")
    assert "4 passed" in called("-m", "pytest", "-q", "-p", "no:cacheprovider", folder=plugin)


@pytest.mark.parametrize("command", ["check", "format"])
def test_a_new_package_is_tidy(command: str, plugin: Path) -> None:
    flags = ["--check"] if command == "format" else ["--select", "E,F,I,UP,B,SIM,PT,RUF"]
    called("-m", "ruff", command, "--isolated", "--line-length", "130", *flags, ".", folder=plugin)
