"""Ray on this machine for one command: the two processes that it needs and the agent for environments, nothing that monitors.

``ray.init`` alone also starts a dashboard, a log monitor and an autoscaler's monitor, which take four seconds of a core and
serve nobody here. Ray's ``Node`` is private; the lock file pins its version (2.60).

The node is started by a thread while the command checks its tasks. The thread lives as long as the node does: its processes are
told to end with the thread that started them.

A request to stop is the command's alone, which still takes a step and writes a checkpoint. So Ray's processes have sessions of
their own, where no signal to the command's group or from its terminal gets, and are started deaf to the rest (``children.py``).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from ray._private import services
from ray._private.node import Node
from ray._private.parameter import RayParams

from sdpo.cluster import no_agent
from sdpo.cluster.machine import object_store_bytes
from sdpo.cluster.presence import Child
from sdpo.config import ClusterConfig
from sdpo.envs.children import deaf
from sdpo.forkserver import worker_setup

NUM_STARTS = 3
"""Ray gives its own processes 30 s to start, whatever the machine is busy with; so it is tried again."""
_SETTINGS: dict[str, Any] = {
    "worker_niceness": 0,
    "enable_worker_prestart": False,  # workers for tasks: there are no tasks
    "prestart_worker_first_driver": False,
}


_TITLES = {"raylet": "Ray's raylet on this machine", "gcs_server": "Ray's control store (gcs_server)"}
"""Ray's names of its processes, and ours."""
_AGENT, _SESSION = "--dashboard_agent_command=", "--session_dir="
"""Options of the raylet's command line."""


class _Node(Node):
    def start_api_server(self, *, include_dashboard: bool | None, raise_on_failure: bool) -> None:
        """Start none: nobody looks at a dashboard here."""

    def start_log_monitor(self) -> None:
        """Start none: every actor writes a log of its own."""


@contextmanager
def _own_way() -> Iterator[None]:
    """Give Ray an agent that does nothing in place of the dashboard's, on which it insists, and each process its own session."""
    starts, opens = services.start_ray_process, services.ConsolePopen

    def start(command: list[str], *words: Any, **others: Any) -> Any:
        folder = next((word.removeprefix(_SESSION) for word in command if word.startswith(_SESSION)), "")
        instead = _AGENT + subprocess.list2cmdline([sys.executable, "-S", no_agent.__file__, folder])
        return starts([instead if word.startswith(_AGENT) else word for word in command], *words, **others)

    services.start_ray_process = start
    services.ConsolePopen = partial(subprocess.Popen, start_new_session=True)  # type: ignore[assignment,misc]
    try:
        with deaf():
            yield
    finally:
        services.start_ray_process = starts
        services.ConsolePopen = opens  # type: ignore[misc]


class LocalNode:
    """A Ray node that begins to start on construction."""

    def __init__(self, config: ClusterConfig) -> None:
        """Raises UserError where the machine has no room for the object store."""
        self._config, self._store_bytes = config, object_store_bytes(config.object_store_gib)
        self._node: _Node | None = None
        self._failure: Exception | None = None
        self._is_up, self._is_over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="ray node", daemon=True)
        self._thread.start()

    def address(self) -> str:
        """``host:port``, once the node is up. Raises what Ray raised where it does not come up."""
        self._is_up.wait()
        if self._failure is not None:
            raise self._failure
        assert self._node is not None
        return str(self._node.address)

    def parts(self) -> tuple[Child, ...]:
        """The processes without which nothing goes on, once the node is up."""
        assert self._node is not None
        processes = self._node.all_processes
        return tuple(
            Child(title=title, process=found.process) for kind, title in _TITLES.items() for found in processes.get(kind, ())
        )

    def stop(self) -> None:
        """End all its processes. Where it is still starting, wait until it is up."""
        self._is_over.set()
        self._thread.join()

    def _params(self) -> RayParams:
        """New parameters for each trial: a node writes into its own."""
        return RayParams(
            node_ip_address="127.0.0.1",  # Ray then listens there alone, so nobody on the network can ask it for anything
            num_cpus=self._config.cpus_per_node,
            num_gpus=self._config.gpus_per_node,
            object_store_memory=self._store_bytes,
            include_dashboard=False,
            include_log_monitor=False,  # type: ignore[arg-type]  # it says it is a text
            no_monitor=True,
            setup_worker_path=str(Path(worker_setup.__file__)),
            _system_config=dict(_SETTINGS),
        )

    def _run(self) -> None:
        for trial in range(1, NUM_STARTS + 1):
            try:
                with _own_way():
                    self._node = _Node(self._params(), head=True, shutdown_at_exit=False, spawn_reaper=True)
                break
            except Exception as error:  # noqa: BLE001 - whoever asks for the address hears of it
                if trial == NUM_STARTS or "timed out" not in str(error) or self._is_over.is_set():
                    self._failure = error
                    break
        self._is_up.set()
        if self._node is not None:
            self._is_over.wait()
            _end(self._node)


def _end(node: _Node) -> None:
    """Kill its processes and what they have started: they hear no other signal."""
    for of_kind in node.all_processes.values():
        for started in of_kind:
            if started.process.poll() is None:
                os.killpg(started.process.pid, signal.SIGKILL)
    node.kill_all_processes(check_alive=False)
