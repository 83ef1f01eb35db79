"""Which system calls may a walled-in program not make, and how does the kernel refuse them?

This is a list of refusals rather than of permissions: an interpreter needs too many calls, and they change with the C library. A
call is refused if it makes one of these, or touches another process or the kernel's own state:

- a process; such a call fails with an error of its own, by which that ending is known
- a connection
- something that outlives the program, what a file says of itself included
- a word to another program, through a file that both may read: its place in the page cache, a lock, a watch, a futex

Numbers are those of Linux's ``unistd`` tables; aarch64 has the generic one (untested, for want of a machine).
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Mapping

_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

NO_PROCESSES = errno.EUSERS
"""What a call that would make a process fails with: nothing else a sandboxed program can do does."""

_MAKES_PROCESS = {"fork": (57, None), "vfork": (58, None), "execve": (59, 221), "execveat": (322, 281)}
_REFUSED = {  # name: (x86_64, aarch64), None where there is no such call
    "socket": (41, 198),
    "socketpair": (53, 199),
    "setsid": (112, 157),
    "setpgid": (109, 154),
    "kill": (62, 129),
    "tkill": (200, 130),
    "tgkill": (234, 131),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_send_signal": (424, 424),
    "pidfd_getfd": (438, 438),
    "pidfd_open": (434, 434),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "kcmp": (312, 272),
    "setpriority": (141, 140),
    "sched_setaffinity": (203, 122),
    "sched_setscheduler": (144, 119),
    "sched_setparam": (142, 118),
    "sched_setattr": (314, 274),
    "ioprio_set": (251, 30),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    "io_uring_setup": (425, 425),
    "shmget": (29, 194),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
    "setuid": (105, 146),
    "setgid": (106, 144),
    "setreuid": (113, 145),
    "setregid": (114, 143),
    "setresuid": (117, 147),
    "setresgid": (119, 149),
    "setfsuid": (122, 151),
    "setfsgid": (123, 152),
    "setgroups": (116, 159),
    "capset": (126, 91),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "setxattrat": (463, 463),
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "lchown": (94, None),
    "fchown": (93, 55),
    "fchownat": (260, 54),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
    "mkdir": (83, None),
    "mkdirat": (258, 34),
    "mknod": (133, None),
    "mknodat": (259, 33),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "chroot": (161, 51),
    "pivot_root": (155, 41),
    "open_by_handle_at": (304, 265),
    "open_tree_attr": (467, 467),
    "file_setattr": (469, 469),
    "fadvise64": (221, 223),
    "readahead": (187, 213),
    "mincore": (27, 232),
    "cachestat": (451, 451),
    "flock": (73, 32),
    "inotify_init": (253, None),
    "inotify_init1": (294, 26),
    "inotify_add_watch": (254, 27),
    "fanotify_init": (300, 262),
    "fanotify_mark": (301, 263),
    "futex_waitv": (449, 449),
    "futex_wake": (454, 454),
    "futex_wait": (455, 455),
    "futex_requeue": (456, 456),
}
_SET_OWNER, _SET_SIGNAL, _SET_OWNER_EX, _FILE_OWNER, _SOCKET_OWNER, _DEATH_SIGNAL = 8, 10, 15, 0x8901, 0x8902, 1
_OWNERS = (_SET_OWNER, _SET_SIGNAL, _SET_OWNER_EX)
"""With these the kernel would signal others in the program's name."""
_LOCKS = (5, 6, 7, 36, 37, 38)
"""To ask for a lock, set one or wait for it: of the process, and of the open file."""
_LEASES_AND_HINTS = (1024, 1025, 1026, 1035, 1036, 1037, 1038)
"""A lease, a watch on a directory, and how long what is written is expected to live."""
_EVICTIONS = (20, 21)
"""``MADV_COLD`` and ``MADV_PAGEOUT``."""
_SHARED_WAKES = (1, 3, 4, 5, 10)
"""To wake or requeue who waits for a futex, which may lie in a file. The C library's own are marked private, but for the wait
for a thread's end, in which the kernel does the waking."""
_REFUSED_WITH = {  # name: (x86_64, aarch64), which argument, its refused values
    "fcntl": ((72, 25), 1, (*_OWNERS, *_LOCKS, *_LEASES_AND_HINTS)),
    "ioctl": ((16, 29), 1, (_FILE_OWNER, _SOCKET_OWNER)),
    "prctl": ((157, 167), 0, (_DEATH_SIGNAL,)),  # it would outlive its server
    "madvise": ((28, 233), 2, _EVICTIONS),
    "futex": ((202, 98), 1, _SHARED_WAKES),
}
_ALLOWED_WITH_ZERO = {  # name: (x86_64, aarch64), which argument
    "prlimit64": ((302, 261), 0),  # of the process itself, which can only lower what it has
    "preadv2": ((327, 286), 5),  # without flags: one of them asks whether the page cache has the page
    "pwritev2": ((328, 287), 5),
}
_CLONE = (56, 220)
_CLONE3 = (435, 435)
_CLONE_THREAD = 0x00010000
_X32_CALLS = 0x40000000

_LOAD, _IF_EQUAL, _IF_AT_LEAST, _IF_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_OFFSET_NUMBER, _OFFSET_ARCHITECTURE, _OFFSET_FIRST_ARGUMENT, _ARGUMENT_BYTES = 0, 4, 16, 8
_ALLOW, _KILL, _FAIL_WITH = 0x7FFF0000, 0x80000000, 0x00050000
_Line = tuple[int, int, int, int]
"""Operation, instructions to skip if true, and if false, operand."""


def filter_program(machine: str) -> bytes:
    """The filter that refuses the calls above, as classic BPF instructions of 8 bytes.

    ``machine`` is as in ``platform.machine()``; raises ValueError where there is no table for it.
    """
    if machine not in _ARCHITECTURES:
        known = ", ".join(_ARCHITECTURES)
        raise ValueError(f"the table of system calls must cover the machine; got {machine!r}: add it to ({known})")
    column = list(_ARCHITECTURES).index(machine)

    def numbers(calls: Mapping[str, tuple[int | None, ...]]) -> list[int]:
        return [number for call in calls.values() if (number := call[column]) is not None]

    refuse, no_process, no_such_call = _FAIL_WITH | errno.EPERM, _FAIL_WITH | NO_PROCESSES, _FAIL_WITH | errno.ENOSYS
    by_argument = []
    for call, argument, values in _REFUSED_WITH.values():
        checks = [(_IF_EQUAL, len(values) - i, 0, value) for i, value in enumerate(values)]
        by_argument += _only(call[column], [_argument(argument), *checks, (_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, refuse)])
    for call, argument in _ALLOWED_WITH_ZERO.values():
        zero = [_argument(argument), (_IF_EQUAL, 1, 0, 0), (_RETURN, 0, 0, refuse), (_RETURN, 0, 0, _ALLOW)]
        by_argument += _only(call[column], zero)
    thread = [_argument(0), (_IF_ANY_BIT, 1, 0, _CLONE_THREAD), (_RETURN, 0, 0, no_process), (_RETURN, 0, 0, _ALLOW)]
    tail = [
        *by_argument,
        *_only(
            _CLONE3[column], [(_RETURN, 0, 0, no_such_call)]
        ),  # its flags lie behind a pointer: the C library falls back to clone
        *_only(_CLONE[column], thread),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, no_process),
        (_RETURN, 0, 0, refuse),
    ]
    return _with_checks(_ARCHITECTURES[machine], numbers(_REFUSED), numbers(_MAKES_PROCESS), tail)


def _only(number: int, lines: list[_Line]) -> list[_Line]:
    """``lines``, which all end by themselves, for one call alone."""
    return [(_IF_EQUAL, 0, len(lines), number), *lines]


def _argument(index: int) -> _Line:
    """Load the lower half of an argument: the arguments that are looked at are ints, of which the kernel takes no more."""
    return _LOAD, 0, 0, _OFFSET_FIRST_ARGUMENT + _ARGUMENT_BYTES * index


def _with_checks(architecture: int, refused: list[int], makes_process: list[int], tail: list[_Line]) -> bytes:
    """The whole filter. Jumps count the instructions to skip; the last two lines of ``tail`` are where the checks jump to."""
    to_refuse, to_no_process = len(tail) - 1, len(tail) - 2
    checks = [(number, to_refuse) for number in refused] + [(number, to_no_process) for number in makes_process]
    jumps = [(_IF_EQUAL, there + len(checks) - 1 - i, 0, number) for i, (number, there) in enumerate(checks)]
    head = [
        (_LOAD, 0, 0, _OFFSET_ARCHITECTURE),
        (_IF_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _OFFSET_NUMBER),
        (_IF_AT_LEAST, to_refuse + len(checks), 0, _X32_CALLS),
    ]
    return b"".join(
        struct.pack("=HBBI", code, if_true, if_false, value) for code, if_true, if_false, value in head + jumps + tail
    )
