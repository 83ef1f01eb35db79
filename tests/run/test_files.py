"""A folder that a command makes is whole or is not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdpo.errors import UserError
from sdpo.run.files import refuse_existing, whole_folder


def test_a_folder_appears_whole_at_the_end_and_replaces_what_a_kill_left(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    target = tmp_path / "made" / "model"
    (tmp_path / "made" / ".model.partial").mkdir()
    (tmp_path / "made" / ".model.partial" / "old").touch()
    with whole_folder(target) as scratch:
        scratch.mkdir()
        (scratch / "weights").write_text("new")
        assert not target.exists()
    assert [file.name for file in target.iterdir()] == ["weights"]
    assert [folder.name for folder in (tmp_path / "made").iterdir()] == ["model"]


def test_nothing_of_a_folder_is_left_where_its_making_fails(tmp_path: Path) -> None:
    def interrupted() -> None:
        with whole_folder(tmp_path / "a" / "model") as scratch:
            scratch.mkdir()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list((tmp_path / "a").iterdir()) == []


def test_a_folder_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    refuse_existing(tmp_path / "new")
    with pytest.raises(UserError, match="not there yet"):
        refuse_existing(tmp_path)
