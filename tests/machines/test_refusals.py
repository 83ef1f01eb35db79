"""What does not go together is refused in a sentence, before a learner is made; and the names of ``sdpo`` are there."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast, get_type_hints

import pytest

import sdpo
from sdpo.config import Config, ExternalTeacher, GuardsConfig, Response, RolloutConfig, SolveConfig
from sdpo.errors import UserError
from sdpo.machines.local import LocalEngine
from sdpo.machines.notebook import LocalModel, TrainSettings
from sdpo.solving.python import SolveSettings
from tests.letters import Letters
from tests.tiny import write_tiny_model


def test_every_name_that_is_exported_is_there() -> None:
    assert all(getattr(sdpo, name).__name__ == name for name in sdpo.__all__)
    assert set(sdpo.__all__) <= set(dir(sdpo))
    with pytest.raises(AttributeError, match="no attribute 'train_modle'"):
        _ = sdpo.train_modle  # type: ignore[attr-defined]


@pytest.mark.parametrize(("settings", "config"), [(TrainSettings, Config), (SolveSettings, SolveConfig)])
def test_settings_are_fields_of_the_command_s_config(settings: type, config: type) -> None:
    fields = get_type_hints(config)
    assert {name: fields.get(name) for name in get_type_hints(settings)} == get_type_hints(settings)


def model(max_tokens: int = 2048) -> LocalModel:
    """One whose engine is never asked."""
    engine = cast(LocalEngine, None)
    return LocalModel(path="/nowhere", max_tokens=max_tokens, rollout=RolloutConfig(), chat_template_options={}, engine=engine)


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({"num_step": 2}, r"train_model takes the settings .*; got 'num_step' \(did you mean 'num_steps'\?\)"),
        ({"rollout": RolloutConfig()}, "takes the settings"),
        ({"batch": {"num_tasks": 4}}, r"batch must be of type BatchConfig; got \{'num_tasks': 4\}"),
        ({"num_steps": 0}, "num_steps must be at least 1"),
        (
            {"learner": sdpo.LearnerConfig(dtype=cast(sdpo.Dtype, "float32"))},
            r"learner\.dtype must be .*; got 'float32'",
        ),
        ({"learner": sdpo.LearnerConfig(num_ranks=2)}, "there is one rank; got learner.num_ranks=2"),
        ({"guards": GuardsConfig(response=Response.stop_at_best), "evaluation": sdpo.EvaluationConfig(every=1)}, "has none"),
        ({"algorithm": sdpo.SDPOConfig(teacher=ExternalTeacher(path="x"))}, "the model itself"),
        ({"sampling": sdpo.SamplingConfig(max_response_tokens=2000)}, r"max_tokens must hold .* 3024 tokens .*; got 2048"),
    ],
)
def test_what_one_process_cannot_train_is_refused(settings: dict[str, Any], rule: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rule):
        sdpo.train_model(model(), Letters(), folder=tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()


def test_a_class_and_an_object_without_verify_are_no_environment(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"got the class Letters. Make one: Letters\(\)"):
        sdpo.train_model(model(), cast(Letters, Letters), folder=tmp_path / "run")
    with pytest.raises(UserError, match="a dict has not"):
        sdpo.train_model(model(), cast(Letters, {}), folder=tmp_path / "run")


def test_a_folder_with_a_run_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("seed: 1\n")
    with pytest.raises(UserError, match=r"holds a run\. Choose another folder"):
        sdpo.train_model(model(), Letters(), folder=tmp_path)


def test_what_one_process_cannot_search_is_refused() -> None:
    task = Letters().tasks("train", 0)[0]
    with pytest.raises(UserError, match="task must be a Task"):
        sdpo.solve_task(model(), Letters(), cast(sdpo.Task, task.id))
    with pytest.raises(ValueError, match=r"batch\.num_tasks must be 1 in a search"):
        sdpo.solve_task(model(), Letters(), task, batch=sdpo.BatchConfig())
    with pytest.raises(ValueError, match="max_tokens must hold"):
        sdpo.solve_task(model(100), Letters(), task)


def test_an_engine_of_several_gpus_is_refused() -> None:
    with pytest.raises(UserError, match="one engine, on one GPU"):
        sdpo.load_model("x", rollout=RolloutConfig(num_engines=2))


def test_max_tokens_fit_into_the_model_s_context(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "tiny")
    with pytest.raises(UserError, match="fit into the model's context, 512 tokens of tiny; got 2048"):
        sdpo.load_model(folder)
    with pytest.raises(UserError, match="at least 2"):
        sdpo.load_model(folder, max_tokens=1)
