"""What a pod does before it ends, within ``cluster.grace_s``: let the step end and its checkpoint be written.

In the head's pod the loop is asked to end after its step. In every pod this then waits until no actor computes any more: they go
with the loop. Kubernetes runs this (``preStop``) and would else end Ray at once, and the step with it.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import pairwise

import psutil

POLL_S = 0.5
_COMMANDS = ("train", "solve", "discovery", "warmup")
_NOT_WAITED_FOR = ("ray::IDLE", "ray::JobSupervisor")
"""Ray names its processes by what they run."""


def pre_stop(processes: Callable[[], Iterable[psutil.Process]]) -> None:
    """Ask the loop to end, then wait until no actor computes any more. ``processes`` lists those of the pod, now."""
    for process in processes():
        if is_loop(_words(process)):
            with suppress(psutil.NoSuchProcess):
                process.terminate()
    while any(is_loop(words) or is_at_work(words) for words in map(_words, processes())):
        time.sleep(POLL_S)


def is_loop(words: Sequence[str]) -> bool:
    """Whether it is the loop: ``["…/python", "…/sdpo", "train", …]``, and not the shell that started it."""
    return any(os.path.basename(word) == "sdpo" and following in _COMMANDS for word, following in pairwise(words))


def is_at_work(words: Sequence[str]) -> bool:
    """Whether it is an actor of the run's, or a task."""
    return bool(words) and words[0].startswith("ray::") and not words[0].startswith(_NOT_WAITED_FOR)


def _words(process: psutil.Process) -> list[str]:
    """Its command line; nothing where it has ended."""
    try:
        return [] if process.status() == psutil.STATUS_ZOMBIE else process.cmdline()
    except psutil.Error:
        return []


if __name__ == "__main__":
    if "KUBERNETES_SERVICE_HOST" not in os.environ:
        sys.exit("this ends every sdpo of the machine, so it runs in a pod of Kubernetes alone; this is none")
    pre_stop(psutil.process_iter)
