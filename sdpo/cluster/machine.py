"""What does this machine give a Ray node: an address that the others reach, ports, a folder, shared memory?"""

from __future__ import annotations

import shutil
import socket
import tempfile
from pathlib import Path

import psutil

from sdpo.envs.scratch import ScratchFolder, made_name
from sdpo.errors import UserError

_LONGEST_SOCKET = 107
"""Bytes of a Unix socket's path, on Linux."""
_RAY_SOCKET = "/session_2026-11-28_19-20-28_123456_1234567/sockets/plasma_store.123"
"""What Ray adds to its temporary folder."""


def address(interface: str | None, peer: str | None) -> str:
    """This machine's address on ``interface``; without one, on the route to ``peer``, a name or an address.

    Raises UserError where there is no such interface.
    """
    if interface is not None:
        return _of_interface(interface)
    for target in (peer, "8.8.8.8"):  # nothing is sent; where the peer has no address yet, the default route has to do
        if target is None:
            continue
        try:
            family, kind, protocol, _, there = socket.getaddrinfo(target, 9, type=socket.SOCK_DGRAM)[0]
            with socket.socket(family, kind, protocol) as probe:
                probe.connect(there)
                return str(probe.getsockname()[0])
        except OSError:
            continue
    return "127.0.0.1"


def _of_interface(interface: str) -> str:
    there = psutil.net_if_addrs()
    found = [entry.address for entry in there.get(interface, []) if entry.family is socket.AF_INET]
    if not found:
        raise UserError(
            f"cluster.interface must be a network interface with an IPv4 address on every node; {socket.gethostname()} has no "
            f"such {interface!r}, it has {', '.join(sorted(there))}."
        )
    return found[0]


def free_ports(address: str, num: int) -> list[int]:
    """Ports that nobody listens at, at the moment."""
    probes = [socket.socket() for _ in range(num)]
    try:
        for probe in probes:
            probe.bind((address, 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def temporary_folder(name: str, base: Path | None = None) -> ScratchFolder:
    """A folder for Ray's sockets and logs, for this user alone, and short enough for a socket's path.

    Its name ends in what nobody can foresee: in a folder that everybody may write to, somebody else would have made it before.
    """
    base = base or Path(tempfile.gettempdir())
    for place, short in ((base, name), (Path("/tmp"), name), (base, "ray")):
        if len(f"{place}/{made_name(short)}{_RAY_SOCKET}".encode()) <= _LONGEST_SOCKET:
            return ScratchFolder(short, place)
    return ScratchFolder("ray", Path("/tmp"))


def object_store_bytes(gib: float | None) -> int:
    """Bytes of the store: what was asked for, or this machine's share. Raises UserError where the share is below ``LEAST``."""
    return sized(gib, memory=psutil.virtual_memory().total, shared=_free_shared())


SHARE_OF_MEMORY = 0.3
"""Ray's own default."""
SHARE_OF_SHARED = 0.9
LEAST = 100 * 2**20
"""Ray takes no smaller store; engines and learner would not either."""


def sized(gib: float | None, *, memory: int, shared: int) -> int:
    if gib is not None:
        return round(gib * 2**30)
    found = round(min(SHARE_OF_MEMORY * memory, SHARE_OF_SHARED * shared))
    if found < LEAST:
        raise UserError(
            f"Ray's object store needs {LEAST // 2**20} MiB of shared memory; {socket.gethostname()} has {shared // 2**20} MiB "
            "free in /dev/shm. Enlarge it, or set cluster.object_store_gib, which is then taken from the disk."
        )
    return found


def _free_shared() -> int:
    folder = Path("/dev/shm")
    return shutil.disk_usage(folder).free if folder.is_dir() else 0
