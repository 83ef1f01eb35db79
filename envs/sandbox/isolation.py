"""Which walls does this machine give, and which does a fork server get? The strongest that work, unless told otherwise."""

from __future__ import annotations

import os
import platform
import secrets
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from sdpo.envs.sandbox import rooms, server
from sdpo.envs.sandbox.outcome import SandboxUnavailable
from sdpo.envs.sandbox.seccomp import filter_program

_HERE = Path(__file__).parent
_THERE = "/server"
"""The same, in bubblewrap's room."""
_BOOTSTRAP = """
import sys, types
for name in ("sdpo", "sdpo.envs", "sdpo.envs.sandbox"):
    module = sys.modules[name] = types.ModuleType(name)
    module.__path__ = [sys.argv[1]] if name.endswith("sandbox") else []
from sdpo.envs.sandbox import server
server._from_outside()
"""
"""The server's modules under their own names, without ``site``, which would bring in everything that is installed."""
_AS_ROOT = tuple(word for name in ("SETUID", "SETGID", "KILL", "CHOWN", "DAC_OVERRIDE") for word in ("--cap-add", f"CAP_{name}"))
"""What the server needs to make users of its forks and to clear up after them."""


_FIRST_USER = 1 << 30
"""A user id above any that a machine gives out. Each server's programs are a user of their own, so that none can signal
another's, and threads are counted by server."""


class Isolation(str, Enum):
    """From the strongest to the weakest. All have resource limits, a seccomp filter and no environment."""

    bubblewrap = "bubblewrap"
    """All namespaces and a read-only file system, by ``bwrap``; Landlock inside where the kernel has it."""
    namespaces = "namespaces"
    """The same, made by the fork server itself."""
    landlock = "landlock"
    """No namespaces but, where it can be had, an empty network; Landlock keeps programs from all files."""
    weak = "weak"
    """Neither: a program can read whatever nobody (or, not started by root, the user) can read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a process asks of its sandboxes."""

    isolation: Isolation | None = None
    """None: the strongest that works."""
    allow_weak: bool = False
    """Whether to run programs where only weak isolation is to be had."""


def command(isolation: Isolation, channel: int, directory: str) -> list[str]:
    """What starts a fork server. ``directory``: where its programs may write if it gets no room. Raises SandboxUnavailable."""
    try:
        refusals = filter_program(platform.machine()).hex()
    except ValueError as error:
        raise SandboxUnavailable(str(error)) from error
    python = [str(Path(sys.base_prefix, "bin", f"python{sys.version_info[0]}.{sys.version_info[1]}"))]
    if not Path(python[0]).exists():
        python = [sys.executable]
    python += ["-P", "-s", "-S", "-c", _BOOTSTRAP]
    kind = {Isolation.bubblewrap: server.FURNISHED, Isolation.namespaces: server.ROOM}.get(isolation, server.NO_ROOM)
    user = str(_FIRST_USER + secrets.randbelow(_FIRST_USER))
    file_wall = "0" if isolation is Isolation.weak else "1"
    if isolation is not Isolation.bubblewrap:
        return [*python, str(_HERE), str(channel), kind, refusals, directory, file_wall, user]
    return [*_bubblewrap(python[0]), *python, _THERE, str(channel), kind, refusals, rooms.WORK, file_wall, user]


def _bubblewrap(python: str) -> list[str]:
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        raise SandboxUnavailable("bwrap is not installed")
    paths = {python, "/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache", "/etc/alternatives"}
    paths |= {sysconfig.get_path("stdlib"), sysconfig.get_config_var("LIBDIR") or "/usr/lib"}
    found = sorted(path for path in paths if Path(path).exists())
    binds = [word for path in found for word in ("--ro-bind", path, path)]
    packages = [f"{path}/{name}" for path in found for name in ("site-packages", "dist-packages")]
    hidden = [word for path in (*packages, "/usr/lib/python3/dist-packages") if Path(path).is_dir() for word in ("--tmpfs", path)]
    return [
        *(bwrap, "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--new-session", "--as-pid-1"),
        *(_AS_ROOT if os.geteuid() == 0 else ("--unshare-user",)),
        *("--hostname", "sandbox"),
        *binds,
        *("--ro-bind", str(_HERE), _THERE),
        *hidden,
        *("--cap-add", "CAP_SYS_ADMIN"),  # for a directory with a quota, and to do without /proc
        *("--proc", "/proc", "--dev-bind", "/dev/null", "/dev/null", "--dir", rooms.WORK),
        *("--remount-ro", "/", "--chdir", rooms.WORK, "--"),
    ]
