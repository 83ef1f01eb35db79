"""What part does this process take in the run: does it drive it, or lend its node to the driver until that ends?

Under ``srun`` every node runs the same command. The first one goes on as if it were alone. The others end up here: they wait for
the driver and join its Ray. They leave when it ends, when it was not heard of for too long, or when their own Ray died too often.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from sdpo.cluster.allocation import Allocation, of_slurm
from sdpo.cluster.machine import address, object_store_bytes
from sdpo.cluster.meeting import Driver, Meeting
from sdpo.cluster.ray_node import NodeSpec, RayNode, started
from sdpo.config import AllocationKind, ClusterConfig
from sdpo.envs.children import ASKS
from sdpo.errors import MachineError, UserError
from sdpo.terminal.stop_request import StopRequest, handling, stopping

MAX_JOINS = 3
"""Times that a node's Ray is started; one that was killed joins again."""


@contextmanager
def taking_part(config: ClusterConfig, logs: Path, say: Callable[[str], None]) -> Iterator[bool]:
    """Yield whether this process is the run's driver. If not, the run is over by then: the node was lent to the driver before.

    ``logs`` lies on a file system that all nodes share.
    """
    if config.allocation is AllocationKind.none:
        yield True
        return
    if config.nodes == 1:
        with stopping(StopRequest(), signal.SIGUSR1):
            yield True
        return
    allocation = of_slurm(os.environ, num_nodes=config.nodes)
    meeting = meeting_of(allocation, logs)
    if allocation.is_first:
        with meeting.held(allocation.name), stopping(StopRequest(), signal.SIGUSR1):  # so that the others hear of an early end
            yield True
    else:
        lend(config, allocation, meeting, logs, say)
        yield False


def meeting_of(allocation: Allocation, logs: Path) -> Meeting:
    return Meeting(logs / "cluster" / allocation.job)


def spec_of(config: ClusterConfig, allocation: Allocation, peer: str | None, token: str | None) -> NodeSpec:
    """The NodeSpec of this node; ``peer`` is another one's name or address."""
    return NodeSpec(
        name=allocation.name,
        address=address(config.interface, peer),
        job=f"{allocation.job}-{allocation.index}",
        object_store_bytes=object_store_bytes(config.object_store_gib),
        spill_dir=config.spill_dir,
        num_cpus=config.cpus_per_node,
        num_gpus=config.gpus_per_node,
        token=token,
    )


def lend(config: ClusterConfig, allocation: Allocation, meeting: Meeting, logs: Path, say: Callable[[str], None]) -> None:
    """Returns when the driver has ended. Raises MachineError where it is gone, or this node's Ray cannot be kept alive."""
    with handling(_wait, *ASKS):  # when the run ends, the driver decides
        try:
            _lend(config, allocation, meeting, logs / f"node-{allocation.name}.log", say)
        except (MachineError, UserError) as error:
            meeting.fail(allocation.name, str(error))
            raise


def _lend(config: ClusterConfig, allocation: Allocation, meeting: Meeting, log: Path, say: Callable[[str], None]) -> None:
    known, known_since = None, time.monotonic()
    node: RayNode | None = None
    num_joins = 0
    try:
        while True:
            driver = meeting.read()
            if driver is not None and driver != known:
                known, known_since = driver, time.monotonic()
            _refuse_silence(config, allocation, meeting, known, time.monotonic() - known_since)
            if driver is not None and driver.ended is not None:
                say(f"node {allocation.name}: the run on {driver.node} is over ({driver.ended})")
                return
            if driver is not None and driver.address is not None and (node is None or not node.is_alive):
                if node is not None:
                    node.stop()
                    node = None
                num_joins += 1
                if num_joins > MAX_JOINS:
                    raise MachineError(f"Ray on node {allocation.name} died {MAX_JOINS} times. See {log}")
                spec = spec_of(config, allocation, driver.address.rpartition(":")[0], driver.token)
                node = started(spec, log, join=driver.address)
                say(f"node {allocation.name}: joined {driver.node} ({driver.address})")
            time.sleep(1.0)
    finally:
        if node is not None:
            node.stop()


def _wait(number: int, frame: FrameType | None) -> None:
    """Do nothing: the driver gets the same signal."""


def _refuse_silence(
    config: ClusterConfig, allocation: Allocation, meeting: Meeting, known: Driver | None, silent_s: float
) -> None:
    if silent_s <= config.start_timeout_s:
        return
    what = "has not begun" if known is None else "is gone"
    raise MachineError(
        f"the driver on node {allocation.first} {what}: node {allocation.name} has heard nothing of it in {meeting.folder} for "
        f"cluster.start_timeout_s={config.start_timeout_s:g} s. Look at what it printed; runs_dir must be on a file system that "
        "all nodes share."
    )
