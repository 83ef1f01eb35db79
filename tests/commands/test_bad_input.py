"""What a user gets wrong comes back as one paragraph that names the field, the value and the mend, with exit code 2."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sdpo.cli import main
from tests.tiny import write_tiny_model

LETTERS = f"{Path(__file__).parent.parent / 'letters.py'}:Letters"
Refusal = Callable[..., str]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def words(model: Path, tmp_path: Path) -> list[str]:
    """A sound config of the tiny model, which only resolves and checks."""
    return [
        "train", "--dry-run", f"model.path={model}", "model.name=tiny", "env=custom", f"env.name={LETTERS}",
        f"runs_dir={tmp_path / 'runs'}", "name=run", "sampling.max_prompt_tokens=100",
        "algorithm.hindsight.max_prompt_tokens=300",
    ]  # fmt: skip


@pytest.fixture
def refusal(words: list[str], capfd: pytest.CaptureFixture[str]) -> Iterator[Refusal]:
    """The error of the sound config with some words added and some left out."""

    def run(*added: str, without: str = "\0") -> str:
        code = main([*(word for word in words if not word.startswith(without)), *added])
        shown = capfd.readouterr()
        assert code == 2, shown
        assert shown.err.startswith("error: ")
        assert "Traceback" not in shown.err
        return " ".join(shown.err.split())

    return run


def test_the_sound_config_is_shown_and_nothing_is_written(
    words: list[str], capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(words) == 0
    assert "Nothing was started" in " ".join(capfd.readouterr().out.split())
    assert not (tmp_path / "runs").exists()


def test_an_unknown_key_is_answered_with_the_nearest_known_one(refusal: Refusal) -> None:
    assert "'algorithm.divergenc' does not. Did you mean algorithm.divergence" in refusal("algorithm.divergenc=jsd")
    assert "Did you mean learner.lr" in refusal("lr=1")


def test_a_wrong_value_is_answered_with_the_field_and_the_choices(refusal: Refusal) -> None:
    error = refusal("algorithm.divergence=tv")
    assert "algorithm.divergence" in error
    assert "reverse_kl, forward_kl, jsd" in error
    assert "batch.num_tasks: Value 'many'" in refusal("batch.num_tasks=many")
    assert "Could not find 'algorithm/ppo'" in refusal("algorithm=ppo", without="algorithm.")


def test_impossible_combinations_are_refused(refusal: Refusal) -> None:
    assert "algorithm.granularity=token works with" in refusal("algorithm.granularity=token", "algorithm.divergence=jsd")
    error = refusal("algorithm=grpo", "batch.group_size=1", without="algorithm.")
    assert "batch.group_size must be at least 2 with algorithm=grpo" in error
    assert "got 1" in error


def test_a_support_larger_than_the_vocabulary_is_refused(refusal: Refusal) -> None:
    error = refusal("algorithm.support.num_ids=100000")
    assert "algorithm.support.num_ids (K) must not exceed the vocabulary" in error
    assert "got 100000" in error


def test_a_clamp_over_the_whole_vocabulary_is_refused(refusal: Refusal) -> None:
    error = refusal("algorithm.pointwise_clip=0.1", "algorithm.support.num_ids=320")
    assert "algorithm.pointwise_clip needs a support that leaves something out" in error
    assert "got all 320 ids of the model's vocabulary. Lower algorithm.support.num_ids" in error


def test_an_environment_without_answers_cannot_show_them(refusal: Refusal) -> None:
    error = refusal("algorithm.hindsight.choice=reference")
    assert "'letters' has no method reference(task)" in error
    assert "set choice=demonstration_first" in error


def test_an_environment_of_one_turn_cannot_have_several(refusal: Refusal) -> None:
    error = refusal("sampling.max_turns=2")
    assert "'letters' has no methods reply and judge, and max_turns is 2. Set it to 1 or add the methods" in error


def test_a_folder_that_cannot_be_made_is_refused_before_the_run(refusal: Refusal, tmp_path: Path) -> None:
    """It came as a traceback, after everything else had been checked."""
    (tmp_path / "taken").write_text("")
    error = refusal(f"runs_dir={tmp_path / 'taken' / 'runs'}", without="runs_dir")
    assert f"{tmp_path / 'taken'} is no folder" in error


ANSWERING = """
from tests.letters import Letters

class Answering(Letters):
    def reference(self, task):
        return {answer}
"""


def test_an_environment_that_fails_to_answer_a_training_task_is_refused_before_the_run(
    refusal: Refusal, words: list[str], tmp_path: Path
) -> None:
    broken, sound = tmp_path / "broken.py", tmp_path / "sound.py"
    broken.write_text(ANSWERING.format(answer="{}[task.id]"))
    sound.write_text(ANSWERING.format(answer="task.messages[-1].content"))
    asking = "algorithm.hindsight.choice=reference"
    error = refusal(asking, f"env.name={broken}:Answering", without="env.name")
    assert "reference() of task 'letters/" in error
    assert "raised KeyError" in error
    assert main([*(word for word in words if not word.startswith("env.name")), asking, f"env.name={sound}:Answering"]) == 0


def test_lengths_beyond_the_models_context_are_refused(refusal: Refusal) -> None:
    error = refusal("sampling.max_response_tokens=1000")
    assert "must fit into the model's context" in error
    assert "has 512" in error


def test_a_prompt_beyond_its_limit_names_the_task(refusal: Refusal) -> None:
    error = refusal("sampling.max_prompt_tokens=10", "algorithm.hindsight.max_prompt_tokens=300")
    assert "sampling.max_prompt_tokens must hold every task's prompt; task 'letters/" in error


def test_a_missing_model_is_refused(refusal: Refusal, tmp_path: Path) -> None:
    assert "it does not exist" in refusal(f"model.path={tmp_path / 'nowhere'}", without="model.path")
    (tmp_path / "empty").mkdir()
    assert "it has no config.json" in refusal(f"model.path={tmp_path / 'empty'}", without="model.path")
    assert "knows the models smollm2_135m; got 'gpt9'" in refusal("model.path=package:gpt9", without="model.path")


def test_a_corrupt_cached_model_is_refused_and_named(refusal: Refusal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "cache" / "models" / "smollm2_135m"
    folder.mkdir(parents=True)
    (folder / "sdpo.json").write_text(json.dumps({"model.safetensors": 100}))
    (folder / "model.safetensors").write_bytes(b"cut off")
    monkeypatch.setenv("SDPO_CACHE", str(tmp_path / "cache"))
    error = refusal("model.path=package:smollm2_135m", without="model.path")
    assert "missing or changed: model.safetensors" in error
    assert "Delete the folder" in error


def test_a_run_folder_of_another_config_is_refused_with_the_difference(
    refusal: Refusal, words: list[str], tmp_path: Path
) -> None:
    from sdpo.config.compose import train_config
    from sdpo.run.folder import RunFolder

    folder = RunFolder(tmp_path / "runs" / "run")
    folder.claim(train_config(words[2:]))
    error = refusal("learner.lr=3e-5")
    assert "learner.lr was 1e-05 and is now 3e-05" in error
    assert "Choose another name=" in error
    assert "already holds one" in refusal("resume=never")
    assert main([*words, "num_steps=99"]) == 0


def test_an_environment_whose_splits_overlap_is_refused(refusal: Refusal) -> None:
    assert "held-out tasks must not appear in training" in refusal("env.heldout_split=train")


def test_an_unknown_environment_or_option_is_refused_with_the_nearest(refusal: Refusal) -> None:
    assert "chemistry" in refusal("env.name=chemistri", without="env")
    assert "timeout_s" in refusal("env=code", "env.options.timeout=1", without="env")


def test_an_unknown_command_is_refused() -> None:
    assert main(["trian"]) == 2
