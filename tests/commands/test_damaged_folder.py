"""A run whose folder was damaged goes on with a notice, or is refused in a sentence: no traceback, no hang, nothing deleted.

The folders are made up, and go through all that ``sdpo train`` does with one before it starts anything.
"""

from __future__ import annotations

import io
import re
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from stat import S_ISREG

import pytest
import yaml
from rich.console import Console

from sdpo import cli
from sdpo.commands import outcome
from sdpo.commands.export import run_export
from sdpo.commands.training_run import Standing, standing_at, taken_up
from sdpo.config import Config, ExportConfig, ExportedWeights, TrackingConfig
from sdpo.errors import UserError
from sdpo.preflight.models import resolve
from sdpo.run.folder import RunFolder, plain, records
from sdpo.run.journal import Journal
from sdpo.tracking.tracker import Tracker
from tests.commands.damage import DAMAGES, POLICY, RANK, STEPS, Damage, config, flip, write_run, zeros


def contents(folder: Path) -> Counter[bytes]:
    """What every file under the folder holds, wherever it lies and whatever it is called."""
    files = [file for file in folder.rglob("*") if S_ISREG(file.lstat().st_mode) and file.name not in (".lock", "config.yaml")]
    return Counter(file.read_bytes() for file in files)


@pytest.fixture(scope="module")
def undamaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Writing to the disk takes time, so it is done once."""
    runs = tmp_path_factory.mktemp("undamaged")
    return write_run(runs / "run", config(runs)).path


@pytest.fixture
def folder(undamaged: Path, tmp_path: Path) -> RunFolder:
    return RunFolder(Path(shutil.copytree(undamaged, tmp_path / "run")))


def begun(of: Config, folder: RunFolder) -> tuple[Standing, list[str]]:
    """The run as far as its folder goes, and what it said."""
    said: list[str] = []
    last = taken_up(of, folder, said.append)
    screen = Console(file=io.StringIO())
    assert not outcome.ended_by_alarm(screen, folder, of)
    where = standing_at(of, folder, last)
    Journal(folder.unfinished, step=where.step)
    outcome.show(screen, folder)
    return where, said


@pytest.mark.timeout(20)
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=[name.replace(" ", "_") for name in DAMAGES])
def test_a_damaged_folder_is_survived_with_a_notice_or_refused_in_a_sentence(damage: Damage, folder: RunFolder) -> None:
    of = config(folder.path.parent)
    damage.do(folder)
    before = contents(folder.path)
    if damage.after is None:
        with pytest.raises(UserError, match=re.compile(damage.says, re.DOTALL)):
            begun(of, folder)
        assert contents(folder.path) == before
        return
    records_before = contents(folder.checkpoints)
    where, said = begun(of, folder)
    assert where.step == damage.after
    assert where.checkpoint is not None
    assert where.checkpoint.name == f"step_{damage.after:06d}"
    assert re.search(damage.says, " ".join(said), re.DOTALL) if damage.says else said == []
    assert contents(folder.checkpoints) == records_before
    assert {line["step"] for line in records(folder.metrics)} <= set(range(1, damage.after + 1))
    kept = {file.name for inner in (folder.rollouts, folder.credit) for file in inner.iterdir()}
    assert kept & {"step_foo.jsonl", "step_foo.jsonl.gz"} == ({"step_foo.jsonl"} if damage is STRANGERS[0] else set()) | (
        {"step_foo.jsonl.gz"} if damage is STRANGERS[1] else set()
    )


STRANGERS = [
    DAMAGES["a stranger's file lies beside the rollouts"],
    DAMAGES["a stranger's file lies beside the credit"],
]


def test_there_are_enough_kinds() -> None:
    assert len(DAMAGES) >= 33


def test_an_undamaged_folder_is_continued_without_a_word(folder: RunFolder) -> None:
    of = config(folder.path.parent)
    where, said = begun(of, folder)
    assert (where.step, said) == (4, [])
    assert [line["step"] for line in records(folder.metrics)] == [1, 2, 3, 4]
    assert sorted(file.name for file in folder.rollouts.iterdir()) == [f"step_{step:06d}.jsonl" for step in range(1, STEPS)]


def test_a_damaged_checkpoint_is_set_aside_so_that_it_never_counts_again(folder: RunFolder, tmp_path: Path) -> None:
    """It stood as the newest: with checkpoint.keep=1 the next save would have removed itself and kept the damaged one."""
    of = config(folder.path.parent)
    for time in range(2):
        if time:
            (folder.checkpoints / "step_000002").rename(folder.checkpoints / "step_000004")  # whose counters are of step 2
            write_run(tmp_path / "other", replace(of, name="other")).checkpoints.joinpath("step_000002").rename(
                folder.checkpoints / "step_000002"
            )
        else:
            (folder.checkpoints / "step_000004" / "learner.json").write_text("")
        assert begun(of, folder)[0].step == 2
        assert folder._lock is not None
        folder._lock.close()
    assert sorted(path.name for path in folder.checkpoints.iterdir()) == [
        "step_000002",
        "step_000004.damaged",
        "step_000004.damaged-2",
    ]


def test_a_refusal_changes_no_checkpoint_either(folder: RunFolder) -> None:
    """A damaged checkpoint and a damaged record: the checkpoint was renamed before the record was found."""
    of = config(folder.path.parent)
    DAMAGES["bytes of a rank's file are flipped"].do(folder)
    DAMAGES["a line of metrics has bad bytes"].do(folder)
    with pytest.raises(UserError, match="no record of a step"):
        begun(of, folder)
    assert sorted(path.name for path in folder.checkpoints.iterdir()) == ["step_000002", "step_000004"]


def test_a_run_that_shows_earlier_successes_needs_its_rollouts(folder: RunFolder, tmp_path: Path) -> None:
    """It was refused only after the records of later steps had been removed."""
    of = config(tmp_path, success_buffer=2)
    text = yaml.safe_dump(plain(of), sort_keys=False)
    folder.config.write_text(text)
    folder.rollouts_of(3).write_bytes(b'{"step": \xff}\n')
    before = contents(folder.path)
    with pytest.raises(UserError, match=r"step_000003\.jsonl cannot be read"):
        begun(of, folder)
    assert contents(folder.path) == before


@pytest.mark.parametrize("name", ["the config is not UTF-8", "the config is a list", "the config is empty"])
def test_the_command_line_ends_with_exit_code_2(name: str, folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    DAMAGES[name].do(folder)
    code = cli.main(["train", f"runs_dir={folder.path.parent}", "name=run", "--dry-run"])
    error = capsys.readouterr().err
    assert code == 2
    assert error.startswith("error: a run's folder must hold the config it was started with")


def test_nothing_reads_a_damaged_policy(folder: RunFolder, tmp_path: Path) -> None:
    """``sdpo export`` wrote it out, and a run was begun from it: ``model.path=runs/NAME/checkpoints/step_000004/policy``."""
    path, said = folder.checkpoints / "step_000004", list[str]()
    assert resolve(str(path / "policy"), said.append) == str(path / "policy")
    assert said == []
    flip(path / POLICY)
    for read in (
        lambda: run_export(ExportConfig(checkpoint=str(path), to=str(tmp_path / "to"))),
        lambda: resolve(str(path / "policy"), said.append),
    ):
        with pytest.raises(UserError, match=r"is damaged: policy/model\.safetensors is not what was written"):
            read()
    assert not (tmp_path / "to").exists()
    shutil.move(path, path.with_name("step_000004.damaged"))
    with pytest.raises(UserError, match="is damaged"):
        resolve(str(path.with_name("step_000004.damaged") / "policy"), said.append)


def test_a_policy_of_an_earlier_version_is_read_with_a_notice(folder: RunFolder) -> None:
    path, said = folder.checkpoints / "step_000004", list[str]()
    (path / "SHA256SUMS").unlink()
    assert resolve(str(path / "policy"), said.append) == str(path / "policy")
    assert "was not verified" in said[0]


def test_an_average_is_exported_from_sound_ranks_alone(folder: RunFolder, tmp_path: Path) -> None:
    path = folder.checkpoints / "step_000004"
    zeros(path / RANK)
    with pytest.raises(UserError, match=r"is damaged: rank-00000\.safetensors is not what was written"):
        run_export(ExportConfig(checkpoint=str(path), to=str(tmp_path / "to"), weights=ExportedWeights.average))
    assert run_export(ExportConfig(checkpoint=str(path), to=str(tmp_path / "to"))) == 0  # the policy is as it was


def test_the_rollouts_may_be_removed_while_the_run_goes_on(folder: RunFolder) -> None:
    """The next step ended in a traceback."""
    shutil.rmtree(folder.rollouts)
    Tracker(folder, TrackingConfig()).rollouts(5, (), ())
    assert folder.rollouts_of(5).read_text() == ""


def test_a_folder_that_may_not_be_written_is_not_told_to_free_space(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def denied(command: str, rest: list[str]) -> int:
        raise PermissionError(13, "Permission denied", "/runs/run/metrics.jsonl")

    monkeypatch.setattr(cli, "_run", denied)
    assert cli.main(["train", "--dry-run"]) == 2
    error = capsys.readouterr().err
    assert "/runs/run/metrics.jsonl may not be written or read (Permission denied)" in error
    assert "space" not in error
