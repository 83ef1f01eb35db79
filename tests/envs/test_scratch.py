"""Folders that nobody needs after their owner: gone with it, or with the next one's start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sdpo.envs.scratch import ScratchFolder, made_name, remove_leftovers


def owner(base: Path) -> tuple[subprocess.Popen[str], Path]:
    """A process with a scratch folder, and that folder."""
    code = f"""
import sys
from pathlib import Path
from sdpo.envs.scratch import ScratchFolder
folder = ScratchFolder("box", Path({str(base)!r})).path
(folder / "file").write_text("x")
print(folder, flush=True)
sys.stdin.read()
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_the_folder_of_a_killed_owner_goes_with_the_next_start_and_that_of_a_live_one_stays(tmp_path: Path) -> None:
    """/tmp/sdpo-sandbox-* was left for good by every owner that was killed."""
    (killed, left), (living, held) = owner(tmp_path), owner(tmp_path)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert left.is_dir()
    with ScratchFolder("other", tmp_path):
        assert not left.exists()
        assert (held / "file").read_text() == "x"
    living.kill()
    living.communicate()
    remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_it_is_this_users_alone_and_has_another_name_each_time(tmp_path: Path) -> None:
    with ScratchFolder("a", tmp_path) as one, ScratchFolder("a", tmp_path) as two:
        assert one.path != two.path
        assert one.path.stat().st_mode & 0o777 == 0o700
        assert len(one.path.name) == len(made_name("a"))
        remove_leftovers(tmp_path)
        assert one.path.is_dir()
    one.close()
    assert list(tmp_path.iterdir()) == []


def test_what_only_looks_like_a_leftover_is_left_alone(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("x")
    (tmp_path / made_name("link")).symlink_to(precious)
    (tmp_path / made_name("file")).write_text("x")
    os.mkfifo(tmp_path / made_name("pipe"))
    (tmp_path / "sdpo-sandbox-abcdefgh").mkdir()
    remove_leftovers(tmp_path)
    assert (precious / "file").read_text() == "x"
    assert len(list(tmp_path.iterdir())) == 5


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's folder")
def test_another_users_folder_is_left_alone(tmp_path: Path) -> None:
    theirs = tmp_path / made_name("theirs")
    theirs.mkdir()
    os.chown(theirs, 12345, 12345)
    remove_leftovers(tmp_path)
    assert theirs.is_dir()


def test_what_lies_beside_a_link_in_a_leftover_is_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    left = tmp_path / made_name("left")
    left.mkdir()
    (left / "link").symlink_to(precious)
    remove_leftovers(tmp_path)
    assert precious.is_dir()
    assert not left.exists()
