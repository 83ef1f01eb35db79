"""Programs that attack the machine, in every sandbox that this machine has: each must fail, and leave nothing behind.

An attack says on standard output how each of its attempts ended, a line each (``fork => EUSERS``), so that an attempt that was
never made cannot pass for one that was refused. Attacks on verdicts: ``test_attacks_on_verdicts.py``.
"""

import contextlib
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sdpo.envs import sandbox
from sdpo.envs.sandbox import Ending, Isolation, Limits, Outcome, SandboxUnavailable, Settings
from sdpo.envs.sandbox.pool import ForkServer

REASONS = sandbox.reasons_against()
KINDS = [
    pytest.param(kind, id=kind.value, marks=pytest.mark.skipif(bool(REASONS[kind]), reason=f"{kind.value}: {REASONS[kind]}"))
    for kind in Isolation
    if kind is not Isolation.weak
]
STRONGEST = next((kind for kind in Isolation if not REASONS[kind]), Isolation.bubblewrap)
ON_ONE_KIND = pytest.mark.parametrize("kind", [STRONGEST], indirect=True)
"""For what has nothing to do with how the sandbox is made."""
ON_X86_64 = pytest.mark.skipif(platform.machine() != "x86_64", reason="its numbers of system calls are those of x86_64")
NOBODY = 65534
PORT = 47123
KEYS_OF_ROOT = os.path.expanduser("~root/.ssh")
MARK = "left-by-an-attack"
OUTSIDE = "EACCES|EPERM|ENOENT|EROFS|EXDEV"
"""How a file system may refuse: the file is not in the room, may not be touched, or lies on another device."""

PRELUDE = """
import ctypes, errno, mmap, os, signal, sys, threading, time
LIBC = ctypes.CDLL(None, use_errno=True)
MARK = "left-by-an-attack"

def attempt(name, act):
    try:
        value = act()
        end = f"done {value}"
    except OSError as error:
        end = errno.errorcode.get(error.errno, "OSError")
    except BaseException as error:
        end = type(error).__name__
    os.write(1, f"{name} => {end}\\n".encode())

def call(number, *arguments):
    ctypes.set_errno(0)
    value = LIBC.syscall(ctypes.c_long(number), *(a if isinstance(a, bytes) else ctypes.c_long(a) for a in arguments))
    if value < 0:
        raise OSError(ctypes.get_errno(), "")
    return value

def until_refused(act, most):
    for i in range(most):
        try:
            act(i)
        except OSError as error:
            return f"{i} {errno.errorcode[error.errno]}"
    return f"{most} never"

def asynchronous(pid, number):
    '''Have the kernel send a signal when a pipe can be read: no call to kill is needed.'''
    import fcntl
    read, write = os.pipe()
    fcntl.fcntl(read, fcntl.F_SETOWN, pid)
    fcntl.fcntl(read, 10, number)  # F_SETSIG
    fcntl.fcntl(read, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
    os.write(write, b"x")
"""


@dataclass(frozen=True, kw_only=True)
class Attack:
    name: str
    program: str
    report: dict[str, str] = field(default_factory=dict)
    """How each attempt must end; ``|`` between what will do."""
    ending: Ending | tuple[Ending, ...] = Ending.ok
    limits: dict[str, float] = field(default_factory=dict)


def attempts(end: str, *lines: str) -> tuple[str, dict[str, str]]:
    """A program of one attempt a line (``name: expression``), and its report."""
    pairs = [line.split(": ", 1) for line in lines]
    return "\n".join(f"attempt({name!r}, lambda: {act})" for name, act in pairs), {name: end for name, _ in pairs}


def refused(name: str, end: str, *lines: str, before: str = "", **limits: float) -> Attack:
    program, report = attempts(end, *lines)
    return Attack(name=name, program=f"{before}\n{program}", report=report, limits=limits)


PROCESSES = [
    refused(
        "no process is made through the library",
        "EUSERS",
        "fork: os.fork()",
        "spawn: os.posix_spawn('/bin/true', ['true'], {})",
        "exec: os.execv(sys.executable, ['python'])",
        "system: __import__('subprocess').run(['/bin/true'], close_fds=False)",
        "multiprocessing: __import__('multiprocessing').get_context('fork').Process(target=print).start()",
        "huge argv: os.execv('/bin/true', ['x' * 100_000] * 10)",
    ),
    Attack(name="a fork bomb ends at its first fork", program="while True: os.fork()", ending=Ending.processes),
    Attack(
        name="a daemon cannot detach itself",
        program="""
attempt("first fork", os.fork)
attempt("session", os.setsid)
attempt("group", lambda: os.setpgid(0, 0))
attempt("second fork", os.fork)
""",
        report={"first fork": "EUSERS", "session": "EPERM", "group": "EPERM", "second fork": "EUSERS"},
    ),
    Attack(
        name="threads run out",
        program="""
threading.stack_size(1 << 15)
event = threading.Event()
os.write(1, b"threads => begin\\n")
for _ in range(3000): threading.Thread(target=event.wait, daemon=True).start()
os.write(1, b"threads => never run out\\n"); os._exit(0)
""",
        report={"threads": "begin"},
        ending=(Ending.error, Ending.memory, Ending.timeout),  # or the last one waits for ever for memory to begin in
        limits={"wall_s": 2.0},
    ),
    Attack(
        name="a thread that lives on is waited for and stopped",
        program="threading.Thread(target=time.sleep, args=(60,)).start(); os.write(1, b'started => done\\n')",
        report={"started": "done"},
        ending=Ending.timeout,
    ),
    Attack(
        name="a thread that outlives the first one is stopped",
        program="threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
        "os.write(1, b'started => done\\n'); LIBC.pthread_exit(None)",
        report={"started": "done"},
        ending=(Ending.timeout, Ending.killed),
    ),
]

MEMORY = [
    Attack(name="an array", program="x = bytearray(1 << 30)", ending=Ending.memory),
    Attack(name="a growing list", program="x = []\nwhile True: x.append(bytes(10**6))", ending=Ending.memory),
    refused(
        "maps",
        "ENOMEM",
        "private: mmap.mmap(-1, 1 << 30, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)",
        "shared: mmap.mmap(-1, 1 << 30)",
        "many: [mmap.mmap(-1, 1 << 24) for _ in range(64)]",
    ),
    refused(
        "files in memory without a right to write",
        "EFBIG",
        "write: os.write(os.memfd_create('x'), b'x')",
        "truncate: os.ftruncate(os.memfd_create('x'), 1)",
        "allocate: os.posix_fallocate(os.memfd_create('x'), 0, 1)",
        "input: os.write(0, b'x')",
    ),
    Attack(
        name="files in memory are as many as descriptors",
        program="attempt('files', lambda: until_refused(lambda i: os.write(os.memfd_create('x'), bytes(1 << 20)), 40))",
        report={"files": "done 28 EMFILE"},
        limits={"file_bytes": 1 << 20},
    ),
    refused(
        "kernel objects that outlive a process",
        "EPERM",
        "shm: call(29, 1234, 4096, 0o1777)",
        "sem: call(64, 1234, 1, 0o1777)",
        "msg: call(68, 1234, 0o1777)",
        "mq: call(240, b'/left-by-an-attack', 0o102, 0o666, 0)",
        "key: call(248, b'user', b'left-by-an-attack', b'x', 1, -3)",
    ),
    refused("shared memory of posix", OUTSIDE, "shm: open('/dev/shm/left-by-an-attack', 'w')", file_bytes=1 << 16),
    Attack(
        name="deep recursion in C",
        program="""
sys.setrecursionlimit(10**9)
class Deep:
    __getattr__ = lambda self, name: getattr(self, name)
os.write(1, b"recursion => begins\\n")
Deep().x
""",
        report={"recursion": "begins"},
        ending=(Ending.killed, Ending.memory),
    ),
    refused("descriptors", "EMFILE", "dup: [os.dup(1) for _ in range(99)]"),
    Attack(name="descriptors, unhandled", program="while True: os.dup(1)", ending=Ending.files),
]

OUTPUT = [
    *(
        Attack(name=f"a flood of {name}", program=f"while True: os.write({fd}, bytes(4096))", ending=Ending.output)
        for fd, name in enumerate(("standard output", "standard error", "results"), start=1)
    ),
    Attack(
        name="a flood of everything",
        program="def flood(fd):\n    while True: os.write(fd, bytes(4096))\n"
        "for fd in (2, 3): threading.Thread(target=flood, args=(fd,)).start()\nflood(1)",
        ending=Ending.output,
    ),
]

TIME = [
    Attack(name="sleep", program="time.sleep(60)", ending=Ending.timeout),
    Attack(name="busy threads", program="for _ in range(8): threading.Thread(target=lambda: exec('while True: pass')).start()",
           ending=Ending.timeout),
    Attack(name="a busy call that holds the interpreter", program="__import__('re').match('(a+)+$', 'a' * 40 + 'b')",
           ending=Ending.timeout),
    Attack(name="closed descriptors", program="os.closerange(0, 4096); time.sleep(60)", ending=Ending.timeout),
    Attack(name="closed descriptors, and an end", program="os.closerange(0, 4096); os._exit(0)"),
    Attack(
        name="signals ignored and blocked",
        program="for number in set(range(1, 65)) - {9, 19, 32, 33}: signal.signal(number, signal.SIG_IGN)\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\nos.write(1, b'signals => ignored\\n'); time.sleep(60)",
        report={"signals": "ignored"},
        ending=Ending.timeout,
    ),
    Attack(
        name="a program that stops itself",
        program="""
attempt("stop", lambda: signal.raise_signal(signal.SIGSTOP))
os.write(1, b"without a call => begins\\n")
try:
    asynchronous(os.getpid(), signal.SIGSTOP)
finally:
    time.sleep(60)
""",
        report={"stop": "EPERM", "without a call": "begins"},
        ending=Ending.timeout,
    ),
    Attack(name="an alarm", program="signal.setitimer(signal.ITIMER_REAL, 0.05); time.sleep(60)", ending=Ending.killed),
]  # fmt: skip

OTHERS = [
    refused(
        "signals to others",
        "EPERM",
        "parent: os.kill(os.getppid(), 9)",
        "first: os.kill(1, 9)",
        "everyone: os.kill(-1, 9)",
        "group: os.kill(0, 9)",
        "parent's group: os.killpg(os.getppid(), 9)",
        "self: os.kill(os.getpid(), 0)",
        "descriptor: os.pidfd_open(os.getppid())",
    ),
    refused(
        "clocks, limits and priorities of others",
        "EPERM",
        "affinity: os.sched_setaffinity(os.getppid(), {0})",
        "priority: os.setpriority(os.PRIO_PROCESS, os.getppid(), 19)",
        "scheduler: os.sched_setscheduler(os.getppid(), os.SCHED_IDLE, os.sched_param(0))",
        "limit: __import__('resource').prlimit(os.getppid(), 7, (16, 16))",
    ),
    refused(
        "the network",
        "EPERM",
        *(
            f"{name}: __import__('socket').socket({family}, {kind}, {protocol})"
            for name, family, kind, protocol in (
                ("inet", 2, 1, 0), ("udp", 2, 2, 0), ("icmp", 2, 3, 1), ("inet6", 10, 1, 0), ("unix", 1, 1, 0),
                ("netlink", 16, 3, 0), ("packet", 17, 3, 0), ("vsock", 40, 1, 0), ("alg", 38, 5, 0),
            )
        ),
        "pair: __import__('socket').socketpair()",
        f"server: __import__('socket').create_server(('127.0.0.1', {PORT}))",
    ),
    Attack(
        name="only its own channels are open",
        program="""
def is_open(fd):
    try:
        return os.fstat(fd) is not None
    except OSError:
        return False
attempt("open", lambda: [fd for fd in range(1 << 13) if is_open(fd)])
attempt("read 1", lambda: os.read(1, 1))
attempt("read 3", lambda: os.read(3, 1))
""",
        report={"open": "done [0, 1, 2, 3]", "read 1": "EBADF", "read 3": "EBADF"},
    ),
    Attack(
        name="the server's socket is closed",
        program="""
import marshal
frame = sys._getframe()
while "channel" not in frame.f_locals:
    frame = frame.f_back
socket = frame.f_locals["channel"]
attempt("found", lambda: type(socket).__name__)
attempt("reply", lambda: socket.send(marshal.dumps({"status": 0, "cpu_s": 0.0, "refused": ""})))
attempt("receive", lambda: socket.recv(9))
os.write(3, marshal.dumps({"status": 0, "cpu_s": 0.0, "refused": ""})); os._exit(7)
""",
        report={"found": "done socket", "reply": "EBADF", "receive": "EBADF"},
        ending=Ending.error,
    ),
    Attack(
        name="an end that goes wrong is an end",
        program="import atexit, traceback\nclass Lie(int):\n    def __and__(self, other): raise KeyError\n"
        "sys.stdout = sys.stderr = None\ntraceback.print_exception = None\nos._exit = os.write\nsys.modules.clear()\n"
        "raise SystemExit(Lie(0))",
        ending=Ending.error,
    ),
]  # fmt: skip

FILES = [
    refused(
        "reading",
        OUTSIDE,
        *(
            f"{path}: os.listdir({path!r}) if os.path.isdir({path!r}) else open({path!r}, 'rb').read(9)"
            for path in (
                "/etc/passwd", "/etc/shadow", "/etc/hostname", "/home", KEYS_OF_ROOT, "/tmp", "/var/log", "/sys", "/proc",
                "/proc/self/mem", "/proc/self/environ", "/proc/self/maps", "/proc/self/fd", "/proc/1/environ", "/proc/1/root",
                "/proc/self/root/etc/passwd", "/proc/sys/kernel/core_pattern", "/proc/net/tcp", "/dev/shm", "/dev/mem",
                "/dev/kmsg", "/dev/sda", "/dev/vda", "/dev/tty", "/dev/ptmx", "/dev/fuse", "/dev/kvm", "/server/pool.py",
                str(Path(__file__)), str(Path(__file__).parents[2]), sandbox.__file__, str(Path.home()),
            )
        ),
        f"from here: open({'../' * 9 + 'etc/passwd'!r}).read()",
        "from a path: os.open('etc/passwd', os.O_RDONLY, dir_fd=os.open('/', os.O_PATH))",
    ),
    refused("importing", "ModuleNotFoundError", "sdpo: __import__('sdpo')", "tests: __import__('tests')",
            "pytest: __import__('pytest')", "server: __import__('sdpo.envs.sandbox.server')"),
    refused(
        "writing",
        OUTSIDE,
        *(
            f"{path}: open({path + '/' + MARK!r}, 'w').close()"
            for path in ("", "/tmp", "/var/tmp", "/etc", "/dev", "/dev/shm", "/root", "/proc/self", "/sandbox/..", "..",
                         str(Path.home()), str(Path(__file__).parent))
        ),
        "library: open(os.path.dirname(os.__file__) + '/' + MARK, 'w')",
        "library module: open(os.__file__, 'r+')",
        "unlink: os.unlink(os.__file__)",
        "truncate: os.truncate(os.__file__, 0)",
        "rename: os.rename(os.__file__, os.__file__ + MARK)",
        "attributes: os.chmod(os.__file__, 0o777)",
        "adjust: open('/proc/self/oom_score_adj', 'w').write('-1000')",
        "cores: open('/proc/sys/kernel/core_pattern', 'w').write('|/bin/sh')",
        file_bytes=1 << 16,
    ),
    refused(
        "links, directories and devices in its directory",
        OUTSIDE,
        "symbolic: os.symlink('/etc/passwd', 'link')",
        "hard: os.link(os.__file__, 'link')",
        "hard to password: os.link('/etc/passwd', 'link')",
        "directory: os.mkdir('directory')",
        "pipe: os.mkfifo('pipe')",
        "device: os.mknod('device', 0o60666, os.makedev(8, 0))",
        "out: os.rename('file', '../file')",
        "hard out: os.link('file', '/tmp/' + MARK)",
        before="open('file', 'w').close()",
        file_bytes=1 << 16,
    ),
    Attack(
        name="names that are hard to remove",
        program="""
def make(name):
    os.close(os.open(name, os.O_CREAT | os.O_WRONLY, 0))
for name in (b"\\xff\\n", b"-rf", b"x" * 255, "\\u202e".encode(), b"*"):
    attempt("file", lambda: make(name))
attempt("all", lambda: len(os.listdir(b".")))
""",
        report={"file": "done None", "all": "done 5"},
        limits={"file_bytes": 1 << 16},
    ),
    refused("no file without a right to write", OUTSIDE, "new: open('file', 'w')",
            "unnamed: os.open('.', os.O_TMPFILE | os.O_RDWR)"),
]  # fmt: skip

PRIVILEGES = [
    Attack(
        name="limits stay",
        program="""
import resource, struct
kinds = [resource.RLIMIT_CPU, resource.RLIMIT_AS, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE, resource.RLIMIT_CORE]
def limits():
    numbers = ctypes.create_string_buffer(16)
    return [(call(97, kind, ctypes.addressof(numbers)), struct.unpack("=QQ", numbers.raw))[1] for kind in kinds]
before = limits()
for kind in kinds:
    attempt("library", lambda: resource.setrlimit(kind, (-1, -1)))
    attempt("call", lambda: call(160, kind, struct.pack("=QQ", 2**64 - 1, 2**64 - 1)))
attempt("same", lambda: before == limits())
attempt("core", lambda: limits()[-1])
""",
        report={"library": "ValueError|EPERM", "call": "EPERM", "same": "done True", "core": "done (0, 0)"},
    ),
    Attack(
        name="the environment is empty",
        program="""
attempt("python", lambda: sorted(set(os.environ) - {"LC_CTYPE"}))
pointers, names = ctypes.POINTER(ctypes.c_char_p).in_dll(LIBC, "environ"), []
while pointers and pointers[len(names)]: names.append(pointers[len(names)].partition(b"=")[0])
attempt("libc", lambda: sorted(set(names) - {b"LC_CTYPE"}))
""",
        report={"python": "done []", "libc": "done []"},
    ),
    Attack(
        name="capabilities and filters stay",
        program="""
import struct
header, sets = struct.pack("=Ii", 0x20080522, 0), ctypes.create_string_buffer(24)
permit = ctypes.create_string_buffer(struct.pack("=HBBI", 6, 0, 0, 0x7FFF0000))
attempt("raise", lambda: call(126, header, struct.pack("=6I", *[0xFFFFFFFF] * 6)))
attempt("ambient", lambda: call(157, 47, 2, 21, 0, 0))
attempt("no filter", lambda: call(157, 22, 0, 0, 0, 0))
attempt("new privileges", lambda: call(157, 38, 0, 0, 0, 0))
attempt("filter on top", lambda: call(157, 22, 2, struct.pack("=HxxxxxxQ", 1, ctypes.addressof(permit)), 0, 0))
attempt("fork", os.fork)
attempt("get", lambda: call(125, header, ctypes.addressof(sets)))
attempt("has", lambda: [number & ~0b100 for number in struct.unpack("=6I", sets.raw)])
""",
        report={
            "raise": "EPERM",
            "ambient": "EPERM|EINVAL",
            "no filter": "EINVAL",
            "new privileges": "EINVAL",
            "filter on top": "done 0",
            "fork": "EUSERS",
            "get": "done 0",
            "has": "done [0, 0, 0, 0, 0, 0]",
        },
    ),
    Attack(
        name="a Landlock of its own opens nothing",
        program="""
import struct
ruleset = LIBC.syscall(444, struct.pack("=Q", 0b1111), ctypes.c_size_t(8), 0)
LIBC.syscall(445, ruleset, 1, struct.pack("=Qi", 0b1111, os.open("/", os.O_PATH)), 0)
attempt("restricted", lambda: LIBC.syscall(446, ruleset, 0))
attempt("open", lambda: open("/etc/passwd"))
""",
        report={"restricted": "done 0|done -1", "open": "EACCES|ENOENT"},
    ),
    *(
        [
            refused(
                "nobody stays nobody",
                "EPERM",
                "uid: os.setuid(0)",
                "uids: os.setresuid(0, 0, 0)",
                "gid: os.setgid(0)",
                "groups: os.setgroups([0])",
            )
        ]
        if os.geteuid() == 0
        else []
    ),
]

REFUSED_CALLS = """
socket 41, socketpair 53, kill 62, tkill 200, tgkill 234, rt_sigqueueinfo 129, rt_tgsigqueueinfo 297, ptrace 101,
process_vm_readv 310, process_vm_writev 311, mount 165, umount2 166, unshare 272, setns 308, pivot_root 155, chroot 161,
bpf 321, io_uring_setup 425, add_key 248, request_key 249, keyctl 250, userfaultfd 323, open_by_handle_at 304,
perf_event_open 298, prlimit64 302, kcmp 312, pidfd_open 434, pidfd_getfd 438, pidfd_send_signal 424, process_madvise 440,
move_pages 279, migrate_pages 256, fsopen 430, open_tree 428, move_mount 429, mkdir 83, mkdirat 258, mknod 133, mknodat 259,
setsid 112, setpgid 109, sched_setattr 314, ioprio_set 251, x32 getpid 1073741863, x32 ptrace 1073742345,
fadvise64 221, readahead 187, mincore 27, cachestat 451, flock 73, inotify_init 253, inotify_init1 294, inotify_add_watch 254,
fanotify_init 300, fanotify_mark 301, futex_waitv 449, futex_wake 454, futex_wait 455, futex_requeue 456, open_tree_attr 467,
file_setattr 469
"""
CALLS_OF_ROOT = """
init_module 175, finit_module 313, delete_module 176, kexec_load 246, reboot 169, acct 163, 
sethostname 170, iopl 172, vhangup 153, fspick 433, fsmount 432
"""


def each(calls: str) -> list[str]:
    """``name number, name number`` as attempts."""
    pairs = [pair.rpartition(" ") for pair in " ".join(calls.split()).split(", ")]
    return [f"{name}: call({number}, 1)" for name, _, number in pairs]


SYSTEM_CALLS = [
    refused(
        "calls that make a process",
        "EUSERS",
        "fork: call(57)",
        "vfork: call(58)",
        "clone: call(56, 17, 0, 0, 0, 0)",
        "clone vfork: call(56, 0x4100 | 17, 0, 0, 0, 0)",
        "clone sibling: call(56, 0x8000 | 17, 0, 0, 0, 0)",
        "clone namespaces: call(56, 0x30000000 | 17, 0, 0, 0, 0)",
        "execve: call(59, b'/bin/true', 0, 0)",
        "execveat: call(322, os.memfd_create('x'), b'', 0, 0, 0x1000)",
    ),
    refused(
        "words to another program through a file that both read",
        "EPERM",
        *(
            f"fcntl {command}: call(72, library, {command}, ctypes.addressof(lock))"
            for command in (5, 6, 7, 36, 37, 38, 1024, 1025, 1026, 1035, 1036, 1037, 1038)
        ),
        *(f"flock {kind}: call(73, library, {kind} | 4)" for kind in (1, 2)),
        "python's flock: fcntl.flock(library, fcntl.LOCK_SH | fcntl.LOCK_NB)",
        "python's lockf: fcntl.lockf(library, fcntl.LOCK_SH | fcntl.LOCK_NB)",
        "evict: os.posix_fadvise(library, 0, 0, os.POSIX_FADV_DONTNEED)",
        "is it cached: os.preadv(library, [bytearray(9)], 0, os.RWF_NOWAIT)",
        "write without waiting: os.pwritev(1, [b'x'], -1, os.RWF_NOWAIT)",
        *(f"page out {advice}: call(28, ctypes.addressof(lock) & ~4095, 4096, {advice})" for advice in (20, 21)),
        *(f"wake by {act}: call(202, ctypes.addressof(lock), {act}, 1, 0, 0, 0)" for act in (1, 3, 4, 5, 10)),
        "watch: call(294, 0)",
        before="import fcntl, struct\nlibrary = os.open(os.__file__, os.O_RDONLY)\n"
        "lock = ctypes.create_string_buffer(struct.pack('=hhxxxxqqi', 0, 0, 0, 0, 0), 4096)",
    ),
    Attack(
        name="what an interpreter does with files and threads of its own",
        program="""
import fcntl, queue, concurrent.futures
library, jobs = os.open(os.__file__, os.O_RDONLY), queue.Queue()
attempt("read", lambda: len(os.preadv(library, [bytearray(9)], 0).to_bytes()))
attempt("copy", lambda: fcntl.fcntl(library, fcntl.F_DUPFD_CLOEXEC, 9) > 8)
attempt("flags", lambda: fcntl.fcntl(library, fcntl.F_GETFL) >= 0)
attempt("queue", lambda: (threading.Thread(target=jobs.put, args=(5,)).start(), jobs.get(timeout=5))[1])
attempt("pool", lambda: list(concurrent.futures.ThreadPoolExecutor(4).map(abs, range(-3, 0))))
attempt("map", lambda: mmap.mmap(library, 4096, prot=mmap.PROT_READ)[:0])
attempt("advice", lambda: mmap.mmap(-1, 1 << 16).madvise(mmap.MADV_DONTNEED))
attempt("wake", lambda: call(202, ctypes.addressof(ctypes.create_string_buffer(8)), 129, 1, 0, 0, 0))
""",
        report={
            "read": "done 1",
            "copy": "done True",
            "flags": "done True",
            "queue": "done 5",
            "pool": "done [3, 2, 1]",
            "map": "done b''",
            "advice": "done None",
            "wake": "done 0",
        },
    ),
    refused("clone3", "ENOSYS", "clone3: call(435, bytes(88), 88)"),
    refused("calls of an attacker", "EPERM", *each(REFUSED_CALLS)),
    refused("calls of root", "EPERM|ENOSYS", *each(CALLS_OF_ROOT)),
    refused("the kernel's log", "EPERM", "read: call(103, 3, ctypes.addressof(ctypes.create_string_buffer(64)), 64)"),
    Attack(
        name="machine code",
        program="""
memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
def execute(code):
    memory[: len(code)] = code
    return ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(memory)))()
attempt("fork", lambda: execute(bytes.fromhex("b8390000000f05c3")) + errno.EUSERS)
attempt("32-bit fork", lambda: execute(bytes.fromhex("b802000000cd80c3")))  # kills: the filter knows one architecture
""",
        report={"fork": "done 0"},
        ending=Ending.killed,
    ),
]

ATTACKS = [*PROCESSES, *MEMORY, *OUTPUT, *TIME, *OTHERS, *FILES, *PRIVILEGES, *SYSTEM_CALLS]


def is_walled(pid: int) -> bool:
    """Whether it looks like an execution: under a filter of system calls, and without new privileges."""
    try:
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    except OSError:
        return False
    is_alive = not status["State"].strip().startswith("Z")  # a dead one stays in the table until somebody asks after it
    return is_alive and status.get("Seccomp", "").strip() == "2" and status["NoNewPrivs"].strip() == "1"


def parents() -> dict[int, int]:
    found = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat", "rb") as stat:
                state, parent = stat.read().rpartition(b")")[2].split()[:2]
        except OSError:
            continue  # it has ended meanwhile
        if state != b"Z" or parent != b"1":  # the dead that init has not buried yet
            found[int(name)] = int(parent)
    return found


def processes_left() -> set[int]:
    """Descendants of this process, and executions that have lost their parents."""
    parent_of = parents()

    def is_ours(pid: int) -> bool:
        while pid in parent_of and pid != os.getpid():
            pid = parent_of[pid]
        return pid == os.getpid()

    return {pid for pid, parent in parent_of.items() if is_ours(pid) or (parent == 1 and is_walled(pid))} - {os.getpid()}


def walled_within(seconds: float) -> set[int]:
    """The executions that go on, as soon as there are any."""
    deadline = time.monotonic() + seconds
    while not (found := {pid for pid in processes_left() if is_walled(pid)}):
        assert time.monotonic() < deadline, "nothing was executed"
        time.sleep(0.02)
    return found


def sockets_left() -> list[str]:
    tables = [Path(f"/proc/net/{name}").read_text() for name in ("tcp", "udp", "unix") if Path(f"/proc/net/{name}").exists()]
    return [line for table in tables for line in table.splitlines() if MARK in line or f":{PORT:04X} " in line]


def files_left() -> list[Path]:
    places = [Path("/"), Path("/tmp"), Path("/var/tmp"), Path("/dev"), Path("/dev/shm"), Path("/etc"), Path.home()]
    places += [Path(tempfile.gettempdir()), Path(__file__).parent, Path(os.__file__).parent]
    return [path for place in places if place.is_dir() for path in place.iterdir() if MARK in path.name]


@pytest.fixture(scope="module")
def _directory() -> Iterator[str]:
    """Where the servers of this module have their directories: any user may look for them."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="attacks-") as directory:
        os.chmod(directory, 0o711)
        patch.setattr(tempfile, "tempdir", directory)
        patch.setenv("SECRET_OF_THE_TESTS", "environment")
        yield directory
        assert os.listdir(directory) == []


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> Isolation:
    return request.param


@pytest.fixture(scope="module")
def servers(kind: Isolation, _directory: str) -> Iterator[list[ForkServer]]:
    """The one that serves stands last; those before it were broken."""
    with contextlib.ExitStack() as stack:
        servers: list[ForkServer] = []
        stack.callback(lambda: [server.close() for server in servers])
        yield servers


@pytest.fixture
def server(kind: Isolation, servers: list[ForkServer]) -> ForkServer:
    """One server for all attacks, which has to survive them all: who breaks it fails alone."""
    if not servers or not servers[-1].is_usable:
        servers.append(ForkServer(kind))
    return servers[-1]


@pytest.fixture(autouse=True)
def nothing_is_left_behind(server: ForkServer) -> Iterator[None]:
    before, num_fds, directories = processes_left(), len(os.listdir("/proc/self/fd")), os.listdir(tempfile.gettempdir())
    yield
    assert processes_left() <= before
    assert files_left() == []
    assert sockets_left() == []
    assert os.listdir(tempfile.gettempdir()) == directories
    assert len(os.listdir("/proc/self/fd")) == num_fds
    assert server.is_usable
    after = server.run(b"import os; print(1, os.listdir())", b"", Limits())
    assert (after.ending, after.stdout) == (Ending.ok, b"1 []\n")


def run(server: ForkServer, program: str, **limits: float) -> Outcome:
    bounds = Limits(**{"wall_s": 5.0, **limits})
    if bounds.file_bytes and server.isolation is Isolation.landlock:
        with pytest.raises(SandboxUnavailable, match="no quota"):
            server.run(b"", b"", bounds)
        pytest.skip("landlock knows no quota, so no program may write files in it: this one was not run")
    started = time.monotonic()
    outcome = server.run((PRELUDE + program).encode(), b"", bounds)
    assert time.monotonic() - started < bounds.wall_s + 3
    return outcome


def reported(outcome: Outcome) -> list[tuple[str, str]]:
    """Name and end of each attempt."""
    lines = (line.partition(" => ") for line in outcome.stdout.decode("utf-8", "replace").splitlines())
    return [(name, end) for name, arrow, end in lines if arrow]


def assert_refused(outcome: Outcome, report: dict[str, str]) -> None:
    lines = reported(outcome)
    assert {name for name, _ in lines} == set(report), outcome
    assert [(name, end) for name, end in lines if end not in report[name].split("|")] == []


@pytest.mark.parametrize(
    "attack", [pytest.param(attack, id=attack.name, marks=ON_X86_64 if "call(" in attack.program else ()) for attack in ATTACKS]
)
def test_an_attack_fails(server: ForkServer, attack: Attack) -> None:
    endings = attack.ending if isinstance(attack.ending, tuple) else (attack.ending,)
    outcome = run(server, attack.program, **{"wall_s": 0.5 if Ending.timeout in endings else 5.0, **attack.limits})
    assert outcome.ending in endings, outcome
    assert_refused(outcome, attack.report)
    assert max(map(len, (outcome.stdout, outcome.stderr, outcome.result))) <= Limits().output_bytes


@ON_ONE_KIND
def test_the_signal_of_the_limit_on_processor_time_cannot_be_ignored(server: ForkServer) -> None:
    program = "signal.signal(signal.SIGXCPU, signal.SIG_IGN); os.write(1, b'signal => ignored\\n')\nwhile True: pass"
    outcome = run(server, program, cpu_s=1.0, wall_s=10.0)
    assert outcome.ending is Ending.cpu
    assert_refused(outcome, {"signal": "ignored"})


def test_threads_without_stacks_run_out(server: ForkServer) -> None:
    """Threads that wait for ever on one stack between them: no address space, but a process id and kernel memory each."""
    outcome = run(
        server,
        """
stack = ctypes.create_string_buffer(1 << 16)
top = ctypes.c_void_p(ctypes.addressof(stack) + (1 << 16) - 64 & ~15)
def start(i):
    if LIBC.clone(LIBC.pause, top, 0x100 | 0x200 | 0x400 | 0x800 | 0x10000 | 0x40000, None) < 0:
        raise OSError(ctypes.get_errno(), "")
attempt("threads", lambda: until_refused(start, 1100))
os._exit(0)
""",
    )
    ((_, end),) = reported(outcome)
    assert end.endswith(("EAGAIN", "EPERM")), "more than 1000 threads"


@pytest.mark.parametrize(
    ("most", "make"),
    [
        (65, "os.write(os.open(f'file{i}', os.O_CREAT | os.O_WRONLY), bytes(1 << 20)), os.closerange(3, 32)"),
        (1024, "os.close(os.open(f'file{i}', os.O_CREAT | os.O_WRONLY))"),
    ],
    ids=["bytes", "files"],
)
def test_the_room_of_a_directory_runs_out(server: ForkServer, most: int, make: str) -> None:
    program = f"attempt('files', lambda: until_refused(lambda i: ({make}), {most + 20}))"
    ((_, end),) = reported(run(server, program, file_bytes=1 << 20, wall_s=2.0))
    assert end.endswith("ENOSPC"), f"more than {most}"


def test_a_program_finds_nothing_of_the_one_before_it(server: ForkServer) -> None:
    peek = """
import builtins, gc, random
attempt("state", lambda: (
    len("abc"), sorted(n for n in sys.modules if MARK in n), sys.path[:1] == [MARK], os.umask(0o22), os.getcwd(), gc.isenabled(),
    signal.getsignal(signal.SIGINT) is signal.default_int_handler, sys.getrecursionlimit(), random.random(),
    os.getpriority(os.PRIO_PROCESS, 0), threading.active_count(), sys.argv,
    hash("abc"), signal.getitimer(signal.ITIMER_REAL), os.environ.get(MARK), os.listdir(), sorted(globals().keys() & {"spy"}),
))
"""
    first = run(server, peek)
    spoil = """
import builtins, gc, random
random.random()
threading.Thread(target=time.sleep, args=(9,), daemon=True).start()
builtins.len = lambda x: 0
sys.modules[MARK] = sys; sys.path.insert(0, MARK); os.umask(0); os.chdir("/"); gc.disable(); sys.setrecursionlimit(50)
signal.signal(signal.SIGINT, signal.SIG_IGN); signal.setitimer(signal.ITIMER_REAL, 0.3); os.environ[MARK] = MARK
sys.argv.append(MARK); spy = sys._getframe
for frame in (spy(), spy().f_back, spy().f_back.f_back, spy().f_back.f_back.f_back):
    frame.f_globals["spy"] = frame.f_builtins["spy"] = spy
    frame.f_locals["spy"] = spy
os.write(1, b"spoilt => done\\n"); os._exit(0)
"""
    assert_refused(run(server, spoil), {"spoilt": "done"})
    second = run(server, peek + "time.sleep(0.35)")
    assert first.stdout == second.stdout
    assert reported(first)[0][1].startswith("done (3, [], False, ")


@pytest.mark.parametrize(
    "leave",
    ["os.chmod('.', 0o701)", "os.utime('.', (77, 77))", "os.setxattr('.', 'user.note', b'note')", "os.chmod('.', 0)"],
)
def test_a_program_leaves_no_note_on_its_directory(kind: Isolation, server: ForkServer, leave: str) -> None:
    """In a note on the directory, a process that sees hidden tests could tell them to the next, which talks to the student."""
    with ForkServer(kind) as fresh:
        run(fresh, f"attempt('note', lambda: {leave})", file_bytes=1 << 16)
        peek = "attempt('sees', lambda: (oct(os.stat('.').st_mode)[-3:], os.stat('.').st_mtime == 77, os.listxattr('.')))"
        write = "attempt('writes', lambda: os.close(os.open('file', os.O_CREAT | os.O_WRONLY)))"
        outcome = run(fresh, f"{peek}\n{write}", file_bytes=1 << 16)
        assert_refused(outcome, {"sees": "done ('777', False, [])|done ('700', False, [])", "writes": "done None"})


def test_process_ids_of_a_room_tell_a_program_nothing_of_one_that_had_a_secret(kind: Isolation, server: ForkServer) -> None:
    """Threads that a hidden test was answered with once showed in the number of the next program's process."""
    if kind is Isolation.landlock:
        pytest.skip("without a room there is one count of process ids for the machine")

    def number() -> int:
        return int(sandbox.run("import os; print(os.getpid())", stdin=b"", limits=Limits()).stdout)

    sandbox.use(Settings(isolation=kind))
    try:
        before = number()
        threads = "import threading\nfor _ in range(20): threading.Thread(target=id, args=(1,)).start()"
        assert sandbox.run(threads, stdin=b"", limits=Limits(), has_secret=True).ending is Ending.ok
        assert number() == before + 1
    finally:
        sandbox.use(Settings())


@pytest.fixture
def file_of_another(_directory: str) -> Iterator[Path]:
    """A file that its owner would share with everyone, the owner being whoever programs run as: only the sandbox hides it."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="other-") as directory:
        file = Path(directory, "file")
        file.write_text("secret")
        for path, mode in ((Path(directory), 0o777), (file, 0o666)):
            path.chmod(mode)
            if os.geteuid() == 0:
                os.chown(path, NOBODY, NOBODY)
        yield file
        assert file.read_text() == "secret"


def test_a_file_of_another_can_be_neither_read_nor_written(server: ForkServer, file_of_another: Path) -> None:
    program, report = attempts(
        OUTSIDE,
        f"read: open({str(file_of_another)!r}).read()",
        f"write: open({str(file_of_another)!r}, 'w')",
        f"append: open({str(file_of_another)!r}, 'a')",
        f"truncate: os.truncate({str(file_of_another)!r}, 0)",
        f"unlink: os.unlink({str(file_of_another)!r})",
        f"rename: os.rename({str(file_of_another)!r}, 'file')",
        f"link: os.link({str(file_of_another)!r}, 'file')",
        f"list: os.listdir({str(file_of_another.parent)!r})",
        f"neighbour: open({str(file_of_another.parent)!r} + '/' + MARK, 'w')",
    )
    assert_refused(run(server, program, file_bytes=1 << 16), report)


def test_a_file_of_another_keeps_its_attributes(server: ForkServer, file_of_another: Path) -> None:
    """Landlock has no word on attributes: a program that runs as a user could lock that user out of everything."""
    program, report = attempts(
        OUTSIDE,
        f"mode: os.chmod({str(file_of_another)!r}, 0o666)",
        f"times: os.utime({str(file_of_another)!r}, (77, 77))",
        f"owner: os.chown({str(file_of_another)!r}, os.getuid(), os.getgid())",
        f"note: os.setxattr({str(file_of_another)!r}, 'user.note', b'note')",
    )
    assert_refused(run(server, program), report)


def test_a_room_hides_that_a_file_exists(kind: Isolation, server: ForkServer, file_of_another: Path) -> None:
    if kind is Isolation.landlock:
        pytest.skip("Landlock keeps files from being opened, not from being asked for")
    program, report = attempts(
        "ENOENT",
        f"stat: os.stat({str(file_of_another)!r})",
        f"access: os.stat({str(file_of_another.parent)!r})",
        f"change: os.chdir({str(file_of_another.parent)!r})",
        "shadow: os.stat('/etc/shadow')",
    )
    assert_refused(run(server, program), report)


def test_a_program_cannot_signal_another_execution_or_its_server(kind: Isolation, server: ForkServer) -> None:
    """By a pipe whose owner it claims to be another: the kernel then sends the signal, and no call to kill is seen."""
    with ForkServer(kind) as other:
        outcomes: list[Outcome] = []
        victim = b"import os, time; os.write(1, b'%d' % os.getpid()); time.sleep(1.0); os.write(1, b' lives')"
        thread = threading.Thread(target=lambda: outcomes.append(other.run(victim, b"", Limits(wall_s=3.0))))
        thread.start()
        aims = [*walled_within(1.0), *range(2, 9)]  # its number outside of a room, and what it may be inside
        program = f"""
for pid in {aims}:
    if pid != os.getpid():
        attempt("victim", lambda: asynchronous(pid, signal.SIGKILL))
attempt("server", lambda: asynchronous(os.getppid(), signal.SIGINT))
"""
        outcome = run(server, program)
        assert thread.is_alive(), "the victim was killed, or had ended before it was aimed at"
        thread.join()
        assert {name for name, _ in reported(outcome)} == {"victim", "server"}
        assert outcomes[0].stdout.endswith(b" lives")


def test_a_program_ends_with_its_server(kind: Isolation, server: ForkServer) -> None:
    """Also if the server is killed, and the program has taken back that it wants to die with it."""
    with ForkServer(kind) as doomed:
        outcomes: list[Outcome] = []
        program = (PRELUDE + "attempt('unbound', lambda: LIBC.prctl(1, 0, 0, 0, 0)); time.sleep(60)").encode()
        thread = threading.Thread(target=lambda: outcomes.append(doomed.run(program, b"", Limits(wall_s=1.0))))
        thread.start()
        started = walled_within(1.0)
        time.sleep(0.2)
        doomed._process.kill()
        thread.join()
        time.sleep(0.1)
        left = [pid for pid in started if is_walled(pid)]
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        assert [name for name, _ in reported(outcomes[0])] == ["unbound"]
        assert left == []


@pytest.mark.parametrize(
    "program",
    [
        b"\0",
        b"\xff\xfe",
        b"(" * 10**6,
        b"-" * 10**6 + b"1",
        b"x = 1\n" * 10**5,
        b"# coding: no\n",
        b"1+" * 10**5 + b"1",
        b"a." * 10**5 + b"a",
    ],
    ids=["null", "bytes", "open", "minus", "long", "coding", "sum", "attributes"],
)
def test_a_source_that_breaks_the_compiler_is_an_outcome(server: ForkServer, program: bytes) -> None:
    started = time.monotonic()
    outcome = server.run(program, bytes(10**6), Limits(wall_s=1.0))
    assert outcome.ending in Ending
    assert time.monotonic() - started < 4


def test_a_pool_survives_attacks_from_several_threads(kind: Isolation, server: ForkServer) -> None:
    programs = ["while True: pass", "import ctypes; ctypes.string_at(0)", "import os; os.closerange(0, 99)", "print(1)"] * 2
    outcomes: dict[int, Outcome] = {}
    sandbox.use(Settings(isolation=kind))
    try:
        threads = [
            threading.Thread(target=lambda i=i, p=p: outcomes.setdefault(i, sandbox.run(p, stdin=b"", limits=Limits(wall_s=0.5))))
            for i, p in enumerate(programs)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [outcomes[i].stdout for i in (3, 7)] == [b"1\n", b"1\n"]
        assert [outcomes[i].ending for i in range(3)] == [Ending.timeout, Ending.killed, Ending.ok]
    finally:
        sandbox.use(Settings())


def test_a_process_that_ran_programs_leaves_no_directory(kind: Isolation) -> None:
    program = (
        "from sdpo.envs import sandbox\n"
        f"sandbox.use(sandbox.Settings(isolation=sandbox.Isolation({kind.value!r})))\n"
        "print(sandbox.run('print(1)', stdin=b'', limits=sandbox.Limits()).stdout)"
    )
    command = [sys.executable, "-c", program]
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="other-") as directory:
        ended = subprocess.run(command, env={**os.environ, "TMPDIR": directory}, capture_output=True, check=True)
        assert ended.stdout == b"b'1\\n'\n"
        assert os.listdir(directory) == []
