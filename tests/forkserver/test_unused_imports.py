"""What a start does without: the index of transformers is kept, DeepSpeed comes without MLflow and TorchInductor, Ray without an
agent. Each in a process of its own, for imports happen once."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

from sdpo.cluster import no_agent
from sdpo.forkserver.transformers_index import _once

INDEXED = """
from sdpo.forkserver.transformers_index import keep_index
keep_index()
import sys, transformers
from transformers.utils import import_utils
from pathlib import Path
found = sys.modules["transformers"]
index = {name for names in found._import_structure.values() for name in names}
truth = import_utils.define_import_structure(Path(transformers.__file__).parent / "models", prefix="models")
assert {name for modules in truth.values() for names in modules.values() for name in names} <= index
assert not any(type(finder).__module__ == "sdpo.forkserver.transformers_index" for finder in sys.meta_path)
assert isinstance(transformers.__version__, str)
"""

LEAN = """
import sys, torch
compiles = torch.compile
from sdpo.learner.importing import import_deepspeed
deepspeed = import_deepspeed()
assert callable(deepspeed.initialize)
assert torch.compile is compiles
assert "mlflow" not in sys.modules and "torch._inductor.compile_fx" not in sys.modules, "what nobody uses was imported"
from deepspeed.runtime.zero.muon.original_muon import zeropower_via_newtonschulz5
found = zeropower_via_newtonschulz5(torch.eye(4), steps=2)
assert found.shape == (4, 4)
"""


def run(text: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", text], env={**os.environ, **variables}, capture_output=True, text=True, check=False
    )


def test_the_index_of_transformers_is_its_own(tmp_path: Path) -> None:
    """Once made and once read, in whole processes."""
    for _ in range(2):
        done = run(INDEXED, SDPO_CACHE=str(tmp_path))
        assert done.returncode == 0, done.stderr
        [kept] = tmp_path.glob("imports/transformers-*.json")
        assert kept.stat().st_size > 100_000


STRUCTURE = {frozenset({"torch"}): {"models.a.modeling_a": {"A", "B"}}, frozenset[str](): {"models.a": {"C"}}}


def defined(models: Path) -> int:
    """How often transformers' own function was called, when its module is asked twice for the same and once for a part."""
    module, calls = ModuleType("utils"), []

    def define_import_structure(folder: Path, prefix: str | None = None) -> object:
        calls.append(prefix)
        return STRUCTURE

    module.define_import_structure = _once(module, define_import_structure)  # type: ignore[attr-defined]
    assert module.define_import_structure(models / "a") == STRUCTURE
    assert module.define_import_structure(models, prefix="models") == STRUCTURE
    assert module.define_import_structure is define_import_structure, "from then on it is as it was"
    return calls.count("models")


def test_an_index_is_read_where_it_is_whole_and_of_this_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    monkeypatch.setenv("SDPO_CACHE", str(tmp_path / "cache"))
    assert [defined(models), defined(models)] == [1, 0]
    [kept] = (tmp_path / "cache").glob("imports/transformers-*.json")
    for damage in ("[[", '{"a": 1}', "[[1, 2]]"):
        kept.write_text(damage)
        assert [defined(models), defined(models)] == [1, 0], damage
    (models / "b").mkdir()
    assert [defined(models), defined(models)] == [1, 0], "a folder with other models"


def test_a_cache_that_cannot_be_written_costs_time_and_no_more(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SDPO_CACHE", str(tmp_path / "file"))
    assert [defined(tmp_path), defined(tmp_path)] == [1, 1]


def test_deepspeed_comes_without_what_nobody_uses() -> None:
    """It took four of the learner's six seconds: MLflow for an autotuner, TorchInductor for an optimizer."""
    done = run(LEAN)
    assert done.returncode == 0, done.stderr


def test_the_agent_says_that_there_is_none_and_ends_with_its_node(tmp_path: Path) -> None:
    """Its parent is killed while it waits."""
    agent = [sys.executable, "-S", no_agent.__file__, str(tmp_path)]
    starts = f"import subprocess, time; subprocess.Popen({agent!r}); time.sleep(60)"
    node = subprocess.Popen([sys.executable, "-c", starts], env={**os.environ, "RAY_NODE_ID": "abc"}, stdout=subprocess.PIPE)
    until = time.monotonic() + 30
    services = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port")
    while not all((tmp_path / f"{service}_abc").exists() for service in services):
        assert time.monotonic() < until
        time.sleep(0.02)
    assert {(tmp_path / f"{service}_abc").read_text() for service in services} == {"-1"}
    node.kill()
    assert node.stdout is not None
    assert node.stdout.read() == b"", "until the last that holds the pipe has ended"
    node.wait()


ENGINE = """
import sys
import sdpo.rollout.preload
unused = {"openai", "fastapi", "vllm.entrypoints.llm", "vllm.entrypoints.chat_utils", "torch._inductor.compile_fx"}
assert not unused & set(sys.modules), f"what nobody uses was imported: {unused & set(sys.modules)}"
assert not {"vllm.entrypoints.mcp.tool_server", "vllm.parser.engine.adapters"} & set(sys.modules), "a placeholder was left"
"""


def test_vllm_comes_without_its_servers() -> None:
    """HTTP servers and chats took half of the engine's four seconds."""
    done = run(ENGINE)
    assert done.returncode == 0, done.stderr
