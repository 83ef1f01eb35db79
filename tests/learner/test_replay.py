"""``sdpo replay``: an update from a file, taken again without the run that made it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from sdpo.config import (
    BatchConfig,
    Blend,
    Config,
    Dtype,
    EmaTeacher,
    EnvConfig,
    LearnerConfig,
    LoraConfig,
    ModelConfig,
    Offload,
    ReplayConfig,
    SamplingConfig,
    SDPOConfig,
    TopSupport,
)
from sdpo.learner import update_file
from sdpo.run.folder import RunFolder, plain
from sdpo.types import Update
from tests.learner.launch import launch
from tests.learner.ranks import Leg, Setup, courses, replay, replay_all, without_clock, write_checkpoint
from tests.learner.samples import MAX_RESPONSE_TOKENS, TEMPERATURE, rows, update_of
from tests.learner.tiers import tiered

pytestmark = pytest.mark.integration
ALGORITHM = SDPOConfig(support=TopSupport(num_ids=10), routing=Blend(policy_gradient_share=0.4), teacher=EmaTeacher(ema_rate=0.2))
CONFIG = LearnerConfig(dtype=Dtype.float32, lr=1e-3)
VARIANTS: Mapping[str, tuple[int, dict[str, object], float]] = {
    "fp32, 1 rank, ZeRO 1": (1, {}, 0.0),
    "fp32, 2 ranks, ZeRO 3 offloaded": (2, {"zero_stage": 3, "offload": Offload.all}, 1e-5),
    "fp32, 2 ranks that share rows": (2, {"sequence_parallel": 2}, 1e-5),
    "fp32, 1 rank, ZeRO 0": (1, {"zero_stage": 0}, 0.0),
    "bf16, 2 ranks, ZeRO 2": (2, {"zero_stage": 2, "dtype": Dtype.bfloat16}, 2e-2),
    "adapters": (1, {"lora": LoraConfig(rank=4)}, 0.0),
}
"""Ranks, learner, and how far apart the metrics may be: a replay has one rank."""


def write_run(setup: Setup, num_ranks: int, folder: Path, update: Update) -> RunFolder:
    """The folder of a run that went two steps and then had ``update``."""
    learner = replace(setup.config, num_ranks=num_ranks)
    config = Config(
        name="run",
        algorithm=setup.algorithm,
        model=ModelConfig(name="tiny", path=str(setup.model)),
        env=EnvConfig(name="letters"),
        batch=BatchConfig(num_tasks=4, group_size=4),
        sampling=SamplingConfig(temperature=TEMPERATURE, max_response_tokens=MAX_RESPONSE_TOKENS),
        learner=learner,
    )
    run = RunFolder(folder)
    run.skipped.mkdir(parents=True)
    run.config.write_text(yaml.safe_dump(plain(config), sort_keys=False))
    update_file.save(run.skipped / "step_000003-update_0.pt", update, step=2)
    steps = two_steps(setup, num_ranks)
    for number in (1, 2):
        launch(num_ranks, write_checkpoint, setup, steps[:number], run.checkpoints / f"step_{number:06d}", range(10))
    (run.checkpoints / "step_000007").mkdir()  # from after the update, and none
    return run


def two_steps(setup: Setup, num_ranks: int) -> Sequence[Sequence[Update]]:
    return [[an_update(setup, num_ranks, seed)] for seed in (0, 1)]


def an_update(setup: Setup, num_ranks: int, seed: int, *, bad: bool = False) -> Update:
    samples = list(rows(setup.model, seed=seed))
    if bad:
        samples[5] = replace(samples[5], sampled_logprobs=(math.nan,) * len(samples[5].sampled_logprobs))
    num_data_ranks = num_ranks // setup.config.sequence_parallel
    return update_of(samples, setup.algorithm, num_ranks=num_data_ranks, micro_batch_tokens=200)


@pytest.mark.parametrize("label", tiered(VARIANTS, ["fp32, 2 ranks, ZeRO 3 offloaded", "adapters"]))
def test_a_replayed_update_says_what_it_said(label: str, model: Path, tmp_path: Path) -> None:
    num_ranks, changes, tolerance = VARIANTS[label]
    setup = Setup(model=model, algorithm=ALGORITHM, config=replace(CONFIG, num_ranks=num_ranks)).with_(**changes)
    third = an_update(setup, num_ranks, 2)
    run = write_run(setup, num_ranks, tmp_path / "run", third)
    learned = launch(num_ranks, courses, [Leg(setup=setup, steps=[*two_steps(setup, num_ranks), [third]])])
    expected = learned[0][0].metrics[-1]
    config = ReplayConfig(batch=str(run.skipped / "step_000003-update_0.pt"), num_threads=1)
    (answer,) = launch(1, replay, config)
    assert isinstance(answer, tuple), answer
    code, printed = answer
    metrics = without_clock(json.loads(printed.splitlines()[-1]))
    assert code == 0
    assert "step_000003-update_0.pt on step_000002" in printed
    assert metrics.keys() == expected.keys()
    apart = {name: abs(metrics[name] - value) / max(abs(value), 1e-3) for name, value in expected.items()}
    print(f"{label}: " + ", ".join(f"{name} {value:.1e}" for name, value in apart.items() if value) + " apart")
    assert max(apart.values()) <= tolerance


def test_a_bad_update_is_shown_with_its_place_and_exits_with_1(model: Path, tmp_path: Path) -> None:
    setup = Setup(model=model, algorithm=ALGORITHM, config=CONFIG)
    run = write_run(setup, 1, tmp_path / "run", an_update(setup, 1, 2, bad=True))
    (answer,) = launch(1, replay, ReplayConfig(batch=str(run.skipped / "step_000003-update_0.pt"), num_threads=1))
    assert isinstance(answer, tuple), answer
    code, printed = answer
    print(printed)
    assert code == 1
    assert printed.count("nan") >= 1
    assert json.loads(printed.splitlines()[-1])["updates_skipped"] == 1.0


def test_an_update_can_be_replayed_on_the_model_as_it_is_or_on_a_checkpoint(model: Path, tmp_path: Path) -> None:
    setup = Setup(model=model, algorithm=ALGORITHM, config=CONFIG)
    run = write_run(setup, 1, tmp_path / "run", an_update(setup, 1, 2))
    batch = str(run.skipped / "step_000003-update_0.pt")
    (first,) = launch(1, replay, ReplayConfig(batch=batch, checkpoint=str(run.checkpoints / "step_000001"), num_threads=1))
    (newest,) = launch(1, replay, ReplayConfig(batch=batch, num_threads=1))
    for path in sorted(run.checkpoints.iterdir()):
        path.rename(path.with_name(f".{path.name}"))
    (bare,) = launch(1, replay, ReplayConfig(batch=batch, num_threads=1))
    assert isinstance(first, tuple)
    assert isinstance(newest, tuple)
    assert isinstance(bare, tuple)
    losses = [json.loads(printed.splitlines()[-1])["loss"] for _, printed in (first, newest, bare)]
    print(losses)
    assert len(set(losses)) == 3
    assert "the model as it is" in bare[1]
    assert "step_000001" in first[1]


def test_a_file_that_is_no_update_is_refused_in_a_sentence(model: Path, tmp_path: Path) -> None:
    setup = Setup(model=model, algorithm=ALGORITHM, config=CONFIG)
    good = tmp_path / "good.pt"
    update_file.save(good, an_update(setup, 1, 0), step=0)
    files = {
        "text.pt": b"no update at all",
        "empty.pt": b"",
        "cut.pt": good.read_bytes()[: good.stat().st_size // 2],
        "json.pt": b'{"update": {}}',
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    stored = {
        "list.pt": [1, 2],
        "tensor.pt": torch.zeros(3),
        "none.pt": {"step": 0, "update": None},
        "other.pt": {"step": 0, "update": {"micro_batches": 5}},
        "fields.pt": {"step": 0, "update": {"micro_batches": ()}},
        "strange.pt": {"step": 0, "update": {"micro_batches": (([1],),)}},
        "step.pt": {**torch.load(good, weights_only=True), "step": "three"},
        "code.pt": {"step": 0, "update": Path("/")},
    }
    for name, value in stored.items():
        torch.save(value, tmp_path / name)
    (tmp_path / "folder.pt").mkdir()
    names = [*files, *stored, "folder.pt", "missing.pt"]
    answers = launch(1, replay_all, [ReplayConfig(batch=str(tmp_path / name), num_threads=1) for name in names])[0]
    wrong = {
        name: answer for name, answer in zip(names, answers, strict=True) if "names an update that a run has saved" not in answer
    }
    assert wrong == {}


def test_an_update_without_its_run_is_refused_in_a_sentence(model: Path, tmp_path: Path) -> None:
    setup = Setup(model=model, algorithm=ALGORITHM, config=CONFIG)
    alone = tmp_path / "elsewhere" / "skipped" / "update.pt"
    update_file.save(alone, an_update(setup, 1, 0), step=0)
    (answer,) = launch(1, replay, ReplayConfig(batch=str(alone), num_threads=1))
    assert isinstance(answer, str)
    assert "config" in answer


def test_a_checkpoint_that_does_not_fit_is_refused_in_a_sentence(model: Path, tmp_path: Path) -> None:
    """The user names it, so it is the user's to mend."""
    setup = Setup(model=model, algorithm=ALGORITHM, config=CONFIG)
    run = write_run(setup, 1, tmp_path / "run", an_update(setup, 1, 2))
    other = write_run(setup.with_(lora=LoraConfig(rank=4)), 1, tmp_path / "other", an_update(setup, 1, 2))
    batch = str(run.skipped / "step_000003-update_0.pt")
    folders = [other.checkpoints / "step_000001", tmp_path, run.checkpoints / "step_000009"]
    answers = [launch(1, replay, ReplayConfig(batch=batch, checkpoint=str(folder), num_threads=1))[0] for folder in folders]
    for answer in answers:
        assert isinstance(answer, str)
        assert "a checkpoint" in answer
