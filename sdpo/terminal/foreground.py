"""A command that computes for minutes, in the foreground: its screen stays the user's, whatever libraries print."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from sdpo.run.logs import answer_with_stacks, output_into

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_NOBODY_READS = (errno.EPIPE, errno.EIO)
"""A pipe whose reader has gone, a terminal that was closed."""


class _Output(io.FileIO):
    """A descriptor whose reader may go: the work goes on, and what is written is lost."""

    def write(self, written: ReadableBuffer, /) -> int:
        try:
            return super().write(written)
        except OSError as error:
            if error.errno not in _NOBODY_READS:
                raise
            return memoryview(written).nbytes


def user_screen() -> Console:
    """A console on a descriptor of its own, so that it stays the user's when this process's output is sent to a file."""
    output = io.TextIOWrapper(io.BufferedWriter(_Output(os.dup(1), "w")), line_buffering=True)
    return Console(file=output, soft_wrap=False)


@contextmanager
def process_output_into(log: Path, screen: Console) -> Iterator[None]:
    """Send everything but the screen into ``log`` for the length of the block."""
    with output_into(log):
        answer_with_stacks(log.parent)
        yield
