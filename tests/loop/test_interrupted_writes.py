"""A run whose writes are cut off anywhere, by a kill or by a full disk, goes on from a whole checkpoint to the same end."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sdpo.errors import UserError
from sdpo.learner import checkpoint
from sdpo.learner.checkpoint import Counters
from sdpo.run import digests, stored
from tests.loop.test_training_run import MortalLearner, Run

NUM_POINTS = 10
PAGE = 4096
FILES = ("rank-00000.safetensors", "policy/model.safetensors", "policy/config.json", "policy/tokenizer.json")


def save_whole(self: MortalLearner, path: Path, *, score: float | None) -> None:
    """As the learner's ranks and their driver write a checkpoint, with files of some pages."""
    try:
        scratch = checkpoint.begin(path)
        for name in FILES:
            (scratch / name).parent.mkdir(exist_ok=True)
            (scratch / name).write_bytes(f"{name} of step {self.step}\n".encode() * 500)
        counters = Counters(step=self.step, num_updates=self.step, score=score)
        checkpoint.commit(path, counters, digests.sealed(scratch, FILES))
    except OSError as error:
        raise checkpoint.abandon(path, error) from error
    checkpoint.prune(path.parent, keep=1, keep_best=0)


def finish(run: Run) -> None:
    """The same command again, in the same process."""
    run.learner.step = 0
    run()


def assert_nothing_half(run: Run) -> None:
    """Whatever has a checkpoint's name is one, and every record but the last of a file can be read."""
    for path in checkpoint.checkpoints(run.folder.checkpoints):
        assert checkpoint.fault(path) is None
    for file in (run.folder.metrics, run.folder.evaluations):
        assert all(line.record is not None for line in stored.lines(file)[:-1])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, object]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MortalLearner, "save", save_whole)
        run = Run(tmp_path_factory.mktemp("runs") / "run")
        run()
        yield run.recorded()


class _Writes:
    """Counts what a process does to files while it writes the checkpoint of step 4, and kills it at one of them."""

    def __init__(self, folder: Path, kill_at: int | None) -> None:
        self._folder, self._kill_at = str(folder), kill_at
        self._is_writing = False
        self.num = 0

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not event.startswith(("open", "os.", "shutil.")) or not arguments or self._folder not in str(arguments[0]):
            return
        if event == "os.mkdir" and str(arguments[0]).endswith(".partial"):
            self._is_writing = str(arguments[0]).endswith(".step_000004.partial")
        if self._is_writing:
            if self.num == self._kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            self.num += 1


def in_child(run: Run, kill_at: int | None) -> int:
    """Begin the run in a child; returns how many things it did to files from then on, or -SIGKILL."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        writes = _Writes(run.folder.checkpoints, kill_at)
        sys.addaudithook(writes)
        try:
            run()
            os.write(writer, str(writes.num).encode())
        finally:
            os._exit(0)
    os.close(writer)
    _, status = os.waitpid(pid, 0)
    told = os.read(reader, 100)
    os.close(reader)
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else int(told)


def test_a_kill_at_any_of_ten_points_of_a_checkpoint_s_write_costs_nothing(
    tmp_path: Path, whole: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the scratch folder's making over its files, digests and rename to the removal of an older one."""
    monkeypatch.setattr(MortalLearner, "save", save_whole)
    num = in_child(Run(tmp_path / "counted"), None)
    assert num > 2 * NUM_POINTS
    newest = set()
    for point in range(NUM_POINTS):
        run = Run(tmp_path / f"run-{point}")
        assert in_child(run, point * (num - 1) // (NUM_POINTS - 1)) == -signal.SIGKILL
        assert_nothing_half(run)
        told: list[str] = []
        sound = checkpoint.newest_sound(run.folder.checkpoints, told.append)
        assert sound is not None
        assert told == []
        newest.add(sound.name)
        finish(run)
        assert run.recorded() == whole, point
    assert {"step_000002", "step_000004"} <= newest, "points before and after the rename"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """2 MiB, mounted."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"needs the right to mount a tmpfs: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=False)


def error_of(folder: Path) -> tuple[Run | None, Exception | None]:
    """Begin a run there; what it raised, and None where it came to its end."""
    run = None
    try:
        run = Run(folder)
        run()
    except (UserError, OSError) as error:
        return run, error
    return run, None


@pytest.mark.parametrize(("num_pages", "stride"), [(3, 9), pytest.param(1, 1, marks=pytest.mark.full)])
def test_a_disk_that_is_full_at_any_write_costs_nothing(
    disk: Path, whole: dict[str, object], monkeypatch: pytest.MonkeyPatch, num_pages: int, stride: int
) -> None:
    """The disk has room for one page, for two, and so on until the run gets through: each write finds it full once."""
    monkeypatch.setattr(MortalLearner, "save", save_whole)
    filler, kinds = disk / "filler", set[type[Exception]]()
    while True:
        filler.write_bytes(b"\0" * (shutil.disk_usage(disk).free - num_pages * PAGE))
        run, error = error_of(disk / "run")
        filler.unlink()
        if error is None:
            break
        kinds.add(type(error))
        if isinstance(error, OSError):
            assert error.errno == errno.ENOSPC
        else:
            assert "Nothing half-written was kept, and earlier checkpoints are whole. Free some space" in str(error)
        run = run or Run(disk / "run")
        assert_nothing_half(run)
        finish(run)
        assert run.recorded() == whole, num_pages
        shutil.rmtree(disk / "run")
        num_pages += stride
    assert kinds == {UserError, OSError}, "a checkpoint's write, and another"
