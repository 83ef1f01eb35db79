"""Which checkpoints are kept, and that a reader finds each of them whole or not at all. The folders are fakes: counters alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdpo.errors import UserError
from sdpo.learner.checkpoint import COUNTERS, Counters, abandon, begin, checkpoints, commit, counters_of, prune


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
    assert sorted(file.name for file in path.iterdir()) == [COUNTERS, "rank-00000.safetensors"]
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


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"step": 1}', '{"step": 1, "num_updates": 2, "unheard_of": 3}'])
def test_a_folder_without_readable_counters_is_refused_by_name(tmp_path: Path, text: str) -> None:
    path = save(tmp_path, 5)
    (path / COUNTERS).write_text(text)
    with pytest.raises(UserError, match=r"a checkpoint folder must hold a readable learner\.json.*step_000012"):
        counters_of(path)
    with pytest.raises(UserError, match="nowhere"):
        counters_of(tmp_path / "nowhere")
