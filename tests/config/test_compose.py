"""The config that a run writes into its folder is the one it reads back, whatever was said on the command line."""

from __future__ import annotations

import copy
import enum
import pickle
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml

from sdpo import config as config_module
from sdpo.config import (
    ByHint,
    Config,
    Dtype,
    EmaTeacher,
    FrozenTeacher,
    FullSupport,
    GRPOConfig,
    Normalisation,
    Offload,
    Resume,
    SDPOConfig,
    TopSupport,
    Truncated,
    kinds,
)
from sdpo.config.compose import saved_config, train_config
from sdpo.errors import UserError
from sdpo.plugins import seam
from sdpo.run.folder import _MAY_DIFFER, _MAY_NOT, RunFolder, differing, flat, plain

CONF = Path(__file__).parent.parent.parent / "conf"
ALGORITHMS = sorted(file.stem for file in (CONF / "algorithm").glob("*.yaml"))
LEARNERS = sorted(file.stem for file in (CONF / "learner").glob("*.yaml"))
MISSING = {"gkd": ["algorithm.teacher.path=some/teacher"]}
"""What an algorithm cannot know by itself."""


@cache
def composed(*words: str, algorithm: str = "sdpo") -> Config:
    bf16 = ["learner.dtype=bfloat16", "rollout.dtype=bfloat16"]  # whatever this machine would choose
    return train_config([f"algorithm={algorithm}", *MISSING.get(algorithm, []), *bf16, "runs_dir=somewhere", *words])


def through_a_file(config: Config, folder: Path) -> Config:
    """As a run's folder has it."""
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(plain(config), sort_keys=False))
    return saved_config(file)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_shipped_algorithm_comes_back_as_it_was(algorithm: str, tmp_path: Path) -> None:
    config = composed(algorithm=algorithm)
    found = through_a_file(config, tmp_path)
    assert found == config
    assert type(found.algorithm) is type(config.algorithm) in (SDPOConfig, GRPOConfig)
    assert found.algorithm.name == algorithm


@pytest.mark.parametrize("learner", LEARNERS)
def test_every_shipped_learner_composes_and_comes_back(learner: str, tmp_path: Path) -> None:
    config = composed(f"learner={learner}")
    assert through_a_file(config, tmp_path) == config


@pytest.mark.parametrize(
    "words",
    [
        ["learner.lr=3e-7", "learner.dtype=float32", "learner.offload=all", "learner.zero_stage=3", "learner.num_ranks=4"],
        ["learner.lora.rank=8", "learner.lora.target_modules=[q_proj,v_proj]"],
        ["algorithm.routing.kind=by_hint", "algorithm.normalisation=paper", "algorithm.reference_kl=1e-3"],
        ["algorithm.teacher.kind=external", "algorithm.teacher.path=a/b", "algorithm.hindsight.choice=none"],
        ["algorithm.support.kind=full", "algorithm.granularity=token", "batch.tasks_per_update=1", "checkpoint.keep_best=3"],
        ["env=custom", "env.name=a.py:B", "env.options.words=[yes,no,'1e3']", "env.options.deep={a: 1.5, b: null, c: true}"],
        ["model.chat_template_options.enable_thinking=false", "name=a run: with punctuation", "cluster.address=auto"],
    ],
    ids=["learner", "lora", "routing", "external", "support", "options", "words"],
)
def test_what_was_said_comes_back(words: list[str], tmp_path: Path) -> None:
    config = composed(*words)
    assert config != composed()
    assert through_a_file(config, tmp_path) == config


def test_a_config_that_came_back_comes_back_again(tmp_path: Path) -> None:
    once = through_a_file(composed("algorithm.hindsight.max_prompt_tokens=700"), tmp_path)
    assert through_a_file(once, tmp_path) == once


def test_every_choice_is_called_what_it_is() -> None:
    """Files hold values, hydra takes names: they must be one."""
    choices = [kind for kind in vars(config_module).values() if isinstance(kind, enum.EnumMeta) and kind is not enum.Enum]
    assert len(choices) > 10
    for kind in choices:
        assert {member.name for member in kind} == {member.value for member in kind}, kind


def test_an_algorithm_that_lacks_something_says_what() -> None:
    with pytest.raises(UserError, match=r"algorithm\.teacher\.path "):
        train_config(["algorithm=gkd", "runs_dir=somewhere"])


@pytest.mark.parametrize(
    "change",
    [
        {"algorithm": {"divergence": "tv"}},
        {"algorithm": {"jsd_beta": 2.0}},
        {"learner": {"zero_stage": 7}},
        {"learner": {"unheard_of": 1}},
        {"unheard_of": 1},
    ],
    ids=str,
)
def test_a_config_of_another_version_is_refused_by_its_file(change: dict[str, object], tmp_path: Path) -> None:
    stored = plain(composed())
    for key, value in change.items():
        here = stored.get(key)
        stored[key] = {**here, **value} if isinstance(here, dict) and isinstance(value, dict) else value
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(stored))
    with pytest.raises(UserError, match=r"must hold the config it was started with; .*config\.yaml is none that can be read"):
        saved_config(tmp_path / "config.yaml")


def test_a_config_of_a_version_that_knew_less_has_todays_defaults(tmp_path: Path) -> None:
    config = composed("learner.lr=3e-7")
    stored = plain(config)
    del stored["checkpoint"], stored["algorithm"]["routing"], stored["learner"]["lora"]  # type: ignore[attr-defined]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(stored))
    assert saved_config(tmp_path / "config.yaml") == config


def test_a_normalisation_that_got_another_name_is_refused_with_it_and_read_from_a_run_that_had_it(tmp_path: Path) -> None:
    """`reference` was called after the authors' code, and is the paper's equation."""
    with pytest.raises(UserError, match=r"algorithm\.normalisation=reference is called paper by now\. Say .*=paper\."):
        composed("algorithm.normalisation=reference")
    config = composed("algorithm.normalisation=paper")
    stored = plain(config)
    stored["algorithm"]["normalisation"] = "reference"  # type: ignore[index]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(stored))
    assert saved_config(tmp_path / "config.yaml") == config
    assert differing(stored, config) == []


@pytest.mark.parametrize("text", ["", "[]", "42", "some words", "a: [", "model: {}", "algorithm: {}", "!!python/name:os.system"])
def test_a_file_that_is_no_config_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(UserError, match="is none that can be read"):
        saved_config(tmp_path / "config.yaml")
    with pytest.raises(UserError, match="nowhere"):
        saved_config(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize("text", ["algorithm: null", "algorithm: 3"])
def test_a_config_whose_algorithm_is_none_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(UserError, match="is none that can be read"):
        saved_config(tmp_path / "config.yaml")


# A continued run: what decides how it is run may change, what decides what is learned may not.


def changed(changes: dict[str, object]) -> Config:
    """The plain config with other values under some keys."""
    config = copy.deepcopy(composed())
    for key, value in changes.items():
        *path, last = key.split(".")
        part: object = config
        for name in path:
            part = getattr(part, name)
        assert getattr(part, last) != value
        setattr(part, last, value)
    return config


def continued(folder: Path, changes: dict[str, object]) -> None:
    """Raises UserError where a run that began with the plain config may not go on with these changes."""
    began = RunFolder(folder / "run")
    began.path.mkdir()
    began.config.write_text(yaml.safe_dump(plain(composed())))
    began.check(changed(changes))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_steps": 99},
        {"learner.num_ranks": 4, "learner.zero_stage": 3, "learner.offload": Offload.all, "learner.sequence_parallel": 2},
        {"learner.gradient_checkpointing": True, "learner.logits_chunk_mib": 1.0, "learner.max_skipped_updates": 9},
        {"batch.micro_batch_tokens": 99, "algorithm.teacher.offload": True, "checkpoint.keep_best": 2, "evaluation.every": 3},
        {"rollout.num_engines": 2, "tracking.quiet": True, "cluster.address": "auto", "resume": Resume.must, "runs_dir": "b"},
    ],
    ids=lambda changes: next(iter(changes), "nothing"),
)
def test_a_run_goes_on_in_another_way(changes: dict[str, object], tmp_path: Path) -> None:
    continued(tmp_path, changes)


@pytest.mark.parametrize(
    ("key", "value", "was"),
    [
        ("learner.lora.rank", 8, "was 0 and is now 8"),
        ("learner.lora.target_modules", ["q_proj"], r"was \['all-linear'\] and is now \['q_proj'\]"),
        ("learner.lr", 3e-5, "was 1e-05 and is now 3e-05"),
        ("learner.dtype", Dtype.float32, "was 'bfloat16' and is now 'float32'"),
        ("learner.warmup_updates", 3, "was 2 and is now 3"),
        ("learner.num_epochs", 2, "was 1 and is now 2"),
        ("algorithm.routing", ByHint(), "kind was 'blend' and is now 'by_hint'"),
        ("algorithm.normalisation", Normalisation.authors, "was 'distilled' and is now 'authors'"),
        ("algorithm.truncated", Truncated.mask, "was 'learn' and is now 'mask'"),
        ("algorithm.entropy_bonus", 0.1, "was 0.0 and is now 0.1"),
        ("algorithm.reference_kl", 0.1, "was 0.0 and is now 0.1"),
        ("algorithm.teacher.ema_rate", 0.1, "was 0.05 and is now 0.1"),
        ("algorithm.teacher", FrozenTeacher(), "kind was 'ema' and is now 'frozen'"),
        ("algorithm.policy_gradient.overlong_tokens", 8, "was 0 and is now 8"),
        ("rollout.dtype", Dtype.float32, "was 'bfloat16' and is now 'float32'"),
        ("batch.group_size", 4, "was 6 and is now 4"),
        ("seed", 1, "was 0 and is now 1"),
    ],
)
def test_a_run_does_not_go_on_with_something_else_to_learn(key: str, value: object, was: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"{key}[. ]{was}"):
        continued(tmp_path, {key: value})


def test_every_key_that_may_change_is_one_that_there_is() -> None:
    known = {*flat(plain(composed())), *flat(plain(composed(algorithm="grpo")))}
    for key in (*_MAY_DIFFER, *_MAY_NOT):
        assert any(other == key or (key.endswith(".") and other.startswith(key)) for other in known), key


def test_no_key_may_change_because_another_one_begins_like_it() -> None:
    """Keys are compared by their beginnings: an entry must not let a longer name through."""
    known = flat(plain(composed()))
    exact = [key for key in _MAY_DIFFER if not key.endswith(".")]
    let_through = [other for other in known for key in exact if other.startswith(key) and other != key]
    assert let_through == []


# A kind decides which fields there are.


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["algorithm.teacher.kind=frozen", "algorithm.teacher.ema_rate=0.1"],
            "ema_rate is a field of algorithm.teacher.kind=ema",
        ),
        (
            ["algorithm/teacher=live", "algorithm.teacher.offload=true"],
            "of algorithm.teacher.kind=ema or algorithm.teacher.kind=on_gain or algorithm.teacher.kind=periodic alone",
        ),
        (
            ["algorithm.support.kind=full", "algorithm.support.num_ids=5"],
            "of algorithm.support.kind=student or algorithm.support.kind",
        ),
        (
            ["algorithm.routing.kind=by_hint", "algorithm.routing.policy_gradient_share=0.2"],
            "a field of algorithm.routing.kind=blend",
        ),
        (
            ["algorithm.teacher.kind=emma"],
            "algorithm.teacher.kind must be one of ema, live, frozen, on_gain, periodic, trust_region, anchored, external",
        ),
        (["algorithm.support.kind=whole"], "algorithm.support.kind must be one of student, teacher, full; got whole"),
        (
            ["algorithm.routing.kind=by_luck"],
            "algorithm.routing.kind must be one of blend, by_success, by_success_and_hint, by_hint, by_group, auxiliary; "
            "got by_luck",
        ),
        (["algorithm.teacher.kind=external"], "algorithm.teacher.path must be given"),
        (["algorithm=grpo", "algorithm.teacher.kind=live"], "'algorithm.teacher.kind' does not"),
        (["algorithm.routing=by_hint"], "Say algorithm.routing.kind=by_hint"),
        (["algorithm.policy_gradient_share=0.5"], "Say algorithm.routing.policy_gradient_share=0.5"),
    ],
)
def test_a_field_of_another_kind_is_refused_with_the_kind_that_has_it(words: list[str], said: str) -> None:
    """``ema_rate`` with a frozen teacher was accepted and meant nothing; a path with an average needed a rule of its own."""
    with pytest.raises(UserError) as refused:
        composed(*words)
    assert said in str(refused.value)


def test_a_kind_brings_its_own_fields_in_place_of_a_presets() -> None:
    """The rate that a preset gave to its average is not left over on another teacher."""
    frozen = composed("experiment=paper/livecodebench_sdpo", "algorithm.teacher.kind=frozen").algorithm
    assert isinstance(frozen, SDPOConfig)
    assert frozen.teacher == FrozenTeacher()
    assert frozen.support == TopSupport(num_ids=20)
    whole = composed("experiment=paper/livecodebench_sdpo", "algorithm.support.kind=full").algorithm
    assert isinstance(whole, SDPOConfig)
    assert whole.support == FullSupport()
    assert whole.teacher == EmaTeacher(ema_rate=0.01)


OLD_SHAPE = {
    "kind": "frozen", "ema_rate": 0.05, "live_weight": 0.05, "min_gain": 0.02, "max_length_growth": 0.1, "gain_window": 8,
    "path": None, "offload": False,
}  # fmt: skip


def test_a_run_of_before_there_were_kinds_is_read_and_goes_on(tmp_path: Path) -> None:
    """Its config has the fields of all kinds, whichever was chosen; they were "differences" that ended it."""
    config = composed("algorithm.teacher.kind=frozen", "algorithm.routing.policy_gradient_share=0.5")
    stored = plain(config)
    algorithm = stored["algorithm"]
    assert isinstance(algorithm, dict)
    algorithm |= {"teacher": OLD_SHAPE, "routing": "blend", "policy_gradient_share": 0.5}
    began = RunFolder(tmp_path)
    began.config.write_text(yaml.safe_dump(stored))
    assert saved_config(began.config) == config
    began.check(config)


TEACHER = """
from dataclasses import dataclass
from sdpo.config import TeacherConfig

@dataclass
class Halfway(TeacherConfig):
    share: float = 0.5

    def models(self, parts):
        return [parts.start(weight=1.0 - self.share), parts.now(weight=self.share)]
"""


def test_a_yaml_file_may_choose_the_teacher_of_an_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """hydra knows the choices of a group that it was told of; a package's could be named in words alone."""
    (tmp_path / "mine.py").write_text(TEACHER)
    monkeypatch.setattr(seam, "_registered", lambda group: {"halfway": f"{tmp_path / 'mine.py'}:Halfway"})
    kinds.register_installed_teachers()
    found = composed("algorithm/teacher=halfway", "algorithm.teacher.share=0.25").algorithm.taught_by
    assert (found.kind, found.share) == ("halfway", 0.25)  # type: ignore[union-attr, attr-defined]


def test_a_run_whose_teachers_package_has_gone_is_refused_in_a_sentence(tmp_path: Path) -> None:
    stored = plain(composed())
    stored["algorithm"]["teacher"] = {"kind": "halfway", "share": 0.25}  # type: ignore[index]
    began = RunFolder(tmp_path)
    began.config.write_text(yaml.safe_dump(stored))
    with pytest.raises(UserError, match=r"algorithm\.teacher\.kind must be one of ema, .*; got 'halfway'"):
        saved_config(began.config)
    with pytest.raises(UserError, match=r"algorithm\.teacher\.kind was 'halfway' and is now 'ema'"):
        began.check(composed())


def test_a_teacher_from_a_file_means_the_same_in_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its class stands in a file that a rank has not imported, and perhaps looks for in another folder."""
    (tmp_path / "mine.py").write_text(TEACHER)
    monkeypatch.chdir(tmp_path)
    config = composed("algorithm.teacher.kind=mine.py:Halfway", "algorithm.teacher.share=0.25")
    teacher = config.algorithm.taught_by
    assert teacher is not None
    assert teacher.kind == f"{tmp_path / 'mine.py'}:Halfway"
    assert through_a_file(config, tmp_path) == config
    script = "import pickle, sys; print(pickle.load(open(sys.argv[1], 'rb')))"
    (tmp_path / "teacher.pkl").write_bytes(pickle.dumps(teacher))
    shown = subprocess.run(
        [sys.executable, "-P", "-c", script, str(tmp_path / "teacher.pkl")], cwd="/", capture_output=True, text=True, check=True
    )
    assert "share=0.25" in shown.stdout
