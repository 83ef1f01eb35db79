"""What docs/python.md shows works as it stands there, and what does not go together is refused in a sentence."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any, cast, get_type_hints

import pytest

import sdpo
from sdpo.config import Config, GuardsConfig, Response, RolloutConfig, SolveConfig, TeacherConfig, TeacherKind
from sdpo.errors import UserError
from sdpo.machines.local import LocalEngine
from sdpo.machines.notebook import LocalModel, TrainSettings
from sdpo.solving.python import SolveSettings
from tests.letters import Letters

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
def test_a_search_that_cannot_succeed_learns_and_spends_its_budget_also_after_an_interrupt(came_of_it: dict[str, Any]) -> None:
    """A notebook keeps the interrupted call's frames. What it had under way stayed in the engine, and the next call failed."""
    assert came_of_it["interrupted"] == "KeyboardInterrupt"
    hopeless = came_of_it["hopeless"]
    assert (hopeless["solution"], hopeless["ending"], hopeless["attempts"]) == (None, "attempts", 8)
    assert hopeless["learned"] == [4, 4]
    assert len(set(hopeless["texts"])) > 1


def test_importing_sdpo_imports_nothing_heavy() -> None:
    script = f"import sys, sdpo; print([name for name in {HEAVY} if name in sys.modules], sdpo.__version__)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", sdpo.__version__]


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
        ({"algorithm": sdpo.SDPOConfig(teacher=TeacherConfig(kind=TeacherKind.external, path="x"))}, "the model itself"),
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
