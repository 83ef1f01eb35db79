"""What people type means what they meant, and no key is new because it was written otherwise."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from sdpo.config import (
    Config,
    EvaluateConfig,
    GuardsConfig,
    LearnerConfig,
    ModelConfig,
    SDPOConfig,
    SolveConfig,
    WarmupConfig,
)
from sdpo.config.compose import evaluate_config, solve_config, sweep_points, train_config, warmup_config
from sdpo.config.words import readable, text_keys
from sdpo.errors import UserError


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("+learner.lrr=1e-4", "'learner.lrr' does not. Did you mean learner.lr "),
        ("++learner.lrr=1e-4", "'learner.lrr' does not. Did you mean learner.lr "),
        ("+foo=1", "'foo' does not. Known at the top: seed"),
        ("+env.optionss.x=1", "'env.optionss.x' does not"),
        ("+model@foo=smollm2_135m", "'model@foo' does not"),
        ("++algorithm.teacher.foo=1", "'algorithm.teacher.foo' does not"),
        ("++learner={lrr: 1}", "Key 'lrr' not in 'LearnerConfig'"),
    ],
)
def test_an_unknown_key_is_refused_however_it_is_written(word: str, said: str) -> None:
    """With hydra's + and ++ it was taken without a word, and the run had another learning rate than was meant."""
    with pytest.raises(UserError) as refused:
        train_config([word])
    assert said in str(refused.value)


def test_a_known_key_may_be_written_with_hydras_signs() -> None:
    words = ["++learner.lr=3e-7", "+experiment=one_liners", "++batch.group_size=5"]
    config = train_config(words)
    assert config == train_config([word.lstrip("+") for word in words])
    assert (config.learner.lr, config.batch.group_size) == (3e-7, 5)


def test_keys_of_ones_own_are_given_and_taken_away_with_hydras_signs() -> None:
    config = train_config(["+env.options.families=[a,b]", "++env.options.deep={a: 1}", "+model.chat_template_options.brief=true"])
    assert config.env.options["families"] == ["a", "b"]
    assert config.env.options["deep"] == {"a": 1}
    assert config.model.chat_template_options == {"brief": True}
    shipped = train_config(["model=qwen3_8b"]).model.chat_template_options
    assert shipped == {"enable_thinking": False}
    assert train_config(["model=qwen3_8b", "~model.chat_template_options.enable_thinking"]).model.chat_template_options == {}


def test_a_key_that_must_have_a_value_cannot_be_taken_away() -> None:
    for word in ("~learner.lr", "~learner", "~seed=0", "~experiment"):
        with pytest.raises(UserError, match=r"~KEY takes away only what is one's own, under env\.options.*for the default"):
            train_config([word])


def test_a_word_that_gives_no_key_a_value_is_refused() -> None:
    for word in ("foo", "--verbose", "=1", "+", ""):
        with pytest.raises(UserError, match="a word must be KEY=VALUE"):
            train_config([word])


ODD = (
    "copy (1)", "a=b", "größe", "it's", 'say "x"', "{a", "a,b", "#1", "a;b&c", "C:\\x\\", "two  words", "(1)", "foo(1)", "1e3",
    "007", "true", "-m", "[a", "'a", "!", "2026-01-01", "~user/x", " a ", "",
)  # fmt: skip


def test_text_is_taken_as_it_was_typed() -> None:
    """hydra's parser ended with LexerNoViableAltException, and name=1e3 made the folder 1000.0."""
    for text in ODD:
        read = OverridesParser.create().parse_override(readable(f"model.path={text}", Config))
        assert (read.key_or_group, read.value()) == ("model.path", text)
    config = train_config(["model.path=copy (1)", "runs_dir=größe=1", "name=1e3"])
    assert (config.model.path, config.runs_dir, config.name) == ("copy (1)", "größe=1", "1e3")
    assert evaluate_config(["checkpoint=a (1)", "logs_dir=b (1)"]).logs_dir == "b (1)"
    assert solve_config(["task=it's (1)"]).task == "it's (1)"


def test_quotes_around_a_whole_value_are_hydras() -> None:
    config = train_config(["model.path='a, b'", 'name="1e3"', "cluster.spill_dir=null"])
    assert (config.model.path, config.name, config.cluster.spill_dir) == ("a, b", "1e3", None)


def test_home_is_found_where_no_shell_has_looked_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell leaves model.path=~/x alone."""
    monkeypatch.setenv("HOME", "/home/ä b")
    config = train_config(["model.path=~/x (1)", "runs_dir=~/runs", "env.name=~/my.py:Mine", "env.options.path=~/tasks.jsonl"])
    home = "/home/ä b"
    assert (config.model.path, config.runs_dir, config.env.name) == (f"{home}/x (1)", f"{home}/runs", f"{home}/my.py:Mine")
    assert config.env.options["path"] == f"{home}/tasks.jsonl"
    assert warmup_config(["to=~/model"]).to == f"{home}/model"


def test_an_option_that_hydra_cannot_read_is_text() -> None:
    options = train_config(["env.options.path=/a (1)/ü=b.jsonl", "env.options.num=3", "env.options.words=[x,y]"]).env.options
    assert options["path"] == "/a (1)/ü=b.jsonl"
    assert (options["num"], options["words"]) == (3, ["x", "y"])


def test_a_number_that_hydra_cannot_read_is_refused_by_its_key() -> None:
    with pytest.raises(UserError, match=r"learner\.lr must have a value that hydra's grammar reads; '3 \(e\)' is none"):
        train_config(["learner.lr=3 (e)"])


def test_points_of_a_sweep_are_texts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/a b")
    found = sweep_points(["model.path=~/x,größe", "name=1e3", "+seed=1,2", "runs_dir=copy (1)"])
    configs = [train_config(words) for words in found]
    assert [(config.model.path, config.seed) for config in configs] == [
        ("/home/a b/x", 1),
        ("/home/a b/x", 2),
        ("größe", 1),
        ("größe", 2),
    ]
    assert {(config.name, config.runs_dir) for config in configs} == {("1e3", "copy (1)")}
    with pytest.raises(UserError, match="none of them empty"):
        sweep_points(["model.path=a,,b"])


def test_every_path_is_text() -> None:
    assert {"model.path", "runs_dir", "env.name", "algorithm.teacher.path", "cluster.spill_dir", "name"} <= text_keys(Config)
    assert {"task", "tasks", "model.path"} <= text_keys(SolveConfig)
    assert not {"seed", "learner.lr", "algorithm.teacher.kind", "algorithm.support.kind", "resume"} & text_keys(Config)


def refusal(build: Callable[[], object]) -> str:
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - the sentence is what is looked at
        build()
    return str(refused.value)


def test_a_seed_that_no_generator_takes_is_refused() -> None:
    """The engines ended in a traceback of numpy's and were restarted five times."""
    for seed in (-1, 2**32, 2**63):
        for build in (
            partial(Config, algorithm=SDPOConfig()),
            EvaluateConfig,
            partial(SolveConfig, algorithm=SDPOConfig(), task="x"),
            partial(WarmupConfig, algorithm=SDPOConfig()),
        ):
            assert f"seed must lie between 0 and 4294967295 (the engines' generators take 32 bits); got {seed}" in refusal(
                partial(build, seed=seed)
            )
    assert Config(algorithm=SDPOConfig(), model=ModelConfig(name="m"), seed=2**32 - 1).seed == 2**32 - 1


def test_a_number_that_is_none_is_refused() -> None:
    """learner.lr=inf passed, and so did NaN wherever no other rule was kept."""
    with pytest.raises(UserError, match=r"learner\.lr must be a finite number; got inf"):
        train_config(["learner.lr=inf"])
    for value in (math.inf, -math.inf, math.nan):
        assert "learner.timeout_s must be" in refusal(partial(LearnerConfig, timeout_s=value))
        unruled = GuardsConfig()
        unruled.num_se = value
        assert f"guards.num_se must be a finite number; got {value}" in refusal(
            partial(Config, algorithm=SDPOConfig(), guards=unruled)
        )


def test_a_name_that_no_folder_can_have_is_refused(tmp_path: Path) -> None:
    (tmp_path / ("ä" * 100)).mkdir()

    def run(name: str) -> Config:
        return Config(algorithm=SDPOConfig(), name=name)

    assert run("ä" * 100).name == "ä" * 100
    assert "name must have at most 200 bytes (the run's folder is called by it); got 202" in refusal(partial(run, "ä" * 101))
    searched = refusal(partial(SolveConfig, algorithm=SDPOConfig(), task="x", name="n" * 300))
    assert "the search's folder is called by it); got 300" in searched
    for name in ("two\nlines", "\udcff", "\x1b[31m"):
        assert "name must be printable text" in refusal(partial(run, name))
