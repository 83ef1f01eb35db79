"""The learner as the loop has it, over real Ray actors: what is skipped is kept, and too much of it ends the run."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import ray
import torch
import yaml
from safetensors.torch import load_file

from sdpo.cluster.connection import connected
from sdpo.commands.export import run_export
from sdpo.config import (
    BatchConfig,
    Blend,
    CheckpointConfig,
    ClusterConfig,
    Config,
    Dtype,
    EmaTeacher,
    EnvConfig,
    ExportConfig,
    LearnerConfig,
    ModelConfig,
    ReplayConfig,
    SamplingConfig,
    SDPOConfig,
    TopSupport,
)
from sdpo.errors import MachineError
from sdpo.learner import update_file
from sdpo.learner.group import LearnerGroup
from sdpo.learner.orders import Scale
from sdpo.run.folder import RunFolder, plain
from sdpo.types import Update
from sdpo.weights import WeightPayload
from tests.learner.launch import launch
from tests.learner.ranks import replay
from tests.learner.samples import MAX_RESPONSE_TOKENS, TEMPERATURE, rows, update_of

pytestmark = pytest.mark.integration
ALGORITHM = SDPOConfig(support=TopSupport(num_ids=10), routing=Blend(policy_gradient_share=0.4), teacher=EmaTeacher(ema_rate=0.2))


@pytest.fixture
def ray_cluster() -> Iterator[None]:
    with connected(ClusterConfig(object_store_gib=0.2)):
        yield


def an_update(model: Path, seed: int, *, bad: bool = False) -> Update:
    samples = list(rows(model, seed=seed))
    if bad:
        samples[1] = replace(samples[1], sampled_logprobs=(math.nan,) * len(samples[1].sampled_logprobs))
    return update_of(samples, ALGORITHM, num_ranks=2, micro_batch_tokens=200)


def test_skipped_updates_are_kept_and_too_many_in_a_row_end_the_run(model: Path, tmp_path: Path, ray_cluster: None) -> None:
    config = Config(
        name="run",
        algorithm=ALGORITHM,
        model=ModelConfig(name="tiny", path=str(model)),
        env=EnvConfig(name="letters"),
        batch=BatchConfig(num_tasks=4, group_size=4),
        sampling=SamplingConfig(temperature=TEMPERATURE, max_response_tokens=MAX_RESPONSE_TOKENS),
        learner=LearnerConfig(
            num_ranks=2, zero_stage=3, dtype=Dtype.float32, lr=1e-3, max_skipped_updates=2, num_threads=1, timeout_s=120.0
        ),
    )
    run = RunFolder(tmp_path / "run")
    run.logs.mkdir(parents=True)
    run.config.write_text(yaml.safe_dump(plain(config), sort_keys=False))
    group = LearnerGroup(
        str(model),
        teacher_path=None,
        config=config.learner,
        algorithm=ALGORITHM,
        scale=Scale(temperature=TEMPERATURE, max_response_tokens=MAX_RESPONSE_TOKENS),
        num_gpus=0.0,
        checkpoints=CheckpointConfig(),
        logs=run.logs,
        skipped=run.skipped,
        bucket_bytes=100_000,
    )
    group.wait_until_ready()
    good, bad = an_update(model, 0), an_update(model, 1, bad=True)

    assert group.teacher_weights() is None  # before a step they are the policy's
    group.keep_old_logprobs([good])
    assert group.update(good, ALGORITHM)["updates"] == 1.0
    group.finish_step()
    group.save(run.checkpoints / "step_000001", score=None)
    before, of_teacher = weights(group.weights()), weights(group.teacher_weights())
    assert of_teacher.keys() == before.keys()
    assert not same(of_teacher, before)

    assert group.update(bad, ALGORITHM)["updates_skipped"] == 1.0
    kept = run.skipped / "step_000002-update_0.pt"
    assert kept.is_file()
    assert same(before, weights(group.weights()))
    kept.unlink()
    assert group.update(good, ALGORITHM)["updates"] == 1.0  # those before it no longer count
    assert group.update(bad, ALGORITHM)["updates_skipped"] == 1.0
    with pytest.raises(MachineError, match=r"2 updates in a row .* sdpo replay batch=") as raised:
        group.update(bad, ALGORITHM)
    assert f"batch={kept}" in str(raised.value)
    stored, step = update_file.load(kept)
    assert (step, stored.num_learned_rows) == (1, bad.num_learned_rows)
    assert len(stored.micro_batches) == 2

    (answer,) = launch(1, replay, ReplayConfig(batch=str(kept), num_threads=1))
    assert isinstance(answer, tuple), answer
    code, printed = answer
    print(printed)
    assert code == 1
    assert "on step_000001" in printed
    assert json.loads(printed.splitlines()[-1])["updates_skipped"] == 1.0

    assert run_export(ExportConfig(checkpoint=str(run.checkpoints / "step_000001"), to=str(tmp_path / "exported"))) == 0
    assert same(before, load_file(tmp_path / "exported" / "model.safetensors"))
    group.restore(run.checkpoints / "step_000001")
    assert same(before, weights(group.weights()))
    assert group.step == 1


def weights(payload: object) -> dict[str, torch.Tensor]:
    assert isinstance(payload, WeightPayload)
    assert len(payload.buckets) > 1
    return {name: tensor.clone() for bucket in ray.get(list(payload.buckets)) for name, tensor in bucket.tensors()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
