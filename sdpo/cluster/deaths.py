"""Why did a process of Ray's die: did its machine have no memory left? Ray's memory monitor says so, the kernel only counts.

Ray kills the largest of its own processes before the kernel has to: at 95 % of the machine's or the container's memory. Where the
kernel was quicker, Ray knows only that a process is gone. Then the kernel's counter of such kills has risen.
"""

from __future__ import annotations

import re
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from ray.exceptions import OutOfMemoryError, RayError

DIED = "died"
"""All that is known of most deaths."""
_USED = re.compile(r"([0-9.]+)GB used / ([0-9.]+)GB limit")
"""In Ray's report (2.60), whose GB are GiB."""
_SHARED = Path("/dev/shm")
_FULL = 2**24
"""Bytes that are free in a shared memory that counts as full."""
_COUNTED = re.compile(r"^oom_kill ([0-9]+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """How a process died."""

    words: str
    """``DIED``, or what killed it: the predicate of a sentence."""
    is_for_memory: bool = False


def num_memory_kills(root: Path = Path("/")) -> int:
    """Processes that the kernel has killed on this machine for want of memory; 0 where it does not say."""
    files = (
        root / _own_group(root) / "memory.events",
        root / "sys/fs/cgroup/memory.events",
        root / "sys/fs/cgroup/memory/memory.oom_control",  # version 1, as a container sees its own
        root / "proc/vmstat",
    )
    for file in files:
        with suppress(OSError):
            found = _COUNTED.search(file.read_text())
            if found:
                return int(found[1])
    return 0


def _own_group(root: Path) -> str:
    """The folder of this process's control group, of version 2."""
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            if line.startswith("0::"):
                return f"sys/fs/cgroup{line.removeprefix('0::').rstrip('/')}"
    return "sys/fs/cgroup"


def death(error: RayError, *, pid: int | None, num_kills_before: int) -> Death:
    """How the process died that Ray reports by ``error``; ``num_kills_before``: ``num_memory_kills`` while it lived."""
    if isinstance(error, OutOfMemoryError):
        return Death(words=f"was killed by Ray's memory monitor{_figures(str(error), pid)}", is_for_memory=True)
    if num_memory_kills() > num_kills_before:
        total = psutil.virtual_memory().total / 2**30
        return Death(words=f"was killed by the kernel, which had no memory left (of {total:.1f} GiB)", is_for_memory=True)
    full = full_shared_memory()
    return Death(words=DIED if full is None else f"died, and {full}")


def _figures(report: str, pid: int | None) -> str:
    """What Ray's report says of the machine's memory and the process's, in parentheses; empty where it says nothing of it."""
    used = _USED.search(report)
    held = re.search(rf"\bpid={pid}, actual memory used=([0-9.]+)GB", report) if pid is not None else None
    said = []
    if used and float(used[2]) > 0.0:
        said.append(f"{float(used[1]) / float(used[2]):.0%} of {float(used[2]):.1f} GiB used".replace("%", " %"))
    if held:
        said.append(f"it held {float(held[1]):.1f} GiB")
    return f" ({'; '.join(said)})" if said else ""


def full_shared_memory(folder: Path = _SHARED) -> str | None:
    """That a machine's shared memory is full, as a sentence without its stop; None: it is not."""
    try:
        found = shutil.disk_usage(folder)
    except OSError:
        return None
    if found.free > _FULL:
        return None
    return (
        f"{folder} is full ({found.free / 2**20:.0f} MiB of {found.total / 2**30:.1f} GiB are free), and Ray's object store lies "
        "there: free it, enlarge it, or lower cluster.object_store_gib"
    )
