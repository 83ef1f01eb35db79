"""A Ray node on this machine, in processes of its own: what it is started with, whether it lives, and its end.

When Slurm asks a job to stop, it sends the signal to every process on its nodes (seen with 22.05), whatever its session. Only the
driver shall hear it: it then still takes a step and writes a checkpoint. So all of Ray is started with these signals blocked. It
is ended by SIGKILL, and ends with the process that started it, however that ends.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from sdpo.cluster import authentication
from sdpo.cluster.machine import free_ports, temporary_folder
from sdpo.cluster.presence import Stranger
from sdpo.envs.children import ASKS, own_module
from sdpo.errors import MachineError
from sdpo.run.logs import tail

NUM_STARTS = 3
START_S = 90.0
"""Ray gives its own processes 30 s to start, whatever the machine is busy with, and then ends; so it is tried again."""
_SETTINGS = {"worker_niceness": 0, "enable_metrics_collection": False}
"""For all nodes of the cluster. Metrics would be served at all addresses, without a token, and nobody reads them."""
_NO_METRICS = {"DASHBOARD_METRIC_PORT": "-1"}
"""No port: Ray's API server takes up none, and says so in its log. There is no setting for it."""
_TITLES = {"raylet": "Ray's raylet on this node", "gcs_server": "Ray's control store (gcs_server)"}
"""Names of Ray's processes, and what they are called here."""
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSpec:
    """What a Ray node is started with."""

    name: str
    address: str
    """This machine's."""
    job: str
    """This start of the job and this node of it: for the name of Ray's temporary folder."""
    object_store_bytes: int
    spill_dir: str | None
    num_cpus: int | None
    num_gpus: int | None
    token: str | None = field(repr=False)
    """The token that whoever talks to it must send."""


def command(spec: NodeSpec, folder: Path, *, join: str | None, ports: list[int]) -> list[str]:
    """The command of a node that joins ``host:port``, or, without one to join, of the head at the first of ``ports``.

    ``folder``: Ray's temporary one.
    """
    head, client, agent = ports
    role = (
        [f"--address={join}"]
        if join is not None
        else [
            "--head",
            f"--port={head}",
            f"--ray-client-server-port={client}",  # there is no way to have none; it asks for the token
            "--include-dashboard=false",
            "--no-monitor",  # an autoscaler's: the nodes are those of the allocation
            f"--system-config={json.dumps(_SETTINGS)}",
        ]
    )
    asked = {"num-cpus": spec.num_cpus, "num-gpus": spec.num_gpus, "object-spilling-directory": spec.spill_dir}
    return [
        *own_module("ray.scripts.scripts", "start"),
        *role,
        f"--node-name={spec.name}",
        f"--node-ip-address={spec.address}",
        f"--temp-dir={folder}",
        f"--object-store-memory={spec.object_store_bytes}",
        "--min-worker-port=0",  # any free one; Ray's own range begins at the same port for every job
        "--max-worker-port=0",
        f"--dashboard-agent-listen-port={agent}",
        *(f"--{key}={value}" for key, value in asked.items() if value is not None),
        "--disable-usage-stats",
        "--block",
    ]


def started(spec: NodeSpec, log: Path, *, join: str | None = None) -> RayNode:
    """A node that is up. Raises MachineError that names it where it does not come up, tried as often as is sensible."""
    for trial in range(1, NUM_STARTS + 1):
        node = RayNode(spec, log, join=join)
        try:
            node.wait_until_up()
            return node
        except BaseException as error:
            node.stop()
            if trial == NUM_STARTS or not isinstance(error, MachineError):
                raise
    raise AssertionError("the last trial returns or raises")


class RayNode:
    """A Ray node, started on construction."""

    def __init__(self, spec: NodeSpec, log: Path, *, join: str | None = None) -> None:
        """Ray's own output goes to the end of ``log``."""
        self._spec, self._log = spec, log
        ports = free_ports(spec.address, 3)
        self.address = join or f"{spec.address}:{ports[0]}"
        self._scratch = temporary_folder(spec.job)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a") as output:
            self._log_begins = log.stat().st_size
            self._process = subprocess.Popen(
                command(spec, self._scratch.path, join=join, ports=ports),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, **_NO_METRICS, **authentication.environment(spec.token)},
                preexec_fn=_deaf_and_bound_to_parent,
            )

    def wait_until_up(self) -> None:
        """Returns once Ray says so. Raises MachineError where its processes ended instead."""
        until = time.monotonic() + START_S
        while not self._is_up():
            if self._process.poll() is not None or time.monotonic() > until:
                raise MachineError(
                    f"Ray did not start on node {self._spec.name} ({self._spec.address}). The end of {self._log}:\n"
                    f"{tail(self._log)}"
                )
            time.sleep(0.2)

    def _is_up(self) -> bool:
        with self._log.open("rb") as log:
            log.seek(self._log_begins)
            return b"Ray runtime started" in log.read()

    @property
    def is_alive(self) -> bool:
        """Whether the node runs. Ray's command goes on waiting when its node ended in good order, so its raylet is looked for."""
        with suppress(psutil.Error):
            children = psutil.Process(self._process.pid).children()
            return any(child.name() == "raylet" and child.status() != psutil.STATUS_ZOMBIE for child in children)
        return False

    def parts(self) -> tuple[Stranger, ...]:
        """The processes without which nothing goes on, once the node is up."""
        with suppress(psutil.Error):
            children = psutil.Process(self._process.pid).children()
            titled = [(found, _TITLES.get(found.name())) for found in children]
            return tuple(Stranger(title=title, process=found) for found, title in titled if title is not None)
        return ()

    def stop(self) -> None:
        """End every process of the node for certain, and remove its folder."""
        family: list[psutil.Process] = []
        with suppress(psutil.Error):
            family = psutil.Process(self._process.pid).children(recursive=True)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        for process in family:
            with suppress(psutil.Error):
                process.kill()
        self._process.wait()
        self._scratch.close()


def _deaf_and_bound_to_parent() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, ASKS)
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # Ray's own reaper then ends the rest
