"""The type that a run computes in unless told otherwise is one that the machine multiplies by itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdpo.config.compose import evaluate_config, train_config, warmup_config
from sdpo.config.native import native_dtype


def machine(root: Path, cpuinfo: str | None, devices: tuple[str, ...] = ()) -> Path:
    for device in devices:
        (root / device).parent.mkdir(parents=True, exist_ok=True)
        (root / device).touch()
    if cpuinfo is not None:
        (root / "proc").mkdir()
        (root / "proc" / "cpuinfo").write_text(cpuinfo)
    return root


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx avx2 fma\n", "float32"),
        ("processor\t: 0\nflags\t\t: fpu avx avx2 avx512bw avx512_bf16\n", "bfloat16"),
        ("processor\t: 0\nFeatures\t: fp asimd bf16\n", "bfloat16"),
        ("processor\t: 0\nFeatures\t: fp asimd\n", "float32"),
        ("nothing of the kind \udcff", "float32"),
        ("", "float32"),
        (None, "float32"),
    ],
)
def test_a_cpu_computes_in_bf16_where_it_has_instructions_for_it(tmp_path, cpuinfo, expected):
    root = machine(tmp_path, None)
    if cpuinfo is not None:
        (root / "proc").mkdir()
        (root / "proc" / "cpuinfo").write_bytes(cpuinfo.encode("utf-8", "surrogateescape"))
    assert native_dtype(None, root) == expected


@pytest.mark.parametrize("device", ["dev/nvidiactl", "dev/kfd"])
def test_a_gpu_computes_in_bf16_whatever_the_cpu_does(tmp_path, device):
    assert native_dtype(None, machine(tmp_path, "flags : avx2\n", (device,))) == "bfloat16"


def test_a_cluster_elsewhere_is_not_judged_by_this_machine(tmp_path):
    assert native_dtype("ray://10.0.0.1:10001", machine(tmp_path, "flags : avx2\n")) == "bfloat16"


@pytest.mark.parametrize("config", [train_config, evaluate_config])
def test_every_command_asks_the_machine_and_a_word_overrules_it(config):
    assert config([]).rollout.dtype.value == native_dtype(None)
    assert config(["cluster.address=auto"]).rollout.dtype.value == "bfloat16"
    assert config(["rollout.dtype=float32"]).rollout.dtype.value == "float32"


@pytest.mark.parametrize("learner", ["default", "lora"])
def test_learner_and_engine_compute_alike(learner):
    for config in (train_config([f"learner={learner}"]), warmup_config([f"learner={learner}", "to=x"])):
        assert config.learner.dtype == config.rollout.dtype
