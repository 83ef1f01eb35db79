"""The screen of a command that computes."""

from __future__ import annotations

import os
import pty

import pytest

from sdpo.terminal.foreground import user_screen


@pytest.mark.parametrize("kind", ["pipe", "terminal"])
def test_a_command_whose_reader_has_gone_goes_on(kind: str) -> None:
    """A run whose terminal was closed died of the line that said it would stop after this step, and kept no checkpoint."""
    reader, writer = os.pipe() if kind == "pipe" else pty.openpty()
    saved = os.dup(1)
    os.dup2(writer, 1)
    try:
        screen = user_screen()
    finally:
        os.dup2(saved, 1)
        os.close(saved)
        os.close(writer)
    screen.print("there")
    assert os.read(reader, 5) == b"there"
    os.close(reader)
    screen.print("nobody is")
    screen.file.close()
