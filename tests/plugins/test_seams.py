"""What a config names from outside: had before anything starts, refused in a sentence, and the same in every folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sdpo.batches.filters import token_filter
from sdpo.config import EnvConfig, FilterConfig, HindsightConfig, HintChoice, RolloutConfig, SDPOConfig, SolveConfig
from sdpo.config.compose import solve_config, train_config
from sdpo.config.named import place_anywhere
from sdpo.errors import UserError
from sdpo.plugins.seam import Seam, short
from sdpo.preflight.checks import check_named
from sdpo.run.folder import RunFolder, plain
from sdpo.solving.command import folder_of

SEAM = Seam(what="thing", group="sdpo.things", built_in={"path": "os:path", "nested": "os:path.join", "gone": "os:no_such"})


def test_a_name_becomes_an_object() -> None:
    assert SEAM.load("path") is os.path
    assert SEAM.load("nested") is os.path.join
    assert SEAM.load("os:getpid") is os.getpid
    assert SEAM.names() == ("path", "nested", "gone")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("paht", "did you mean 'path'"),
        ("gone", "there is no 'no_such'"),
        ("no.such.module:x", "importing 'no.such.module' raised ModuleNotFoundError"),
        ("/no/such/file.py:X", "there is none at /no/such/file.py"),
    ],
)
def test_what_cannot_be_had_is_a_sentence(name: str, said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("(", r"\(")):
        SEAM.load(name)


def test_relative_files_mean_the_same_in_every_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the environment's path was made absolute: a rank in another folder did not find the other files."""
    monkeypatch.chdir(tmp_path)
    algorithm = SDPOConfig(
        divergence="mine.py:D", filter=FilterConfig(name="mine.py:F"), hindsight=HindsightConfig(sources=["mine.py:S"])
    )
    env, rollout = EnvConfig(name="mine.py:E"), RolloutConfig(weight_sync="mine.py:W")
    place_anywhere(env, algorithm=algorithm, rollout=rollout)
    names = [env.name, rollout.weight_sync, algorithm.divergence, algorithm.filter.name, *algorithm.hindsight.sources]
    assert names == [f"{tmp_path}/mine.py:{letter}" for letter in "EWDFS"]


@pytest.mark.parametrize(
    "algorithm",
    [
        SDPOConfig(divergence="no.such:D"),
        SDPOConfig(divergence="os:getcwd"),
        SDPOConfig(filter=FilterConfig(name="pathlib:Path")),
        SDPOConfig(filter=FilterConfig(name="pathlib:Path", options={"nonsense": 1})),
        SDPOConfig(hindsight=HindsightConfig(sources=["no.such:S"])),
        SDPOConfig(hindsight=HindsightConfig(sources=["pathlib:Path"])),
    ],
    ids=lambda algorithm: algorithm.divergence,
)
def test_what_cannot_be_had_is_refused_before_a_run_starts(algorithm: SDPOConfig) -> None:
    """They were looked up in the middle of a step, or by a rank, and ended the run with a traceback."""
    with pytest.raises(UserError):
        check_named(algorithm, RolloutConfig())


def test_neither_is_a_weight_sync() -> None:
    with pytest.raises(UserError, match=r"no\.such"):
        check_named(SDPOConfig(), RolloutConfig(weight_sync="no.such:W"))


@pytest.mark.parametrize(
    "sources", [["a.py:Rules", "b.py:Rules"], ["a.py:feedback"], ["a.py:se"], ["a.py:remembered"]], ids=lambda names: names[-1]
)
def test_sources_have_names_of_their_own(sources: list[str]) -> None:
    """A source called ``se`` would be taken for the lift's standard error, and two of one name ended a step."""
    with pytest.raises(ValueError, match="names of their own"):
        HindsightConfig(sources=sources)


def test_with_a_source_no_choice_shows_nothing() -> None:
    assert HindsightConfig(choice=HintChoice.none).shows_nothing
    with_source = HindsightConfig(choice=HintChoice.none, sources=["a.py:Rules"])
    assert not with_source.shows_nothing
    assert with_source.is_measurable


def test_a_filters_options_can_be_typed() -> None:
    config = train_config(["algorithm.filter.name=collections:Counter", "algorithm.filter.options.n=3"])
    assert config.algorithm.filter.options == {"n": 3}
    with pytest.raises(ValueError, match="a method flags"):
        token_filter(config.algorithm.filter)


def test_a_strategy_that_is_none_is_refused() -> None:
    with pytest.raises(UserError, match=r"strategy must name a sdpo\.solving\.strategy\.Strategy"):
        solve_config(["task=a", "env=code", "strategy=os:getpid"])


def test_a_strategys_file_names_no_folder() -> None:
    """A path went into the name of the search's folder, and searches landed outside of ``runs_dir``."""
    assert folder_of("sdpo") == "sdpo"
    one, other = folder_of("/some/where.py:P"), folder_of("/else/where.py:P")
    assert one != other
    assert "/" not in one + other
    assert short("/some/where.py:P") == "P"


def test_a_run_from_before_there_was_a_key_goes_on(tmp_path: Path) -> None:
    """A key that the stored config does not have was compared as None, so that each new key ended every older run."""
    import yaml

    config = train_config([f"runs_dir={tmp_path}", "name=old"])
    folder = RunFolder(tmp_path / "old")
    folder.path.mkdir()
    stored = plain(config)
    del stored["algorithm"]["hindsight"]["sources"], stored["algorithm"]["filter"], stored["rollout"]["weight_sync"]  # type: ignore[index, attr-defined]
    folder.config.write_text(yaml.safe_dump(stored))
    folder.check(config)
    config.algorithm.filter.name = "os:path"
    with pytest.raises(UserError, match=r"algorithm\.filter\.name was None and is now 'os:path'"):
        folder.check(config)


def test_every_strategy_of_the_table_is_one() -> None:
    for name in ("best_of_k", "multi_turn", "sdpo", "sdpo_multi_turn"):
        config: SolveConfig = solve_config(["task=a", "env=code", f"strategy={name}"])
        assert config.learns is name.startswith("sdpo")
