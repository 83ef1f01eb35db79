"""The points of a sweep one after the other on this machine, each in a process of its own."""

from __future__ import annotations

import shlex
import signal
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import FrameType

from sdpo.envs.children import Lifeline, own_module
from sdpo.errors import without_credentials
from sdpo.sweep.names import Point
from sdpo.terminal.stop_request import asking, handling


@dataclass(slots=True)
class _Present:
    """The run that goes on, and the signal that ended the sweep."""

    process: subprocess.Popen[bytes] | None = None
    stopped_by: int | None = None


def shown(point: Point) -> str:
    """The command of a point, without passwords in addresses."""
    return shlex.join(["sdpo", "train", *map(without_credentials, point.words)])


def run(points: Sequence[Point], say: Callable[[str], None]) -> int:
    """Run the points. Returns 0 where every point ended well, else 1; 128 + a signal's number where one ended the sweep.

    On a signal the run that goes on is asked to stop, and none is started any more. Where this process is killed, it is too.
    """
    present = _Present()
    outcomes: list[str] = []

    def stop(number: int, frame: FrameType | None) -> None:
        present.stopped_by = number
        if present.process is not None:
            with suppress(ProcessLookupError):
                present.process.send_signal(number)

    with handling(stop, *asking()):
        for number, point in enumerate(points, start=1):
            if present.stopped_by is not None:
                outcomes.append("not started")
                continue
            say(f"== {number} of {len(points)}: {point.name}")
            with Lifeline() as line:
                present.process = subprocess.Popen(
                    own_module("sdpo.cli", "train", *point.words),
                    pass_fds=line.pass_fds,
                    start_new_session=True,  # it hears what this process is told, once
                )
                line.tie(present.process, signal.SIGTERM)
                if present.stopped_by is not None:  # the request came while the run was started
                    present.process.send_signal(present.stopped_by)
                code = present.process.wait()
            outcomes.append("done" if code == 0 else f"failed, exit code {code}" if present.stopped_by is None else "stopped")
    for point, outcome in zip(points, outcomes, strict=True):
        say(f"{point.name}: {outcome}")
    if present.stopped_by is not None:
        return 128 + present.stopped_by
    return 0 if all(outcome == "done" for outcome in outcomes) else 1
