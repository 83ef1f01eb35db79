"""What an untrusted program can and cannot do: each test runs a real one."""

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from sdpo.envs import sandbox
from sdpo.envs.sandbox import Ending, Limits, Outcome, SandboxUnavailable
from sdpo.envs.sandbox.seccomp import filter_program


def run(program: str, stdin: bytes = b"", **limits: float) -> Outcome:
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


@pytest.fixture(autouse=True)
def nothing_is_left_behind(tmp_path, monkeypatch):
    """No directory and no child process outlives a run, whatever the program did."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = set(children_of(os.getpid()))
    num_fds = len(os.listdir("/proc/self/fd"))
    yield
    assert list(tmp_path.iterdir()) == []
    assert set(children_of(os.getpid())) <= before
    assert len(os.listdir("/proc/self/fd")) == num_fds


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
    assert refused(program)


@pytest.mark.parametrize("family", ["AF_INET", "AF_INET6", "AF_UNIX", "AF_NETLINK"])
def test_a_program_gets_no_socket(family):
    assert refused(f"import socket; socket.socket(socket.{family})")


def test_a_program_cannot_reach_a_server_on_this_machine():
    assert refused("import socket; socket.create_connection(('127.0.0.1', 22), 1)")


def test_a_program_may_be_given_the_network():
    program = "import socket; socket.socket(); print('yes')"
    assert run(program, allow_network=True).stdout == b"yes\n"


@pytest.mark.parametrize(
    "program",
    [
        "import os; os.kill(os.getppid(), 0)",
        "import os; os.kill(-1, 0)",
        "import os; os.sched_setaffinity(os.getppid(), {0})",
        "import os; os.setpriority(os.PRIO_PROCESS, os.getppid(), 19)",
        "import os, resource; resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE)",
        "import os; print(open(f'/proc/{os.getppid()}/environ').read())",
    ],
)
def test_a_program_cannot_touch_other_processes(program):
    assert refused(program)


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "/etc/shadow", "/proc/self/status", sandbox.__file__, "/home", "/tmp", "/dev/sda"]
)
def test_a_program_sees_no_files_but_its_library(path):
    outcome = run(f"import os\nos.listdir({path!r}) if os.path.isdir({path!r}) else open({path!r}).read()")
    assert outcome.ending is Ending.error


def test_a_program_writes_no_file_unless_it_may_and_then_only_in_its_own_directory():
    write = "open('file', 'wb', buffering=0).write(b'x' * 100)"
    assert refused(write)
    assert run(write, file_bytes=100).ending is Ending.ok
    assert refused(f"[{write} for _ in range(2)]; open('file', 'ab', buffering=0).write(b'x')", "File too large", file_bytes=100)
    assert refused("open('/tmp/file', 'wb')", file_bytes=100)
    assert refused("import os; os.mkdir('directory')", file_bytes=100)


def test_a_program_has_an_empty_environment_and_directory():
    assert run("import os; print(sorted(set(os.environ) - {'LC_CTYPE'}), os.listdir())").stdout == b"[] []\n"


def test_exit_handlers_and_threads_cannot_hold_up_the_end():
    program = "import atexit, time; atexit.register(time.sleep, 60)"
    assert run(program, wall_s=0.5).ending is Ending.timeout


def test_the_walls_are_up_as_seen_from_outside():
    """Asks the kernel rather than the program: no privileges, a filter, and another network namespace."""
    thread = threading.Thread(target=run, args=("import time; time.sleep(1)",))
    thread.start()
    time.sleep(0.5)
    (child,) = children_of(os.getpid())
    lines = Path(f"/proc/{child}/status").read_text().splitlines()
    status = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
    assert status["Seccomp"] == "2"
    assert status["NoNewPrivs"] == "1"
    assert int(status["CapEff"], 16) & ~0b100 == 0
    if os.geteuid() == 0:
        assert status["Uid"].split() == ["65534"] * 4
        assert os.readlink(f"/proc/{child}/ns/net") != os.readlink("/proc/self/ns/net")
    thread.join()


def test_runs_at_the_same_time_do_not_disturb_each_other():
    outcomes: dict[int, bytes] = {}
    threads = [threading.Thread(target=lambda i=i: outcomes.setdefault(i, run(f"print({i})").stdout)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == {i: f"{i}\n".encode() for i in range(6)}


def test_the_program_dies_with_its_parent(tmp_path_factory):
    parent = "from sdpo.envs.sandbox import Limits, run\nrun('import time; time.sleep(60)', stdin=b'', limits=Limits(wall_s=60))"
    process = subprocess.Popen([sys.executable, "-c", parent], env={**os.environ, "TMPDIR": str(tmp_path_factory.mktemp("left"))})
    deadline = time.monotonic() + 10
    while not (started := children_of(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    process.kill()
    process.wait()
    time.sleep(0.2)
    assert len(started) == 1
    assert not Path(f"/proc/{started[0]}").exists() or "Z" in Path(f"/proc/{started[0]}/stat").read_text()


def test_without_walls_the_program_is_not_run(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "sparc")
    with pytest.raises(SandboxUnavailable, match="sparc"):
        run("print('never')")


def test_the_filter_knows_two_machines_and_fits_its_jumps():
    for machine in ("x86_64", "aarch64"):
        code = filter_program(machine, allow_network=False)
        assert len(code) % 8 == 0
        assert len(code) // 8 < 256
        assert len(filter_program(machine, allow_network=True)) == len(code) - 8


@pytest.mark.parametrize(
    "limits", [{"wall_s": 0.0}, {"wall_s": float("nan")}, {"memory_bytes": 1}, {"output_bytes": 0}, {"file_bytes": -1}]
)
def test_limits_under_which_nothing_runs_are_refused(limits):
    with pytest.raises(ValueError, match=next(iter(limits))):
        Limits(**limits)
