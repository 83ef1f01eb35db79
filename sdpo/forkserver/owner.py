"""Start the fork servers of a command and end them; tell actors where they are.

They are started before the command has read its config, because imports take longest of all that a start consists of. There are
none beside a GPU: whether forking is safe once a driver library was loaded has not been tried on one.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from sdpo.envs.children import deaf, own_module
from sdpo.envs.scratch import ScratchFolder
from sdpo.forkserver.server import USUAL, address
from sdpo.forkserver.worker_setup import SERVER

FOLDER = "SDPO_FORK_SERVERS"
"""The environment variable with the folder of the servers' sockets; empty: no servers, whatever the machine."""
_GPU = Path("/dev/nvidiactl")


@contextmanager
def fork_servers(kinds: Sequence[str] = USUAL) -> Iterator[None]:
    """Servers for the length of the block, unless there are some already or none are wanted. Returns at once."""
    if FOLDER in os.environ or _GPU.exists() or sys.platform != "linux":
        yield
        return
    scratch = ScratchFolder("fork")
    folder = scratch.path
    with (folder / "log").open("w") as log, deaf():
        process = subprocess.Popen(
            own_module("sdpo.forkserver.server", str(folder), str(os.getpid()), *kinds),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            start_new_session=True,
        )
    os.environ[FOLDER] = str(folder)
    try:
        yield
    finally:
        del os.environ[FOLDER]
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        scratch.close()


def variables(kind: str | None) -> dict[str, str]:
    """What the environment of an actor's process must hold for it to be forked by a server for ``kind`` on this machine."""
    folder = os.environ.get(FOLDER)
    return {SERVER: str(address(Path(folder), kind))} if folder and kind else {}
