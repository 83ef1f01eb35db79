"""The paper's experiments (arXiv 2601.20802) compose, and hold the settings of its table, written down here once more."""

from __future__ import annotations

import re
import shlex
from functools import cache
from pathlib import Path

import pytest

from sdpo.config import Config, GRPOConfig, HintChoice, LossMean, Normalisation, RatioLevel, SDPOConfig, SupportKind
from sdpo.config.compose import discovery_config, evaluate_config, train_config, warmup_config
from sdpo.environments.preparing.command import recipes

ROOT = Path(__file__).parent.parent.parent
PAPER = ROOT / "conf" / "experiment" / "paper"
WITHOUT_FEEDBACK = ("biology", "chemistry", "material", "physics", "tool_use")
WITH_FEEDBACK = ("livecodebench",)
ENVIRONMENTS = {"tool_use": "tool_use", "livecodebench": "code_file"}
"""The others are multiple_choice."""
EVERY = [f"{task}_{algorithm}" for task in (*WITHOUT_FEEDBACK, *WITH_FEEDBACK) for algorithm in ("sdpo", "grpo")]


@cache
def composed(name: str, *words: str) -> Config:
    return train_config([f"experiment=paper/{name}", *words])


def test_every_experiment_is_known_here() -> None:
    assert sorted(EVERY) == sorted(file.stem for file in PAPER.glob("*.yaml"))


@pytest.mark.parametrize("name", EVERY)
def test_what_all_have_in_common(name: str) -> None:
    config = composed(name)
    task, _, algorithm = name.rpartition("_")
    assert (config.batch.num_tasks, config.batch.group_size) == (32, 8)
    assert (config.sampling.temperature, config.sampling.max_prompt_tokens, config.sampling.max_response_tokens) == (
        1.0,
        2048,
        8192,
    )
    assert (config.evaluation.temperature, config.evaluation.top_p) == (0.6, 0.95)
    assert config.evaluation.num_attempts == (4 if task in WITH_FEEDBACK else 16)
    assert (config.learner.weight_decay, config.learner.grad_clip, config.learner.lora.rank) == (0.01, 1.0, 0)
    assert config.model.path == "Qwen/Qwen3-8B"
    assert config.model.chat_template_options == {"enable_thinking": False}
    assert config.env.name == ENVIRONMENTS.get(task, "multiple_choice")
    assert config.name == f"{task}-{algorithm}-qwen3_8b-s0"
    assert config.env.options["path"] == f"tasks/{task}/train.jsonl"
    assert config.env.options["heldout_path"] == f"tasks/{task}/heldout.jsonl"


@pytest.mark.parametrize("task", WITHOUT_FEEDBACK)
def test_sdpo_without_feedback(task: str) -> None:
    config = composed(f"{task}_sdpo")
    algorithm = config.algorithm
    assert isinstance(algorithm, SDPOConfig)
    assert (algorithm.divergence, algorithm.jsd_beta) == ("jsd", 0.5)
    assert (algorithm.support.kind, algorithm.support.num_ids, algorithm.support.tail) == (SupportKind.student, 100, True)
    assert (algorithm.teacher.kind, algorithm.teacher.ema_rate) == ("ema", 0.05)
    assert (algorithm.hindsight.choice, algorithm.hindsight.max_prompt_tokens) == (HintChoice.demonstration_only, 10240)
    assert (algorithm.importance_clip, algorithm.rollout_clip, algorithm.normalisation) == (2.0, 2.0, Normalisation.authors)
    assert config.batch.tasks_per_update == 32
    assert (config.learner.lr, config.learner.warmup_updates) == (1e-5, 10)


@pytest.mark.parametrize("task", WITH_FEEDBACK)
def test_sdpo_with_feedback(task: str) -> None:
    config = composed(f"{task}_sdpo")
    algorithm = config.algorithm
    assert isinstance(algorithm, SDPOConfig)
    assert (algorithm.divergence, algorithm.normalisation) == ("reverse_kl", Normalisation.authors)
    assert (algorithm.support.kind, algorithm.support.num_ids, algorithm.support.tail) == (SupportKind.student, 20, True)
    assert (algorithm.teacher.kind, algorithm.teacher.ema_rate) == ("ema", 0.01)
    assert (algorithm.hindsight.choice, algorithm.hindsight.max_prompt_tokens) == (HintChoice.demonstration_first, 10240)
    assert config.batch.tasks_per_update == 1
    assert (config.learner.lr, config.learner.warmup_updates) == (1e-6, 0)


@pytest.mark.parametrize("task", [*WITHOUT_FEEDBACK, *WITH_FEEDBACK])
def test_grpo_is_the_baseline_of_the_paper(task: str) -> None:
    config = composed(f"{task}_grpo")
    assert isinstance(config.algorithm, GRPOConfig)
    gradient = config.algorithm.policy_gradient
    assert (gradient.clip_low, gradient.clip_high, gradient.divide_by_std) == (0.2, 0.28, False)
    assert (gradient.ratio, gradient.mean, gradient.rollout_clip) == (RatioLevel.token, LossMean.sequence, 2.0)
    assert gradient.clip_ratio_c == 3.0
    assert (config.algorithm.reference_kl, config.algorithm.entropy_bonus) == (0.0, 0.0)
    assert (config.batch.tasks_per_update, config.learner.lr) == (8, 1e-6)
    assert config.learner.warmup_updates == (0 if task in WITH_FEEDBACK else 10 * 4)  # ten steps of four updates


@pytest.mark.parametrize("name", EVERY)
def test_an_experiment_fits_one_node_and_its_rules(name: str) -> None:
    """A rank and an engine on each of 4 GPUs, and room for the weights on their way."""
    config = composed(name)
    assert (config.learner.num_ranks, config.rollout.num_engines, config.learner.zero_stage) == (4, 4, 3)
    assert config.cluster.object_store_gib > 2 * 8.2e9 * 2 / 2**30
    assert config.evaluation.is_due(config.num_steps, config.num_steps)


def test_the_other_model_and_single_keys_can_still_be_said() -> None:
    config = composed("chemistry_sdpo", "model=olmo3_7b_instruct", "seed=3", "learner.lr=3e-6", "env.options.path=mine.json")
    assert config.model.path == "allenai/Olmo-3-7B-Instruct"
    assert (config.name, config.learner.lr) == ("chemistry-sdpo-olmo3_7b_instruct-s3", 3e-6)
    assert config.env.options == {"path": "mine.json", "heldout_path": "tasks/chemistry/heldout.jsonl"}


def test_at_test_time() -> None:
    config = discovery_config(["experiment=solve_livecodebench", "env.options.path=lcb.jsonl"])
    assert (config.batch.num_tasks, config.batch.group_size, config.budget.attempts) == (1, 16, 2750)
    assert (config.sampling.max_prompt_tokens, config.sampling.max_response_tokens) == (2048, 8192)
    assert config.algorithm.hindsight.max_prompt_tokens == 10240


def test_every_command_of_the_page_composes() -> None:
    page = (ROOT / "docs" / "experiments.md").read_text()
    blocks = re.findall(r"^```\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    written = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    commands = [shlex.split(line, comments=True) for line in [*written, *re.findall(r"`(sdpo train [^`…]+)`", page)]]
    readers = {"evaluate": evaluate_config, "discovery": discovery_config}
    kinds = [words[1] for words in commands]
    assert {*readers, "envs", "train"} == set(kinds)
    assert kinds.count("train") == len(EVERY) + 1
    for _, kind, *words in commands:
        if kind == "envs":
            assert words[0] == "prepare"
            assert words[1] in recipes("L3")
        elif kind == "train":
            (word,) = words
            assert word.removeprefix("experiment=paper/") in EVERY
        else:
            readers[kind](words)


def test_every_experiment_says_what_to_expect_and_where_that_stands() -> None:
    page = (ROOT / "docs" / "experiments.md").read_text()
    for name in EVERY:
        comment = [line for line in (PAPER / f"{name}.yaml").read_text().splitlines() if line.startswith("# Expected")]
        assert len(comment) == 1
        assert "arXiv 2601.20802" in comment[0]
        assert f"experiment=paper/{name}" in page


@pytest.mark.parametrize("words", [(), ("algorithm=grpo",), ("algorithm=sdpo",)])
def test_the_main_job_has_the_same_tasks_and_generations_under_every_algorithm(words: tuple[str, ...]) -> None:
    """The comparison is of algorithms alone; and the warm-up must not have taught other families, or none of these."""
    config, default = (train_config(["experiment=one_liners", *more]) for more in (words, ()))
    assert (config.env, config.batch, config.sampling, config.learner.lr) == (
        default.env,
        default.batch,
        default.sampling,
        default.learner.lr,
    )
    assert warmup_config(["experiment=warmup_one_liners", "to=somewhere"]).env == config.env


def test_the_main_job_is_distilled_with_the_forward_kl() -> None:
    algorithm = train_config(["experiment=one_liners"]).algorithm
    assert isinstance(algorithm, SDPOConfig)
    assert (algorithm.divergence, algorithm.support.kind) == ("forward_kl", SupportKind.teacher)
    without = train_config(["experiment=one_liners", "algorithm.hindsight.choice=none"]).algorithm
    assert isinstance(without, SDPOConfig)
    assert without.hindsight.choice is HintChoice.none
