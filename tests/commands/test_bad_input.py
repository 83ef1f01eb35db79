"""What a user gets wrong comes back as one paragraph that names the field, the value and the mend, with exit code 2."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from sdpo.cli import main
from sdpo.errors import UserError
from sdpo.hindsight.hints import hindsight_message, hint_of
from sdpo.hindsight.rendering import ChatRenderer
from sdpo.run.files import refuse_existing
from sdpo.types import HintText
from tests.letters import Letters
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


Change = Callable[[Path], None]


@pytest.fixture
def refused_model(refusal: Refusal, model: Path, tmp_path: Path) -> Callable[[Change], str]:
    """The error of the sound config with a copy of the model to which something was done."""

    def run(change: Change) -> str:
        copy = shutil.copytree(model, tmp_path / "changed")
        change(copy)
        return refusal(f"model.path={copy}", without="model.path")

    return run


def settings_of(name: str, **changes: object) -> Change:
    """Other values in one of a model's JSON files; None takes a key away."""

    def change(folder: Path) -> None:
        settings = {**json.loads((folder / name).read_text()), **changes}
        (folder / name).write_text(json.dumps({key: value for key, value in settings.items() if value is not None}))

    return change


def test_a_tokenizer_with_more_tokens_than_the_model_has_rows_is_refused(refused_model: Callable[[Change], str]) -> None:
    """Such a token ended the engine, which was restarted five times."""
    error = refused_model(settings_of("config.json", vocab_size=319))
    assert "every token must have a row in the model's embedding" in error
    assert "with id 319, and the model has 319 rows" in error
    assert "resize_token_embeddings" in error


def nested(kind: str) -> Change:
    """The sizes of the text one level down, as in models of several modalities."""

    def change(folder: Path) -> None:
        config = {**json.loads((folder / "config.json").read_text()), "max_position_embeddings": 512}
        text = {key: value for key, value in config.items() if key not in ("model_type", "architectures")}
        (folder / "config.json").write_text(json.dumps({"model_type": kind, "text_config": text}))

    return change


def test_a_model_of_several_modalities_is_checked_by_its_text_part(
    refused_model: Callable[[Change], str], words: list[str], model: Path, tmp_path: Path
) -> None:
    """Its config has no vocab_size of its own, which ended in a traceback."""
    copy = shutil.copytree(model, tmp_path / "gemma")
    nested("gemma3")(copy)
    sound = [*(word for word in words if not word.startswith("model.path")), f"model.path={copy}"]
    assert main(sound) == 0
    assert main([*sound, "algorithm.support.num_ids=321"]) == 2
    assert main([*sound, "sampling.max_response_tokens=500"]) == 2


def test_a_model_that_transformers_has_no_causal_lm_of_is_refused(refused_model: Callable[[Change], str]) -> None:
    """The learner ended in a traceback, minutes later."""
    error = refused_model(nested("qwen2_5_vl"))
    assert "a model that transformers loads as a causal LM" in error
    assert "is a qwen2_5_vl" in error


def test_a_special_token_that_nothing_uses_needs_no_row(words: list[str], model: Path, tmp_path: Path) -> None:
    """Some models of one modality share the tokenizer of a family with more."""
    copy = shutil.copytree(model, tmp_path / "more")
    tokenizer = AutoTokenizer.from_pretrained(copy)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    tokenizer.save_pretrained(copy)
    assert len(tokenizer) == 321
    assert main([*(word for word in words if not word.startswith("model.path")), f"model.path={copy}"]) == 0


def test_a_model_that_nothing_stops_is_refused(refused_model: Callable[[Change], str]) -> None:
    """Every answer went on to the length limit."""

    def change(folder: Path) -> None:
        for name in ("tokenizer_config.json", "config.json", "generation_config.json"):
            settings_of(name, eos_token=None, eos_token_id=None)(folder)

    error = refused_model(change)
    assert "a model must have a token that ends an answer" in error
    assert "Add one of them" in error


def test_pointers_of_git_lfs_and_weights_that_are_missing_or_cut_off_are_refused(
    refused_model: Callable[[Change], str], tmp_path: Path
) -> None:
    """The learner and the engines ended in tracebacks, the engines five times."""

    def again(change: Change) -> str:
        shutil.rmtree(tmp_path / "changed", ignore_errors=True)
        return refused_model(change)

    def pointer(name: str) -> Change:
        def change(folder: Path) -> None:
            (folder / name).write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n")

        return change

    weights = "model.safetensors"
    assert "model.safetensors is a pointer of git-lfs. Run `git lfs pull`" in again(pointer(weights))
    assert "tokenizer.json is a pointer of git-lfs" in again(pointer("tokenizer.json"))
    assert "has none of model.safetensors, model.safetensors.index.json" in again(lambda folder: (folder / weights).unlink())
    assert "model.safetensors cannot be read" in again(lambda folder: os.truncate(folder / weights, 5000))
    assert "model.safetensors cannot be read" in again(lambda folder: os.truncate(folder / weights, 0))

    def in_parts(folder: Path) -> None:
        (folder / weights).rename(folder / "model-00001-of-00002.safetensors")
        parts = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
        (folder / f"{weights}.index.json").write_text(json.dumps({"weight_map": parts}))

    assert "model-00002-of-00002.safetensors is missing" in again(in_parts)


INSTRUCTED = """
from dataclasses import replace
from sdpo.types import Message, Role
from tests.letters import Letters

class Instructed(Letters):
    def tasks(self, split, seed):
        said = Message(role=Role.system, content="Write one word.")
        return [replace(task, messages=(said, *task.messages)) for task in super().tasks(split, seed)]
"""


def test_a_template_that_refuses_a_system_message_is_named_with_the_task(
    refusal: Refusal, words: list[str], model: Path, tmp_path: Path
) -> None:
    """Its own exception came up in a traceback, out of jinja."""
    (tmp_path / "instructed.py").write_text(INSTRUCTED)
    copy = shutil.copytree(model, tmp_path / "strict")
    template = (copy / "chat_template.jinja").read_text()
    strict = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    (copy / "chat_template.jinja").write_text(strict + template)
    chosen = (f"model.path={copy}", f"env.name={tmp_path / 'instructed.py'}:Instructed")
    error = refusal(*chosen)
    assert f"that of {copy} refuses those of task 'letters/" in error
    assert "(system, user): System role not supported" in error
    assert main([*words, chosen[0]]) == 0
    assert main([*words, chosen[1]]) == 0


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        ("[qproj]", "must name layers that the model has (others would be left out); got 'qproj'. Name some of down_proj, "),
        ("[q_proj,vproj]", "must name layers that the model has (others would be left out); got 'vproj'"),
        ("[q_proj,lm_head]", "must leave out the output embedding (the loss multiplies by its frozen weight); got 'lm_head'"),
        ("[embed_tokens]", "must name linear layers (only their product can be merged); got 'embed_tokens'"),
        ("[all-linear,q_proj]", "got 'all-linear'"),
        ("[layers.0.self_attn]", "must name linear layers"),
    ],
)
def test_adapters_for_layers_that_are_not_there_are_refused(refusal: Refusal, targets: str, said: str) -> None:
    """One misspelt name among others was left out in silence, and the output embedding trained what the loss never reads."""
    error = refusal("learner.lora.rank=4", f"learner.lora.target_modules={targets}")
    assert "learner.lora.target_modules must" in error
    assert said in error
    assert "or all-linear alone" in error


def test_adapters_for_layers_that_are_there_are_taken(words: list[str]) -> None:
    for targets in ("[all-linear]", "[q_proj,v_proj]", "[0.self_attn.q_proj]"):
        assert main([*words, "learner.lora.rank=4", f"learner.lora.target_modules={targets}"]) == 0


def test_a_limit_that_leaves_no_room_for_a_hint_is_refused(refusal: Refusal, words: list[str], model: Path) -> None:
    """The metric hindsight read 1.0 and nothing was distilled."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    renderer = ChatRenderer(tokenizer=tokenizer, chat_template_options={}, max_prompt_tokens=300, max_hindsight_tokens=300)
    tasks = [task for split in ("train", "heldout") for task in Letters().tasks(split, 0)]

    def longest(*texts: HintText) -> int:
        asked = [replace(task, messages=(hindsight_message(task.messages[-1].content, texts),)) for task in tasks]
        return max(len(renderer.prompt(task)) for task in asked)

    room = f"sampling.max_prompt_tokens={max(len(renderer.prompt(task)) for task in tasks)}"
    bare, limit = longest(), "algorithm.hindsight.max_prompt_tokens="
    error = refusal(room, f"{limit}{bare}")
    assert "must hold the question, the closing instruction and some of a hint" in error
    assert f"the limit of {bare} tokens leaves no room for demonstration" in error
    told, only = longest(*hint_of(feedback=".").texts), "algorithm.hindsight.choice=feedback_only"
    assert "no room for feedback" in refusal(room, only, f"{limit}{told - 1}")
    assert main([*words, room, only, f"{limit}{told}"]) == 0


def test_places_where_nothing_can_be_made_are_refused_before_anything_starts(
    words: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """export ended in a traceback after the weights were read, evaluate after Ray had begun to start."""
    (tmp_path / "taken").write_text("")
    model = [word for word in words if word.startswith(("model.", "env"))]
    in_vain = ("cluster.address=nobody:1", "sampling.max_prompt_tokens=100")  # so no server forks, and no Ray would be started
    for place, said in (
        (tmp_path / "taken" / "logs", f"{tmp_path / 'taken'} is no folder"),
        (Path("/proc/nowhere/logs"), "/proc is the kernel's"),
        (tmp_path / ("n" * 300), "has more than 255 bytes"),
    ):
        assert main(["evaluate", *model, *in_vain, f"logs_dir={place}"]) == 2
        error = " ".join(capfd.readouterr().err.split())
        assert "logs_dir must be a folder that can be written" in error
        assert said in error
        assert "Set another logs_dir." in error
        with pytest.raises(UserError, match=r"to must be a folder that can be written; .* Set another to\."):
            refuse_existing(place)


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
