"""How does a forked process wall itself in, in a millisecond, before it runs what it was given?

This runs in the fork server (``server.py``): standard library only. Everything here happens before the first line of the program.
Every execution gets these walls, whatever the server around it stands in (``rooms.py``). Where one of them is missing, except
Landlock, the program does not run:

- resource limits: processor time, address space, file sizes, open files, no core files;
- Landlock: it reads the standard library and the C library, and writes in its own directory or nowhere. It opens no other file:
  not this package, not ``/proc``, nobody's home (whether a file is there, it can ask);
- root becomes a user that nobody else is, whose threads can therefore be counted; nobody has capabilities;
- system calls refused by seccomp: no process, no program, no socket, no signal to anyone (``seccomp.py``).
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct
import sys

_PDEATHSIG, _KEEP_CAPABILITIES, _SECCOMP, _NO_NEW_PRIVILEGES, _SECCOMP_FILTER = 1, 8, 22, 38, 2
_CAPABILITY_VERSION, _READ_ANY_FILE = 0x20080522, 1 << 2
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _REMOVE_FILE, _MAKE_FILE, _TRUNCATE = 1, 2, 4, 8, 1 << 5, 1 << 8, 1 << 14
_LANDLOCK_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}
_LIBC = ctypes.CDLL(None, use_errno=True)


class _Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def landlock_version() -> int:
    """Below 1 where the kernel has none (before 5.13, or switched off)."""
    return int(_LIBC.syscall(_LANDLOCK_CREATE, None, ctypes.c_size_t(0), 1))


def library_paths() -> list[str]:
    """What a running interpreter still reads: its standard library, the C libraries, and the devices that hold nothing."""
    return [*filter(os.path.isdir, sys.path), *sorted(_shared_library_directories()), "/etc/ld.so.cache", "/dev/null"]


def file_rules(libraries: list[str], directory: str, *, may_write: bool) -> int:
    """The descriptor of a Landlock ruleset: to read ``libraries`` and ``directory``, and to write there if it may; else -1."""
    version = landlock_version()
    if version < 1:
        return -1
    handled = struct.pack("=Q", _LANDLOCK_RIGHTS[min(version, 5)])
    ruleset = _LIBC.syscall(_LANDLOCK_CREATE, handled, ctypes.c_size_t(len(handled)), 0)
    check(ruleset, "landlock")

    def allow(path: str, rights: int) -> None:
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            return  # not on this machine, so nothing to allow
        check(_LIBC.syscall(_LANDLOCK_ADD, ruleset, 1, struct.pack("=Qi", rights, fd), 0), f"landlock: {path}")
        os.close(fd)

    for path in libraries:
        if path in sys.path:
            allow(path, _READ_DIR)
            for entry in os.scandir(path):
                if entry.name not in ("site-packages", "dist-packages"):  # there this package may lie, with its answers
                    allow(entry.path, _READ_FILE)
        else:
            allow(path, _READ_FILE | (_WRITE_FILE if path == "/dev/null" else 0))
    writing = _WRITE_FILE | _REMOVE_FILE | _MAKE_FILE | (_TRUNCATE if version >= 3 else 0)
    allow(directory, _READ_FILE | _READ_DIR | (writing if may_write else 0))
    return int(ruleset)


def wall_in(ruleset: int, refusals: bytes, own_user: int, max_threads: int, limits: tuple[int, int, int, int]) -> None:
    """Every wall, in the order in which none takes away what another needs. Raises OSError where one cannot be put up.

    ``own_user`` is whom root becomes. ``max_threads`` is of the user; 0 where others are the same user.
    ``limits``: bytes of memory, seconds of processor time, bytes of a file, open files.
    """
    memory_bytes, cpu_s, file_bytes, num_open_files = limits
    check(_LIBC.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0), "no_new_privs")
    if ruleset >= 0:
        check(_LIBC.syscall(_LANDLOCK_RESTRICT, ruleset, 0), "landlock")
        os.close(ruleset)
    _drop_privileges(own_user, is_landlocked=ruleset >= 0)
    die_with_parent()
    for kind, soft, hard in (
        (resource.RLIMIT_CPU, cpu_s, cpu_s + 1),  # at the soft limit a signal that tells why, at the hard one SIGKILL
        (resource.RLIMIT_AS, memory_bytes, memory_bytes),
        (resource.RLIMIT_FSIZE, file_bytes, file_bytes),
        (resource.RLIMIT_NOFILE, num_open_files, num_open_files),
        *(((resource.RLIMIT_NPROC, max_threads, max_threads),) if max_threads else ()),
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_MEMLOCK, 0, 0),
        (resource.RLIMIT_MSGQUEUE, 0, 0),
    ):
        most = resource.getrlimit(kind)[1]
        at_most = sys.maxsize if most == resource.RLIM_INFINITY else most
        resource.setrlimit(kind, (min(soft, at_most), min(hard, at_most)))
    filter_ = _Filter(len(refusals) // 8, refusals)
    check(_LIBC.prctl(_SECCOMP, _SECCOMP_FILTER, ctypes.byref(filter_), 0, 0), "seccomp")


def die_with_parent() -> None:
    check(_LIBC.prctl(_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "pdeathsig")


def check(returned: int, wall: str) -> None:
    if returned < 0:
        raise OSError(ctypes.get_errno(), f"{wall}: {os.strerror(ctypes.get_errno())}")


def _shared_library_directories() -> set[str]:
    """Directories of the libraries that this interpreter has loaded, less those that hold more than libraries."""
    try:
        with open("/proc/self/maps") as maps:
            paths = {line.rstrip("\n").partition("/")[2] for line in maps if ".so" in line}
    except OSError:
        return set()
    directories = {os.path.dirname("/" + path) for path in paths}
    return {directory for directory in directories if not any(path.startswith(directory) for path in sys.path)}


def _drop_privileges(own_user: int, *, is_landlocked: bool) -> None:
    """Root becomes ``own_user``; everyone loses their capabilities, also those over a new user namespace."""
    kept = 0
    if os.geteuid() == 0:
        check(_LIBC.prctl(_KEEP_CAPABILITIES, 1, 0, 0, 0), "capabilities")
        try:
            os.setgroups([])
            os.setresgid(own_user, own_user, own_user)
            os.setresuid(own_user, own_user, own_user)
        except OSError as error:  # a user namespace that maps no other (a rootless container): Landlock is wall enough
            if not is_landlocked:
                raise PermissionError(f"root must be able to become another user, or have Landlock: {error}") from error
        if not os.access(os.__file__, os.R_OK):
            # An interpreter below /root: others may not read its library. Landlock bounds what this capability opens.
            if not is_landlocked:
                raise PermissionError(f"{os.__file__} must be readable by every user, or the kernel must have Landlock")
            kept = _READ_ANY_FILE
    header = struct.pack("=Ii", _CAPABILITY_VERSION, 0)
    check(_LIBC.capset(header, struct.pack("=6I", kept, kept, 0, 0, 0, 0)), "capabilities")
