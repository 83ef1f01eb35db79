"""What an untrusted program can and cannot do: each test runs a real one."""

import contextlib
import errno
import os
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from sdpo.envs import sandbox
from sdpo.envs.sandbox import Ending, Isolation, Limits, Outcome, SandboxUnavailable, Settings
from sdpo.envs.sandbox.isolation import command
from sdpo.envs.sandbox.pool import ForkServer
from sdpo.envs.sandbox.seccomp import filter_program


def run(program: str, stdin: bytes = b"", **limits: float) -> Outcome:
    if limits.get("file_bytes") and sandbox.isolation() is Isolation.landlock:
        pytest.skip("landlock knows no quota, so no program may write files in it: this one was not run")
    return sandbox.run(program, stdin=stdin, limits=Limits(**{"wall_s": 10.0, **limits}))


def refused(program: str, error: str = "PermissionError", **limits: float) -> bool:
    outcome = run(program, **limits)
    return outcome.ending is Ending.error and error in outcome.stderr.decode()


def children_of(pid: int) -> list[int]:
    children = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if int(stat.read_text().rpartition(")")[2].split()[1]) == pid:
                children.append(int(stat.parent.name))
    return children


@pytest.fixture(
    params=[kind for kind in Isolation if kind is not Isolation.weak], ids=lambda kind: kind.value, autouse=True, scope="module"
)
def level(request, tmp_path_factory):
    """Every test under each isolation that this machine gives; at the end no directory, process or descriptor is left."""
    folder = tmp_path_factory.mktemp("sandbox")
    before, num_fds = set(children_of(os.getpid())), len(os.listdir("/proc/self/fd"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(folder))
        sandbox.use(Settings(isolation=request.param, allow_weak=True))
        try:
            sandbox.isolation()
        except SandboxUnavailable as error:
            pytest.skip(str(error))
        yield request.param
        sandbox.use(Settings())
    assert list(folder.iterdir()) == []
    assert set(children_of(os.getpid())) <= before
    assert len(os.listdir("/proc/self/fd")) <= num_fds


def test_a_program_reads_its_input_and_its_three_channels_are_kept_apart():
    outcome = run("import os, sys\nprint(input()[::-1]); print('oh', file=sys.stderr); os.write(3, b'result')", b"abc\n")
    assert outcome.ending is Ending.ok
    assert (outcome.stdout, outcome.stderr, outcome.result) == (b"cba\n", b"oh\n", b"result")


def test_a_program_may_use_the_standard_library_and_threads():
    program = (
        "import math, json, re, random, collections, itertools, heapq, decimal, datetime, hashlib, threading\n"
        "thread = threading.Thread(target=print, args=(math.pi,)); thread.start(); thread.join()"
    )
    assert run(program).stdout == b"3.141592653589793\n"


@pytest.mark.parametrize(
    ("program", "limits", "ending"),
    [
        ("raise ValueError", {}, Ending.error),
        ("import sys; sys.exit(3)", {}, Ending.error),
        ("while True: pass", {"wall_s": 0.5}, Ending.timeout),
        ("import time; time.sleep(60)", {"wall_s": 0.5}, Ending.timeout),
        ("x = bytearray(1 << 30)", {}, Ending.memory),
        ("x = []\nwhile True: x.append('y' * 10**6 + str(len(x)))", {"memory_bytes": 1 << 27}, Ending.memory),
        ("while True: print('x' * 10**4)", {}, Ending.output),
        ("import sys\nwhile True: sys.stderr.write('x' * 10**4)", {}, Ending.output),
        ("import os\nwhile True: os.write(3, b'x' * 10**4)", {}, Ending.output),
        ("import ctypes; ctypes.string_at(0)", {}, Ending.killed),
        ("while True: pass", {"cpu_s": 1.0}, Ending.cpu),
        ("import signal; signal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass", {"cpu_s": 1.0}, Ending.cpu),
        ("import os; os.fork()", {}, Ending.processes),
        ("import subprocess; subprocess.run(['true'])", {}, Ending.processes),
        (
            "open('f', 'wb', buffering=0).write(b'x' * 101); open('f', 'ab', buffering=0).write(b'x')",
            {"file_bytes": 100},
            Ending.files,
        ),
        ("files = [open('/dev/null') for _ in range(99)]", {}, Ending.files),
    ],
)
def test_every_way_of_failing_is_a_kind_of_its_own(program, limits, ending):
    outcome = run(program, **limits)
    assert outcome.ending is ending
    assert outcome.wall_s < limits.get("wall_s", 10.0) + 2
    assert max(map(len, (outcome.stdout, outcome.stderr, outcome.result))) <= Limits().output_bytes


def test_a_program_that_closes_its_channels_is_still_waited_for_and_stopped():
    assert run("import os, time; os.closerange(0, 99); time.sleep(60)", wall_s=0.5).ending is Ending.timeout
    assert run("import os; os.closerange(0, 99); os._exit(0)").ending is Ending.ok


@pytest.mark.parametrize(
    "program",
    [
        "import os\nwhile True: os.fork()",
        "import os; os.forkpty()",
        "import os; os.setsid()",
        "import os; os.posix_spawn('/bin/true', ['true'], {})",
        "import os; os.execv('/bin/true', ['true'])",
        "import subprocess; subprocess.run(['true'])",
        "import multiprocessing; multiprocessing.get_context('fork').Process(target=print).start()",
    ],
)
def test_a_program_starts_no_other(program):
    assert run(program).ending in (Ending.processes, Ending.error)
    assert run(
        f"try:\n    {program.replace(chr(10), chr(10) + '    ')}\nexcept BaseException as e: print(type(e).__mro__)"
    ).stdout


@pytest.mark.parametrize("family", ["AF_INET", "AF_INET6", "AF_UNIX", "AF_NETLINK"])
def test_a_program_gets_no_socket(family):
    assert refused(f"import socket; socket.socket(socket.{family})")


def test_a_program_cannot_reach_a_server_on_this_machine():
    assert refused("import socket; socket.create_connection(('127.0.0.1', 22), 1)")


@pytest.mark.parametrize(
    "program",
    [
        "import os; os.kill(os.getppid(), 0)",
        "import os; os.kill(-1, 0)",
        "import os; os.sched_setaffinity(os.getppid(), {0})",
        "import os; os.setpriority(os.PRIO_PROCESS, os.getppid(), 19)",
        "import os, resource; resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE)",
    ],
)
def test_a_program_cannot_touch_other_processes(program):
    assert refused(program)


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "/etc/shadow", "/proc/self/status", "/proc/1/environ", sandbox.__file__, "/home", "/tmp", "/dev/sda"]
)
def test_a_program_sees_no_files_but_its_library(path):
    outcome = run(f"import os\nos.listdir({path!r}) if os.path.isdir({path!r}) else open({path!r}).read()")
    assert outcome.ending is Ending.error


def test_a_program_writes_no_file_unless_it_may_and_then_only_in_its_own_directory():
    write = "open('file', 'wb', buffering=0).write(b'x' * 100)"
    assert refused(write)
    assert run(write, file_bytes=100).ending is Ending.ok
    assert run("open('/tmp/file', 'wb')", file_bytes=100).ending is Ending.error
    assert refused("import os; os.mkdir('directory')", file_bytes=100)


def test_a_program_has_an_empty_environment_and_directory():
    assert run("import os; print(sorted(set(os.environ) - {'LC_CTYPE'}), os.listdir())").stdout == b"[] []\n"


def test_exit_handlers_and_threads_cannot_hold_up_the_end():
    program = "import atexit, time; atexit.register(time.sleep, 60)"
    assert run(program, wall_s=0.5).ending is Ending.timeout


def test_the_walls_are_up_as_seen_from_outside(level):
    """Asks the kernel rather than the program: no privileges, a filter, and namespaces that are not ours."""
    with ForkServer(level) as server:
        thread = threading.Thread(target=server.run, args=(b"import time; time.sleep(1)", b"", Limits()))
        thread.start()
        time.sleep(0.5)
        program = server._process.pid
        while children := children_of(program):
            (program,) = children
        lines = Path(f"/proc/{program}/status").read_text().splitlines()
        status = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
        ours = [
            os.readlink(f"/proc/{program}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}") for kind in ("net", "mnt", "pid")
        ]
        thread.join()
    assert status["Seccomp"] == "2"
    assert status["NoNewPrivs"] == "1"
    assert int(status["CapEff"], 16) & ~0b100 == 0
    if os.geteuid() == 0:
        assert len(set(status["Uid"].split())) == 1
        assert int(status["Uid"].split()[0]) >= 1 << 30
        assert ours == [True, *[level in (Isolation.bubblewrap, Isolation.namespaces)] * 2]


def test_a_program_finds_nothing_of_the_one_before_it():
    with_files = {"file_bytes": 1000}
    run("open('left', 'w').write('x'); import json, random; json.left = True; random.seed(5)", **with_files)
    assert run("import os, json; print(os.listdir(), hasattr(json, 'left'))", **with_files).stdout == b"[] False\n"


def test_the_same_program_does_the_same_in_every_server():
    """The order of a set of strings, and a random number, would otherwise decide a verdict by the server it got."""
    seen = set()
    for _ in range(3):
        with ForkServer(sandbox.isolation()) as server:
            seen.add(server.run(b"import random; print(set('abcdefgh'), random.random())", b"", Limits()).stdout)
    assert len(seen) == 1


def test_a_room_has_a_quota():
    fill = "for i in range(9): open(f'f{i}', 'wb').write(bytes(1 << 24))"
    assert run(fill, file_bytes=1 << 24).ending is Ending.files
    assert run("open('f', 'wb').write(b'x')", file_bytes=1 << 24).ending is Ending.ok


def test_runs_at_the_same_time_do_not_disturb_each_other():
    outcomes: dict[int, bytes] = {}
    threads = [threading.Thread(target=lambda i=i: outcomes.setdefault(i, run(f"print({i})").stdout)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == {i: f"{i}\n".encode() for i in range(6)}


def test_the_program_dies_with_its_parent(level, tmp_path):
    parent = (
        "from sdpo.envs import sandbox\n"
        f"sandbox.use(sandbox.Settings(isolation=sandbox.Isolation.{level.value}, allow_weak=True))\n"
        "sandbox.run('import time; time.sleep(60)', stdin=b'', limits=sandbox.Limits(wall_s=60))"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], env={**os.environ, "TMPDIR": str(tmp_path)})
    deadline = time.monotonic() + 10
    while not (started := children_of(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.7)
    family = [started[0]]
    family += [other for pid in family for other in children_of(pid)]
    process.kill()
    process.wait()
    time.sleep(0.5)
    assert started
    assert not [pid for pid in family if Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text()]


def test_without_walls_the_program_is_not_run(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "sparc")
    with pytest.raises(SandboxUnavailable, match="sparc"):
        command(Isolation.landlock, 3, "/")


def test_weak_isolation_is_refused_unless_it_is_allowed(level):
    if level is not Isolation.landlock:
        pytest.skip("once is enough")
    sandbox.use(Settings(isolation=Isolation.weak))
    with pytest.raises(SandboxUnavailable, match=r"sandbox.allow_weak=true"):
        sandbox.isolation()
    sandbox.use(Settings(isolation=level))


def test_the_filter_knows_two_machines_and_fits_its_jumps():
    for machine in ("x86_64", "aarch64"):
        code = filter_program(machine)
        assert len(code) % 8 == 0
        assert len(code) // 8 < 256


ALLOW, REFUSE, NO_PROCESS, NO_CALL = 0x7FFF0000, 0x50000 | errno.EPERM, 0x50000 | errno.EUSERS, 0x50000 | errno.ENOSYS
ANSWERS = [  # numbers of x86_64 and aarch64, arguments, answer
    *((numbers, (), REFUSE) for numbers in (
        (41, 198), (62, 129), (101, 117), (321, 280), (221, 223), (187, 213), (27, 232), (451, 451), (73, 32), (253, None),
        (294, 26), (254, 27), (300, 262), (301, 263), (449, 449), (454, 454), (455, 455), (456, 456), (467, 467), (469, 469),
    )),
    *(((72, 25), (3, command), REFUSE) for command in (5, 6, 7, 8, 10, 15, 36, 37, 38, 1024, 1025, 1026, 1035, 1036, 1037, 1038)),
    *(((72, 25), (3, command), ALLOW) for command in (0, 1, 2, 3, 4, 9, 11, 1030, 1031, 1032, 1033, 1034)),
    *(((327, 286), (3, 0, 0, 0, 0, flags), ALLOW if flags == 0 else REFUSE) for flags in (0, 1, 8, 128)),
    *(((328, 287), (3, 0, 0, 0, 0, flags), ALLOW if flags == 0 else REFUSE) for flags in (0, 8)),
    *(((302, 261), (pid,), ALLOW if pid == 0 else REFUSE) for pid in (0, 1)),
    *(((28, 233), (0, 0, advice), REFUSE if advice in (20, 21) else ALLOW) for advice in (0, 4, 8, 14, 20, 21)),
    *(((202, 98), (0, act), REFUSE) for act in (1, 3, 4, 5, 10)),
    *(((202, 98), (0, act), ALLOW) for act in (0, 9, 128, 129, 131, 132, 133, 137, 138, 265, 393)),
    *(((157, 167), (option,), REFUSE if option == 1 else ALLOW) for option in (1, 15, 38)),
    *(((56, 220), (flags,), NO_PROCESS if flags == 17 else ALLOW) for flags in (17, 0x3D0F00)),
    ((435, 435), (), NO_CALL), ((59, 221), (), NO_PROCESS), ((57, None), (), NO_PROCESS), ((319, 279), (), ALLOW),
    ((0, 63), (), ALLOW), ((1, 64), (), ALLOW), ((9, 222), (), ALLOW), ((257, 56), (), ALLOW), ((231, 94), (), ALLOW),
]  # fmt: skip


def answer_of(code: bytes, architecture: int, number: int, arguments: tuple[int, ...]) -> int:
    """What the kernel would answer, by the four operations of classic BPF that a filter here is made of."""
    call = struct.pack("=IIQ6Q", number, architecture, 0, *arguments, *(0,) * (6 - len(arguments)))
    lines = list(struct.iter_unpack("=HBBI", code))
    at = loaded = 0
    while True:
        operation, if_true, if_false, operand = lines[at]
        at += 1
        if operation == 0x20:
            (loaded,) = struct.unpack_from("=I", call, operand)
        elif operation == 0x06:
            return operand
        else:
            holds = {0x15: loaded == operand, 0x35: loaded >= operand, 0x45: loaded & operand != 0}[operation]
            at += if_true if holds else if_false


@pytest.mark.parametrize(("column", "machine", "architecture"), [(0, "x86_64", 0xC000003E), (1, "aarch64", 0xC00000B7)])
def test_the_filter_answers_each_call_on_machines_that_are_not_here(level, column, machine, architecture):
    """A number in the wrong column refuses something else, and nobody here would notice."""
    if level is not Isolation.landlock:
        pytest.skip("once is enough")
    code = filter_program(machine)
    for numbers, arguments, answer in ANSWERS:
        if numbers[column] is not None:
            assert answer_of(code, architecture, numbers[column], arguments) == answer, (numbers, arguments)
    assert answer_of(code, 0x40000003, 1, ()) == 0x80000000


def test_programs_with_a_secret_have_servers_of_their_own(level):
    """A server that had run hidden tests once ran the next answer's visible ones."""
    if os.geteuid() != 0:
        pytest.skip("only root gives each server's programs a user of their own, by which servers are told apart here")
    who = "import os; print(os.getuid())"
    users = [sandbox.run(who, stdin=b"", limits=Limits(), has_secret=has_secret).stdout for has_secret in (False, True) * 2]
    assert users[0] == users[2] != users[1] == users[3]


@pytest.mark.parametrize(
    "limits", [{"wall_s": 0.0}, {"wall_s": float("nan")}, {"memory_bytes": 1}, {"output_bytes": 0}, {"file_bytes": -1}]
)
def test_limits_under_which_nothing_runs_are_refused(limits):
    with pytest.raises(ValueError, match=next(iter(limits))):
        Limits(**limits)
