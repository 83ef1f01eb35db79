"""How does the fork server lock itself into a room of its own, once, before it serves?

This runs in the server: standard library only. The room is a set of namespaces.

- ``pid``: no process but the server's own forks
- ``net``: no network
- ``ipc``: no shared memory
- ``uts``: another host name
- ``mnt``: a read-only file system with the standard library, the C libraries and ``/dev/null``, and a small writable directory in
  memory
- ``user``: where the caller is not root, or root may not make the others, it gives the right to make them

A caller who is root makes the others as root, and every execution becomes a user of the server's own. What is not in the room has
no name in it, whatever hole a wall may have.

Namespaces cost some 12 ms and mounts as much: that is why the server pays for them and not each execution.
"""

from __future__ import annotations

import ctypes
import os
import socket

from sdpo.envs.sandbox.walls import check, die_with_parent

WORK = "/sandbox"
"""The directory in which programs may write, in a room."""
QUOTA_BYTES = 1 << 26
_MAX_FILES = 1024
_NEW_USER, _NEW_NETWORK, _NEW_MOUNT, _NEW_PROCESS, _NEW_IPC, _NEW_HOST_NAME = (
    0x10000000,
    0x40000000,
    0x00020000,
    0x20000000,
    0x08000000,
    0x04000000,
)
_ROOMS = _NEW_MOUNT | _NEW_PROCESS | _NEW_NETWORK | _NEW_IPC | _NEW_HOST_NAME
_READ_ONLY, _NO_SUID, _NO_DEVICES, _NO_EXECUTION, _REMOUNT, _BIND, _RECURSIVE, _PRIVATE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 18
_RELATIVE_TIMES, _DETACH = 1 << 21, 2
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_LIBC = ctypes.CDLL(None, use_errno=True)


def leave_network() -> bool:
    """Enter a network namespace alone. Where the kernel gives none, seccomp keeps programs off the network.

    Returns whether this user is now one of a namespace of its own.
    """
    if os.geteuid() == 0:
        _LIBC.unshare(_NEW_NETWORK)
        return False
    return int(_LIBC.unshare(_NEW_USER | _NEW_NETWORK)) == 0


def enter_room(libraries: list[str]) -> str:
    """The writable directory of a room with ``libraries`` in it. Returns in a new process, the first of its namespace.

    Raises OSError where the kernel gives no such room.
    """
    uid, gid = os.getuid(), os.getgid()
    if uid != 0 or _LIBC.unshare(_ROOMS) < 0:
        check(_LIBC.unshare(_ROOMS | _NEW_USER), "namespaces")
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    child = os.fork()
    if child:
        _wait_for(child)
    die_with_parent()
    socket.sethostname("sandbox")
    _furnish(libraries)
    return WORK


def _wait_for(child: int) -> None:
    """The process outside of the room does nothing but end when the one inside does."""
    while True:
        _, status = os.waitpid(child, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def _furnish(libraries: list[str]) -> None:
    """Make a new root in memory, read-only."""
    _mount(None, "/", None, _PRIVATE | _RECURSIVE)
    root = "/tmp"  # any directory will do: what is mounted over it is the new root
    _mount("room", root, "tmpfs", _NO_SUID | _NO_DEVICES, "size=1m,mode=755")
    for path in libraries:
        if os.path.exists(path):
            _bind(path, root + path)
    for path in libraries:
        for hidden in ("site-packages", "dist-packages"):
            if os.path.isdir(f"{root}{path}/{hidden}"):
                _mount("hidden", f"{root}{path}/{hidden}", "tmpfs", _READ_ONLY | _NO_SUID | _NO_DEVICES, "size=4k,mode=755")
    os.mkdir(root + WORK)
    mount_work(root + WORK)
    os.mkdir(f"{root}/outside")
    os.chdir(root)
    check(_LIBC.syscall(_PIVOT_ROOT[os.uname().machine], b".", b"outside"), "pivot_root")
    check(_LIBC.umount2(b"/outside", _DETACH), "umount")
    os.rmdir("/outside")
    _mount(None, "/", None, _REMOUNT | _BIND | _READ_ONLY | _NO_SUID | _NO_DEVICES)
    os.chdir(WORK)


def mount_work(directory: str) -> None:
    """Mount the directory in which programs may write: in memory, with a quota of bytes and of files."""
    options = f"size={QUOTA_BYTES},nr_inodes={_MAX_FILES},mode=711"
    _mount("work", directory, "tmpfs", _NO_SUID | _NO_DEVICES | _NO_EXECUTION, options)


def finish_room() -> str:
    """The writable directory of a room that was made outside, whose ``/proc`` has served its purpose."""
    check(_LIBC.umount2(b"/proc", _DETACH), "umount /proc")
    mount_work(WORK)
    return WORK


def _bind(path: str, target: str) -> None:
    """``path`` at ``target``, read-only. Flags that the source has are kept: in a user namespace they may not be dropped."""
    if os.path.isdir(path):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "a"):
            pass
    has = os.statvfs(path).f_flag
    kept = has & (_NO_SUID | _NO_DEVICES | _NO_EXECUTION | 1024 | 2048) | (_RELATIVE_TIMES if has & 4096 else 0)
    _mount(path, target, None, _BIND)
    is_device = not (os.path.isdir(path) or os.path.isfile(path))
    _mount(None, target, None, _BIND | _REMOUNT | kept | (0 if is_device else _READ_ONLY | _NO_SUID | _NO_DEVICES))


def _mount(source: str | None, target: str, kind: str | None, flags: int, options: str = "") -> None:
    arguments = [None if text is None else text.encode() for text in (source, target, kind)]
    check(_LIBC.mount(*arguments, ctypes.c_ulong(flags), options.encode()), f"mount {target}")


def give(directory: str, user: int) -> None:
    """So that an execution, which root makes this user, can write there; where there is no such user, it stays who it is."""
    if os.geteuid() == 0:
        try:
            os.chown(directory, user, user)
        except OSError:
            return
