"""The Ray of a command: on this machine, on the nodes of an allocation, or in a cluster that is already there."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import ray
from ray._private import auto_init_hook, services

from sdpo.cluster import authentication
from sdpo.cluster.actors import is_alive, node_title
from sdpo.cluster.allocation import of_slurm
from sdpo.cluster.local_node import LocalNode
from sdpo.cluster.part import meeting_of, spec_of
from sdpo.cluster.presence import Listener, Part, Stranger, listening_at, while_there
from sdpo.cluster.ray_node import started
from sdpo.cluster.sharing import refuse_unshared
from sdpo.config import AllocationKind, ClusterConfig
from sdpo.envs.scratch import ScratchFolder
from sdpo.errors import MachineError, UserError


@contextmanager
def beginning(config: ClusterConfig) -> Iterator[LocalNode | None]:
    """Yield this machine's own Ray, for ``connected``. It starts while the block does something else. None: Ray is elsewhere."""
    if config.address is not None or config.allocation is not AllocationKind.none:
        yield None
        return
    node = LocalNode(config)
    try:
        yield node
    finally:
        ray.shutdown()
        node.stop()


@contextmanager
def connected(config: ClusterConfig, folder: Path | None = None, node: LocalNode | None = None) -> Iterator[None]:
    """Connect to Ray for the length of the block, on ``cluster.nodes`` machines; what was started here ends with it.

    ``folder`` is the run's, which all machines must see, with its ``logs``; without one, a run has one machine. ``node``: this
    machine's own Ray, which is starting already.
    """
    auto_init_hook.enable_auto_connect = False  # a thread that asks something after the end must not start another Ray
    with _up(config, folder, node):
        if folder is not None:
            refuse_unshared(folder)
        yield


@contextmanager
def _up(config: ClusterConfig, folder: Path | None, node: LocalNode | None) -> Iterator[None]:
    try:
        if config.allocation is AllocationKind.slurm:
            with _on_allocation(config, folder):
                yield
        elif config.address is not None:
            _join(config, config.address)
            _wait_for_number(config)
            with while_there(_joined_parts()):
                yield
        else:
            with nullcontext(node) if node is not None else beginning(config) as own:
                assert own is not None
                _join(config, own)
                with while_there(own.parts()):
                    yield
    finally:
        ray.shutdown()


def _joined_parts() -> tuple[Part, ...]:
    """The processes of somebody else's cluster without which this process cannot go on."""
    joined = ray._private.worker.global_worker.node
    assert joined is not None
    host, _, port = str(ray.get_runtime_context().gcs_address).rpartition(":")
    store = Listener(title=f"Ray's control store at {host}:{port}", address=(host.strip("[]"), int(port)))
    raylet = listening_at(str(joined.raylet_socket_name))
    return (store,) if raylet is None else (store, Stranger(title="Ray's raylet on this machine", process=raylet))


def _join(config: ClusterConfig, there: str | LocalNode) -> None:
    """Connect to a cluster at an address, or to this machine's node as soon as it is up."""
    try:
        _init(address=there if isinstance(there, str) else there.address())
    except Exception as error:
        raise UserError(
            f"Ray must start here or be reachable at cluster.address={config.address!r}; it was not: {error}. Check the "
            "address, or leave cluster.address=null to start Ray on this machine. A cluster that asks for a token needs "
            "RAY_AUTH_MODE=token here, and the token (docs/cluster.md)."
        ) from error


def _init(**words: Any) -> None:
    on_terminate, elsewhere = signal.getsignal(signal.SIGTERM), services.resolve_ip_for_localhost
    # Else 127.0.0.1 becomes this machine's address, where a node of our own is not.
    services.resolve_ip_for_localhost = lambda host: host
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **words)
    finally:
        services.resolve_ip_for_localhost = elsewhere
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_terminate)  # Ray has put its own in place, which ends without a word


@contextmanager
def _on_allocation(config: ClusterConfig, folder: Path | None) -> Iterator[None]:
    """Start Ray's head on this node, the first; the others join it by themselves (``part.py``)."""
    allocation = of_slurm(os.environ, num_nodes=config.nodes)
    if folder is None and config.nodes > 1:
        raise UserError(
            f"sdpo train alone spans several nodes; this command has one, and cluster.nodes={config.nodes}. Set cluster.nodes=1."
        )
    token = authentication.new_token()
    spec = spec_of(config, allocation, allocation.nodes[1] if config.nodes > 1 else None, token)
    with ExitStack() as at_end:
        logs = at_end.enter_context(ScratchFolder("logs")).path if folder is None else folder / "logs"
        head = started(spec, logs / f"node-{allocation.name}.log")
        at_end.callback(head.stop)
        at_end.enter_context(authentication.sending(token))
        at_end.callback(ray.shutdown)
        _init(address=head.address, _node_ip_address=spec.address)
        if config.nodes > 1:
            meeting = meeting_of(allocation, logs)
            meeting.announce(head.address, token)
            _wait_for_names(allocation.nodes, meeting.failures, config.start_timeout_s)
        at_end.enter_context(while_there(head.parts()))
        yield


def _wait_for_names(names: tuple[str, ...], failures: Callable[[], dict[str, str]], limit_s: float) -> None:
    """Returns once every node has joined. Raises MachineError that names those which have not."""
    until = time.monotonic() + limit_s
    while missing := [name for name in names if name not in {node["NodeName"] for node in ray.nodes() if is_alive(node)}]:
        failed = failures()
        if failed:
            raise MachineError("; ".join(f"node {node} cannot take part: {why}" for node, why in failed.items()))
        if time.monotonic() > until:
            raise MachineError(
                f"every node of the allocation must join within cluster.start_timeout_s={limit_s:g} s; {', '.join(missing)} did "
                "not. Look at what the command printed there; srun must start it once on every node."
            )
        time.sleep(0.5)


def _wait_for_number(config: ClusterConfig) -> None:
    """Returns once the cluster has its nodes. Raises MachineError that names those which it has instead."""
    until = time.monotonic() + config.start_timeout_s
    while len(there := [node for node in ray.nodes() if is_alive(node)]) < config.nodes:
        if time.monotonic() > until:
            raise MachineError(
                f"the cluster must have cluster.nodes={config.nodes} nodes within cluster.start_timeout_s="
                f"{config.start_timeout_s:g} s; it has {len(there)}: {', '.join(map(node_title, there))}."
            )
        time.sleep(0.5)
