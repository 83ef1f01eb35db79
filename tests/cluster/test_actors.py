"""A process is killed only where it is the one that was meant."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

from sdpo.cluster.actors import Process, _kill
from sdpo.run.logs import began_at


def test_an_id_that_was_given_out_again_is_left_alone() -> None:
    """The ranks of a lost learner were killed by their numbers, whoever had those by then."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        meant = Process(pid=child.pid, started=began_at(child.pid), node="here")
        _kill(replace(meant, started=meant.started - 1))
        assert child.poll() is None
        _kill(meant)
        assert child.wait(timeout=10) == -9
    _kill(meant)  # gone: nothing happens
