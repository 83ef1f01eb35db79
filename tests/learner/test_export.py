"""``sdpo export``: what transformers loads says what the learner said."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from sdpo.commands.export import run_export
from sdpo.config import (
    Blend,
    Dtype,
    EmaTeacher,
    ExportConfig,
    ExportedWeights,
    LearnerConfig,
    LoraConfig,
    SDPOConfig,
    TopSupport,
)
from sdpo.errors import UserError
from tests.learner.launch import launch
from tests.learner.ranks import Checkpointed, Setup, write_checkpoint
from tests.learner.samples import rows, updates_of
from tests.learner.tiers import MadeOnce, tiered

pytestmark = pytest.mark.integration
ALGORITHM = SDPOConfig(support=TopSupport(num_ids=10), routing=Blend(policy_gradient_share=0.4), teacher=EmaTeacher(ema_rate=0.2))
CONFIG = LearnerConfig(dtype=Dtype.float32, lr=2e-3)
IDS = tuple(range(20, 60))
VARIANTS: Mapping[str, tuple[str, int, dict[str, object]]] = {
    "tied, fp32, ZeRO 1": ("model", 1, {}),
    "untied, fp32, 2 ranks, ZeRO 3": ("untied", 2, {"zero_stage": 3}),
    "untied, bf16, ZeRO 1": ("untied", 1, {"dtype": Dtype.bfloat16}),
    "tied, bf16, 2 ranks, ZeRO 3": ("model", 2, {"zero_stage": 3, "dtype": Dtype.bfloat16}),
    "tied, adapters, fp32, ZeRO 1": ("model", 1, {"lora": LoraConfig(rank=4)}),
    "untied, adapters, fp32, 2 ranks, ZeRO 3": ("untied", 2, {"zero_stage": 3, "lora": LoraConfig(rank=4)}),
}
CORNERS = ("untied, bf16, ZeRO 1", "tied, bf16, 2 ranks, ZeRO 3", "tied, adapters, fp32, ZeRO 1")
Written = dict[str, tuple[Checkpointed, Path]]


@pytest.fixture(scope="module")
def written(model: Path, untied: Path, tmp_path_factory: pytest.TempPathFactory) -> Written:
    def write(label: str) -> tuple[Checkpointed, Path]:
        which, num_ranks, changes = VARIANTS[label]
        setup = Setup(model={"model": model, "untied": untied}[which], algorithm=ALGORITHM, config=CONFIG).with_(**changes)
        steps = [updates_of(rows(setup.model, seed=seed), ALGORITHM, num_ranks=num_ranks) for seed in range(2)]
        path = tmp_path_factory.mktemp("export") / "step_000002"
        return launch(num_ranks, write_checkpoint, setup, steps, path, IDS)[0], path

    return MadeOnce(write)


def logits(folder: Path, dtype: str = "auto") -> Tensor:
    with torch.no_grad():
        found: Tensor = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)(torch.tensor([IDS])).logits[0]
    return found


@pytest.mark.parametrize("label", tiered(VARIANTS, CORNERS))
def test_an_exported_policy_says_what_the_learner_said(label: str, written: Written, tmp_path: Path) -> None:
    seen, path = written[label]
    assert run_export(ExportConfig(checkpoint=str(path), to=str(tmp_path / "policy"))) == 0
    exported = load_file(tmp_path / "policy" / "model.safetensors")
    assert exported.keys() == seen.policy.keys()
    assert all(torch.equal(exported[name], seen.policy[name]) for name in exported)
    assert ("lm_head.weight" in exported) == ("untied" in label)
    said = logits(tmp_path / "policy", "bfloat16" if "bf16" in label else "float32")
    apart = float((said.double() - seen.logits_TV.double()).norm() / seen.logits_TV.double().norm())
    print(f"{label}: logits {apart:.1e} apart")
    assert apart < (2e-2 if "bf16" in label else 2e-6)
    assert AutoTokenizer.from_pretrained(tmp_path / "policy").encode("quick brown fox")
    assert (tmp_path / "policy" / "generation_config.json").is_file()


@pytest.mark.parametrize("label", tiered([label for label in VARIANTS if "adapters" not in label], CORNERS[:2]))
def test_an_exported_average_says_what_the_teacher_said(label: str, written: Written, tmp_path: Path) -> None:
    seen, path = written[label]
    config = ExportConfig(checkpoint=str(path), to=str(tmp_path / "average"), weights=ExportedWeights.average)
    assert run_export(config) == 0
    exported = load_file(tmp_path / "average" / "model.safetensors")
    assert exported.keys() == seen.policy.keys() == seen.average.keys()
    for name, tensor in exported.items():
        assert torch.equal(tensor.flatten(), seen.average[name].to(tensor.dtype)), name
        assert tensor.dtype == seen.policy[name].dtype
    said = logits(tmp_path / "average", "bfloat16" if "bf16" in label else "float32")
    apart, from_policy = (
        float((said.double() - other.double()).norm() / other.double().norm()) for other in (seen.teacher_TV, seen.logits_TV)
    )
    print(f"{label}: logits {apart:.1e} from the teacher's, {from_policy:.1e} from the policy's")
    assert apart < (2e-2 if "bf16" in label else 2e-6)
    assert from_policy > 2 * apart


@pytest.mark.parametrize("weights", list(ExportedWeights), ids=lambda weights: weights.value)
def test_an_export_is_loaded_in_the_type_it_was_trained_in(weights: ExportedWeights, written: Written, tmp_path: Path) -> None:
    """Of a model that came in fp32 and was trained in bf16, config.json went on saying fp32: it was loaded at twice its size."""
    _, path = written["untied, bf16, ZeRO 1"]
    assert run_export(ExportConfig(checkpoint=str(path), to=str(tmp_path / "exported"), weights=weights)) == 0
    assert {tensor.dtype for tensor in load_file(tmp_path / "exported" / "model.safetensors").values()} == {torch.bfloat16}
    assert logits(tmp_path / "exported").dtype == torch.bfloat16


def test_a_policy_can_be_exported_in_another_type(written: Written, tmp_path: Path) -> None:
    for label, dtype in (("untied, bf16, ZeRO 1", Dtype.float32), ("tied, fp32, ZeRO 1", Dtype.bfloat16)):
        seen, path = written[label]
        target = tmp_path / dtype.value
        assert run_export(ExportConfig(checkpoint=str(path), to=str(target), dtype=dtype)) == 0
        exported = load_file(target / "model.safetensors")
        wanted = getattr(torch, dtype.value)
        assert all(torch.equal(tensor, seen.policy[name].to(wanted)) for name, tensor in exported.items())
        assert json.loads((target / "config.json").read_text())["dtype"] == dtype.value
        assert logits(target).dtype == wanted


def test_an_average_exported_in_fp32_is_the_average_as_it_was_kept(written: Written, tmp_path: Path) -> None:
    """It is kept in fp32 because bf16 loses it; rounded to bf16 on its way out it would be lost all the same."""
    seen, path = written["untied, bf16, ZeRO 1"]
    config = ExportConfig(
        checkpoint=str(path), to=str(tmp_path / "average"), weights=ExportedWeights.average, dtype=Dtype.float32
    )
    assert run_export(config) == 0
    exported = load_file(tmp_path / "average" / "model.safetensors")
    assert all(tensor.dtype == torch.float32 for tensor in exported.values())
    off = max(float((tensor.flatten() - seen.average[name]).abs().max()) for name, tensor in exported.items())
    print(f"off by {off:.1e}")
    assert off == 0.0


def test_an_average_of_adapters_is_refused(written: Written, tmp_path: Path) -> None:
    _, path = written["tied, adapters, fp32, ZeRO 1"]
    config = ExportConfig(checkpoint=str(path), to=str(tmp_path / "average"), weights=ExportedWeights.average)
    with pytest.raises(UserError, match="Export weights=policy"):
        run_export(config)
    assert list(tmp_path.iterdir()) == []


def test_an_export_overwrites_nothing(written: Written, tmp_path: Path) -> None:
    _, path = written["tied, fp32, ZeRO 1"]
    (tmp_path / "taken").mkdir()
    for target in ("taken", "file"):
        (tmp_path / "file").write_text("mine")
        with pytest.raises(UserError, match="nothing is overwritten"):
            run_export(ExportConfig(checkpoint=str(path), to=str(tmp_path / target)))
    assert list((tmp_path / "taken").iterdir()) == []
    assert (tmp_path / "file").read_text() == "mine"


def test_what_is_no_checkpoint_is_not_exported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a checkpoint folder must hold"):
        run_export(ExportConfig(checkpoint=str(tmp_path), to=str(tmp_path / "to")))
    assert list(tmp_path.iterdir()) == []
