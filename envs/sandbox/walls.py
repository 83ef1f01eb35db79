"""How does a fresh interpreter wall itself in before it runs what it was given?

Run as a script in the child (``python -I -S walls.py ...``): it can import the standard library only, and everything
here happens before the first line of the program. The walls, of which two may be missing where the kernel refuses them
(the network namespace, Landlock); without any of the others the program does not run:

- resource limits: processor time, address space, file sizes, open files, no core files;
- a network namespace of its own, with nothing in it (root, or where user namespaces are allowed);
- Landlock: it reads the standard library and the C library, writes in its own directory or nowhere, and sees no other
  file: not this package, not ``/proc``, nobody's home;
- root becomes nobody; nobody has capabilities;
- system calls refused by seccomp: no process, no program, no socket, no signal to anyone (``seccomp.py``).

Left out: mount and process namespaces, and a count of its threads (the address space bounds them).
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct
import sys

READY = b"\x06walls-up\n"
"""The first bytes on the result channel: from here on, what happens is the program's own doing."""
EXIT_OUT_OF_MEMORY = 99
NOBODY = 65534
_EXIT_NO_WALLS = 98
_RESULT_FD = 3

_NEW_USER, _NEW_NETWORK = 0x10000000, 0x40000000
_PDEATHSIG, _KEEP_CAPABILITIES, _SECCOMP, _NO_NEW_PRIVILEGES, _SECCOMP_FILTER = 1, 8, 22, 38, 2
_CAPABILITY_VERSION, _READ_ANY_FILE = 0x20080522, 1 << 2
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _REMOVE_FILE, _MAKE_FILE, _TRUNCATE = 1, 2, 4, 8, 1 << 5, 1 << 8, 1 << 14
_LANDLOCK_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}


class _Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def main(refusals: bytes, memory_bytes: int, cpu_s: int, file_bytes: int, num_open_files: int, allow_network: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if not allow_network:
        # Where it is refused, the seccomp filter alone keeps the program off the network.
        libc.unshare(_NEW_NETWORK if os.geteuid() == 0 else _NEW_USER | _NEW_NETWORK)
    _check(libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0), "no_new_privs")
    is_landlocked = _restrict_files(libc, may_write=file_bytes > 0)
    _drop_privileges(libc, is_landlocked=is_landlocked)
    _check(libc.prctl(_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "pdeathsig")
    for kind, soft, hard in (
        (resource.RLIMIT_CPU, cpu_s, cpu_s + 1),  # at the soft limit a signal that tells why, at the hard one SIGKILL
        (resource.RLIMIT_AS, memory_bytes, memory_bytes),
        (resource.RLIMIT_FSIZE, file_bytes, file_bytes),
        (resource.RLIMIT_NOFILE, num_open_files, num_open_files),
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_MEMLOCK, 0, 0),
        (resource.RLIMIT_MSGQUEUE, 0, 0),
    ):
        most = resource.getrlimit(kind)[1]
        at_most = sys.maxsize if most == resource.RLIM_INFINITY else most
        resource.setrlimit(kind, (min(soft, at_most), min(hard, at_most)))
    filter_ = _Filter(len(refusals) // 8, refusals)
    _check(libc.prctl(_SECCOMP, _SECCOMP_FILTER, ctypes.byref(filter_), 0, 0), "seccomp")


def _check(returned: int, wall: str) -> None:
    if returned < 0:
        raise OSError(ctypes.get_errno(), f"{wall}: {os.strerror(ctypes.get_errno())}")


def _restrict_files(libc: ctypes.CDLL, *, may_write: bool) -> bool:
    """Landlock the files; False where the kernel has none (before 5.13, or switched off)."""
    version = libc.syscall(_LANDLOCK_CREATE, None, ctypes.c_size_t(0), 1)
    if version < 1:
        return False
    handled = struct.pack("=Q", _LANDLOCK_RIGHTS[min(version, 5)])
    ruleset = libc.syscall(_LANDLOCK_CREATE, handled, ctypes.c_size_t(len(handled)), 0)
    _check(ruleset, "landlock")

    def allow(path: str, rights: int) -> None:
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            return  # not on this machine, so nothing to allow
        _check(libc.syscall(_LANDLOCK_ADD, ruleset, 1, struct.pack("=Qi", rights, fd), 0), f"landlock: {path}")
        os.close(fd)

    for library in filter(os.path.isdir, sys.path):
        allow(library, _READ_DIR)
        for entry in os.scandir(library):
            if entry.name not in ("site-packages", "dist-packages"):  # there this package may lie, with its answers
                allow(entry.path, _READ_FILE)
    for directory in _shared_library_directories():
        allow(directory, _READ_FILE)
    for path, rights in (("/etc/ld.so.cache", _READ_FILE), ("/dev/null", _READ_FILE | _WRITE_FILE)):
        allow(path, rights)
    writing = _WRITE_FILE | _REMOVE_FILE | _MAKE_FILE | (_TRUNCATE if version >= 3 else 0)
    allow(".", _READ_FILE | _READ_DIR | (writing if may_write else 0))
    _check(libc.syscall(_LANDLOCK_RESTRICT, ruleset, 0), "landlock")
    os.close(ruleset)
    return True


def _shared_library_directories() -> set[str]:
    """Where the libraries lie that this interpreter has loaded, less directories that hold more than libraries."""
    try:
        with open("/proc/self/maps") as maps:
            paths = {line.rstrip("\n").partition("/")[2] for line in maps if ".so" in line}
    except OSError:
        return set()
    directories = {os.path.dirname("/" + path) for path in paths}
    return {directory for directory in directories if not any(path.startswith(directory) for path in sys.path)}


def _drop_privileges(libc: ctypes.CDLL, *, is_landlocked: bool) -> None:
    """Root becomes nobody; everyone loses their capabilities, also those over a new user namespace."""
    kept = 0
    if os.geteuid() == 0:
        _check(libc.prctl(_KEEP_CAPABILITIES, 1, 0, 0, 0), "capabilities")
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
        except OSError as error:  # a user namespace that maps no nobody (a rootless container): Landlock is wall enough
            if not is_landlocked:
                raise PermissionError(f"root must be able to become nobody, or have Landlock: {error}") from error
        if not os.access(os.__file__, os.R_OK):
            # An interpreter below /root: nobody may not read its library. Landlock bounds what this capability opens.
            if not is_landlocked:
                raise PermissionError(f"{os.__file__} must be readable by every user, or the kernel must have Landlock")
            kept = _READ_ANY_FILE
    header = struct.pack("=Ii", _CAPABILITY_VERSION, 0)
    _check(libc.capset(header, struct.pack("=6I", kept, kept, 0, 0, 0, 0)), "capabilities")


if __name__ == "__main__":
    _program_fd, _own_result_fd = int(sys.argv[7]), int(sys.argv[8])
    with open(_program_fd, "rb") as _file:
        _source = _file.read()
    os.dup2(_own_result_fd, _RESULT_FD, inheritable=False)
    if _own_result_fd != _RESULT_FD:
        os.close(_own_result_fd)
    try:
        main(bytes.fromhex(sys.argv[1]), *map(int, sys.argv[2:7]))
    except OSError as _error:
        os.write(2, str(_error).encode())
        os._exit(_EXIT_NO_WALLS)
    os.write(_RESULT_FD, READY)
    sys.argv = ["program"]
    try:
        exec(compile(_source, "<program>", "exec"), {"__name__": "__main__"})
    except MemoryError:
        os._exit(EXIT_OUT_OF_MEMORY)
