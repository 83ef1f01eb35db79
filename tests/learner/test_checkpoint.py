"""Which checkpoints are kept, and that a reader finds each of them whole or not at all. The folders are fakes: counters alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdpo.errors import UserError
from sdpo.learner.checkpoint import (
    COUNTERS,
    Counters,
    abandon,
    begin,
    checkpoints,
    commit,
    counters_of,
    fault,
    newest_sound,
    prune,
    readable,
    remove,
    sweep,
    verify,
)
from sdpo.run import digests


def save(folder: Path, step: int, score: float | None = None) -> Path:
    path = folder / f"step_{step:06d}"
    (begin(path) / "rank-00000.safetensors").write_text(f"weights of step {step}")
    commit(path, Counters(step=step, num_updates=4 * step, score=score))
    return path


def steps_in(folder: Path) -> list[int]:
    return [counters_of(path).step for path in checkpoints(folder)]


def kept(folder: Path, scores: list[float | None], *, keep: int, keep_best: int) -> list[int]:
    """The steps that are left of ``scores``, those of steps 1, 2 and so on, after one look at all of them."""
    for step, score in enumerate(scores, start=1):
        save(folder, step, score)
    prune(folder, keep=keep, keep_best=keep_best)
    return steps_in(folder)


@pytest.mark.parametrize(("keep", "left"), [(1, [5]), (2, [4, 5]), (9, [1, 2, 3, 4, 5])])
def test_the_newest_are_kept(tmp_path: Path, keep: int, left: list[int]) -> None:
    assert kept(tmp_path, [0.9, None, 0.5, 0.1, None], keep=keep, keep_best=0) == left


@pytest.mark.parametrize(("keep_best", "left"), [(0, [5]), (1, [1, 5]), (2, [1, 3, 5]), (3, [1, 3, 4, 5]), (9, [1, 3, 4, 5])])
def test_the_best_are_kept_besides(tmp_path: Path, keep_best: int, left: list[int]) -> None:
    assert kept(tmp_path, [0.9, None, 0.5, 0.1, None], keep=1, keep_best=keep_best) == left


def test_the_best_may_be_the_newest_too(tmp_path: Path) -> None:
    assert kept(tmp_path, [0.2, 0.5, 0.9], keep=1, keep_best=1) == [3]


def test_of_equals_the_later_is_the_better_one(tmp_path: Path) -> None:
    assert kept(tmp_path, [0.5, 0.5, 0.5, None], keep=1, keep_best=1) == [3, 4]


def test_a_success_of_zero_is_a_score(tmp_path: Path) -> None:
    assert kept(tmp_path, [None, 0.0, None, None], keep=1, keep_best=1) == [2, 4]


def test_without_an_evaluation_there_is_no_best(tmp_path: Path) -> None:
    assert kept(tmp_path, [None] * 4, keep=2, keep_best=3) == [3, 4]


@given(
    scores=st.lists(st.one_of(st.none(), st.sampled_from([0.0, 0.25, 0.5, 1.0])), min_size=1, max_size=8),
    keep=st.integers(1, 3),
    keep_best=st.integers(0, 3),
)
@settings(deadline=None, max_examples=40)
def test_pruning_after_every_step_never_loses_the_best(
    tmp_path_factory: pytest.TempPathFactory, scores: list[float | None], keep: int, keep_best: int
) -> None:
    """As a run does it: what is thrown away early cannot be missed later."""
    folder = tmp_path_factory.mktemp("run")
    for step, score in enumerate(scores, start=1):
        save(folder, step, score)
        prune(folder, keep=keep, keep_best=keep_best)
    ranked = sorted(((score, step) for step, score in enumerate(scores, start=1) if score is not None), reverse=True)
    newest = range(max(1, len(scores) - keep + 1), len(scores) + 1)
    assert steps_in(folder) == sorted({*newest, *(step for _, step in ranked[:keep_best])})


def test_a_kept_checkpoint_is_not_touched(tmp_path: Path) -> None:
    kept(tmp_path, [0.9, 0.1, 0.2, 0.3], keep=1, keep_best=1)
    assert (tmp_path / "step_000001" / "rank-00000.safetensors").read_text() == "weights of step 1"
    assert counters_of(tmp_path / "step_000001") == Counters(step=1, num_updates=4, score=0.9)


def test_what_interrupted_writes_and_removals_left_goes_and_other_files_stay(tmp_path: Path) -> None:
    begin(tmp_path / "step_000007")
    (tmp_path / ".step_000001.removed").mkdir()
    (tmp_path / "notes").mkdir()
    assert kept(tmp_path, [None, None], keep=1, keep_best=0) == [2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes", "step_000002"]


def test_a_checkpoint_that_was_not_committed_is_none(tmp_path: Path) -> None:
    scratch = begin(tmp_path / "step_000001")
    assert checkpoints(tmp_path) == []
    assert scratch.parent == tmp_path
    (tmp_path / "step_000002").mkdir()
    assert checkpoints(tmp_path) == []
    assert checkpoints(tmp_path / "nowhere") == []


def test_a_step_that_is_saved_again_replaces_what_was_there(tmp_path: Path) -> None:
    path = save(tmp_path, 3, 0.5)
    (path / "left over").write_text("of the first time")
    save(tmp_path, 3, None)
    assert sorted(file.name for file in path.iterdir()) == [digests.FILE, COUNTERS, "rank-00000.safetensors"]
    assert counters_of(path).score is None


def test_a_write_that_broke_leaves_nothing_and_earlier_checkpoints_whole(tmp_path: Path) -> None:
    save(tmp_path, 1)
    begin(tmp_path / "step_000002")
    error = abandon(tmp_path / "step_000002", OSError(28, "No space left on device"))
    assert "No space left on device" in str(error)
    assert [path.name for path in tmp_path.iterdir()] == ["step_000001"]


@pytest.mark.parametrize("score", [None, 0.0, 0.625])
def test_counters_come_back_as_they_were(tmp_path: Path, score: float | None) -> None:
    assert counters_of(save(tmp_path, 12, score)) == Counters(step=12, num_updates=48, score=score)


def test_a_checkpoint_from_before_there_were_scores_has_none(tmp_path: Path) -> None:
    path = save(tmp_path, 5, 0.5)
    (path / COUNTERS).write_text(json.dumps({"step": 5, "num_updates": 20}))
    assert counters_of(path) == Counters(step=5, num_updates=20, score=None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "3",
        '{"step": 1}',
        '{"step": true, "num_updates": 2}',
        "[" * 100_000,
        '{"step": 1, "num_updates": 2, "unheard_of": 3}',
    ],
)
def test_a_folder_without_readable_counters_is_refused_by_name(tmp_path: Path, text: str) -> None:
    path = save(tmp_path, 5)
    (path / COUNTERS).write_text(text)
    with pytest.raises(UserError, match=r"a checkpoint folder must hold a readable learner\.json.*step_000012"):
        counters_of(path)
    with pytest.raises(UserError, match="nowhere"):
        counters_of(tmp_path / "nowhere")


def test_checkpoints_are_ordered_by_number_and_are_called_by_digits_alone(tmp_path: Path) -> None:
    """``step_backup`` came last, so a run went back to it; ``step_1000000`` came before ``step_999999``."""
    for step in (999_999, 1_000_000, 7):
        save(tmp_path, step)
    for name in ("step_backup", "step_000007 (copy)", "step_", "step_7x", "step_-1", "step_٧", ".step_000009", "Step_000009"):
        shutil.copytree(tmp_path / "step_000007", tmp_path / name)
    assert [path.name for path in checkpoints(tmp_path)] == ["step_000007", "step_999999", "step_1000000"]
    before = sorted(path.name for path in tmp_path.iterdir())
    prune(tmp_path, keep=1, keep_best=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        name for name in before if name not in ("step_000007", "step_999999")
    ]


def test_a_checkpoint_that_contradicts_its_name_neither_counts_nor_goes(tmp_path: Path) -> None:
    """Its counters were believed, and the records of all steps after them were removed."""
    for step in (1, 2, 3):
        save(tmp_path, step, 0.5)
    (tmp_path / "step_000001").rename(tmp_path / "step_000009")
    assert list(readable(tmp_path)) == [tmp_path / "step_000002", tmp_path / "step_000003"]
    with pytest.raises(UserError, match=r"learner\.json is of step 1, and the folder's name says 9"):
        verify(tmp_path / "step_000009", print)
    prune(tmp_path, keep=1, keep_best=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_000003", "step_000009"]


def test_pruning_survives_a_checkpoint_whose_counters_cannot_be_read(tmp_path: Path) -> None:
    """A run ended in its next save because the counters of an old checkpoint were damaged."""
    for step in (1, 2, 3):
        save(tmp_path, step, 0.5)
    (tmp_path / "step_000001" / COUNTERS).write_text("")
    prune(tmp_path, keep=1, keep_best=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_000001", "step_000003"]


def test_only_what_interrupted_writes_left_is_swept(tmp_path: Path) -> None:
    """Every hidden folder whose name began with ``.step_`` went."""
    for name in (".step_000001.partial", ".step_000002.removed", ".step_mine", ".step_000003.backup"):
        (tmp_path / name).mkdir()
    sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".step_000003.backup", ".step_mine"]


def test_what_an_interrupted_removal_left_does_not_stop_the_next(tmp_path: Path) -> None:
    left = tmp_path / ".step_000001.removed"
    left.mkdir()
    (left / "file").write_text("of the first time")
    remove(save(tmp_path, 1))
    assert list(tmp_path.iterdir()) == []


def write_policy_and_rank(path: Path) -> None:
    scratch = begin(path)
    (scratch / "policy").mkdir()
    (scratch / "policy" / "model.safetensors").write_bytes(b"policy")
    (scratch / "rank-00000.safetensors").write_bytes(b"rank")
    commit(path, Counters(step=3, num_updates=6))


def test_every_file_of_a_checkpoint_has_a_digest_that_sha256sum_confirms(tmp_path: Path) -> None:
    path = tmp_path / "step_000003"
    write_policy_and_rank(path)
    lines = (path / digests.FILE).read_text().splitlines()
    assert [line.partition("  ")[2] for line in lines] == ["policy/model.safetensors", "rank-00000.safetensors", COUNTERS]
    assert subprocess.run(["sha256sum", "--check", "--strict", digests.FILE], cwd=path, check=False).returncode == 0
    assert fault(path) is None


def test_a_digest_of_whoever_wrote_the_file_is_believed(tmp_path: Path) -> None:
    """A rank digests its own file before anything can happen to it: what is damaged until the commit is found."""
    path = tmp_path / "step_000003"
    scratch = begin(path)
    (scratch / "rank-00000.safetensors").write_bytes(b"as written")
    sealed = digests.sealed(scratch, ["rank-00000.safetensors"])
    (scratch / "rank-00000.safetensors").write_bytes(b"as damaged")
    commit(path, Counters(step=3, num_updates=6), sealed)
    assert fault(path) == "rank-00000.safetensors is not what was written (its SHA-256 is another)"


def test_all_of_a_checkpoint_is_on_the_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut after the rename left a checkpoint whose files were empty."""
    events: list[str] = []
    path = tmp_path / "step_000003"
    replace, fsync = os.replace, os.fsync

    def renamed(source: Path, target: Path) -> None:
        events.append(f"rename {Path(target).name}")
        replace(source, target)

    def flushed(handle: int) -> None:
        events.append(Path(os.readlink(f"/proc/self/fd/{handle}")).name)
        fsync(handle)

    monkeypatch.setattr(os, "replace", renamed)
    monkeypatch.setattr(os, "fsync", flushed)
    write_policy_and_rank(path)
    at = events.index("rename step_000003")
    assert set(events[:at]) == {
        "policy",
        "model.safetensors",
        "rank-00000.safetensors",
        COUNTERS,
        digests.FILE,
        ".step_000003.partial",
    }
    assert events[at + 1 :] == [tmp_path.name]


def test_the_newest_sound_checkpoint_up_to_a_step_is_found(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save(tmp_path, step)
    said: list[str] = []
    assert newest_sound(tmp_path, said.append, up_to=2) == tmp_path / "step_000002"
    assert said == []
    (tmp_path / "step_000002" / "rank-00000.safetensors").write_text("Weights of step 2")
    assert newest_sound(tmp_path, said.append, up_to=2) == tmp_path / "step_000001"
    assert said == [
        "the checkpoint step_000002 is damaged: rank-00000.safetensors is not what was written (its SHA-256 is another). "
        "step_000001 takes its place"
    ]
    assert newest_sound(tmp_path, said.append, up_to=0) is None
    assert newest_sound(tmp_path / "nowhere", said.append) is None


def test_what_is_read_alone_is_verified_alone(tmp_path: Path) -> None:
    """Whoever exports the policy needs nothing of the moments."""
    path = tmp_path / "step_000003"
    write_policy_and_rank(path)
    (path / "rank-00000.safetensors").write_bytes(b"RANK")
    assert verify(path, print, within="policy").step == 3
    with pytest.raises(UserError, match=r"is damaged: rank-00000\.safetensors is not what was written"):
        verify(path, print)
    (path / "policy" / "model.safetensors").write_bytes(b"POLICY")
    with pytest.raises(UserError, match=r"is damaged: policy/model\.safetensors is not what was written"):
        verify(path, print, within="policy")


@pytest.mark.parametrize("line", ["../outside", "/etc/passwd", ""])
def test_digests_name_nothing_outside_of_their_folder(line: str, tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    with (path / digests.FILE).open("a") as file:
        file.write(f"{'0' * 64}  {line}\n")
    assert fault(path) == f"{digests.FILE} cannot be read"


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (OSError(28, "No space left on device"), "Free some space"),
        (OSError(30, "Read-only file system"), "Make it writable"),
        (PermissionError(13, "Permission denied"), "Make it writable"),
    ],
)
def test_a_checkpoint_that_cannot_be_written_is_told_with_its_own_remedy(tmp_path: Path, error: OSError, remedy: str) -> None:
    """A read-only folder was told to free some space."""
    said = str(abandon(tmp_path / "step_000002", error))
    assert remedy in said
    assert ("Free some space" in said) == (remedy == "Free some space")


def test_a_checkpoint_whose_folder_is_gone_is_told_so(tmp_path: Path) -> None:
    """Asking for the free space there raised an error of its own."""
    said = str(abandon(tmp_path / "gone" / "step_000002", FileNotFoundError(2, "No such file or directory")))
    assert "is not there any more" in said
