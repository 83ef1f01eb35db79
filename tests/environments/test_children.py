"""Processes that this project starts: they end with whoever started them, and run what is installed, not what lies about."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from sdpo.envs.children import ASKS, Lifeline, deaf, own_module

ROOT = Path(__file__).parent.parent.parent
ENDLESS = """
import os, re, subprocess, sys
from pathlib import Path
from sdpo.types import Message, Role, Task

class Endless:
    name = "endless"

    def tasks(self, split, seed):
        started = subprocess.Popen([sys.executable, "-P", "-c", "import time; time.sleep(600)"])
        (Path(__file__).parent / "pids").write_text(f"{os.getpid()} {started.pid}\\n")
        re.fullmatch("(a|aa)*b", "a" * 200)  # in C, with the interpreter's lock held

    def verify(self, task, completion):
        raise AssertionError("there are no tasks")
"""
CHECK = "import sys; from sdpo.environments import check; check(sys.argv[1])"


def waited_for(condition: Callable[[], bool], limit_s: float = 60.0) -> bool:
    until = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_the_examination_of_a_check_that_is_killed_ends_and_so_does_what_the_environment_started(tmp_path: Path) -> None:
    """It ran on at full speed for ever."""
    (tmp_path / "endless.py").write_text(ENDLESS)
    check = subprocess.Popen([sys.executable, "-P", "-c", CHECK, f"{tmp_path / 'endless.py'}:Endless"])
    pids: list[int] = []
    try:
        file = tmp_path / "pids"
        assert waited_for(lambda: file.is_file() and file.read_text().endswith("\n"))
        pids = [int(word) for word in file.read_text().split()]
        assert all(map(is_alive, pids))
        check.kill()
        check.wait()
        assert waited_for(lambda: not any(map(is_alive, pids)), limit_s=10.0)
    finally:
        check.kill()
        for pid in filter(is_alive, pids):
            os.kill(pid, signal.SIGKILL)


PARENT = """
import signal, subprocess, sys, threading, time
from sdpo.envs.children import Lifeline

line = Lifeline()
def start():
    global child
    child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE, pass_fds=line.pass_fds)
    line.tie(child, getattr(signal, sys.argv[2]))
thread = threading.Thread(target=start)
thread.start()
thread.join()
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(600)
"""
CHILD = {
    "SIGKILL": "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32)); print(flush=True); signal.pause()",
    "SIGTERM": (
        "import signal, sys\n"
        "signal.signal(signal.SIGTERM, lambda number, frame: open(sys.argv[0] and '/dev/null', 'w') and sys.exit(0))\n"
        "print(flush=True)\nsignal.pause()"
    ),
}


@pytest.mark.parametrize("number", ["SIGKILL", "SIGTERM"])
def test_a_child_gets_its_signal_when_its_parent_is_killed_and_not_when_a_thread_of_it_ends(number: str) -> None:
    """The parent-death signal of Linux comes when the *thread* that started the child ends."""
    parent = subprocess.Popen([sys.executable, "-P", "-c", PARENT, CHILD[number], number], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    try:
        time.sleep(0.2)
        assert is_alive(child)
        parent.kill()
        parent.wait()
        assert waited_for(lambda: not is_alive(child), limit_s=10.0)
    finally:
        parent.kill()
        parent.stdout.close()
        if is_alive(child):
            os.kill(child, signal.SIGKILL)


def test_a_process_whose_line_is_closed_is_ended_and_nothing_is_left_open() -> None:
    before = len(os.listdir("/proc/self/fd"))
    with (
        Lifeline() as line,
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=line.pass_fds) as child,
    ):
        line.tie(child)
        line.close()
        assert child.wait(timeout=10) == -signal.SIGKILL
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_is_started_deaf_hears_no_request_to_stop_and_whoever_starts_it_does() -> None:
    """``systemctl stop`` signals every process of the unit, whatever its session: the engines died before the last step."""
    asked = "import signal; print(*sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])))"
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with deaf():
        said = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True).stdout
    assert {int(number) for number in said.split()} >= ASKS
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before


DEAF_ALONE = """
import multiprocessing, os, signal, subprocess, sys, time
from sdpo.envs.children import ASKS, deaf_alone

signal.pthread_sigmask(signal.SIG_BLOCK, ASKS)
deaf_alone()
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
    os.kill(os.getpid(), number)
started = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
started.terminate()
def sleep(has_begun):
    has_begun.set()
    time.sleep(60)
context = multiprocessing.get_context("fork")
has_begun = context.Event()
forked = context.Process(target=sleep, args=(has_begun,))
forked.start()
has_begun.wait()  # until then Python itself forgets signals that come after a fork
forked.terminate()
forked.join()
print(started.wait(), forked.exitcode)
"""


def test_a_deaf_process_with_other_peoples_code_still_ends_what_that_started() -> None:
    """A process started by one that is deaf to SIGTERM is deaf to it, too: ``terminate`` changes nothing, and ``wait`` lasts."""
    done = subprocess.run([sys.executable, "-P", "-c", DEAF_ALONE], capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout.split() == ["-15", "-15"], done.stderr


HOSTILE = "import os, pathlib; pathlib.Path(__file__).with_suffix('.was_run').touch()\n"
SOUND = """
from sdpo.types import Message, Role, Task, Verdict

class Sound:
    name = "words"

    def tasks(self, split, seed):
        if split not in ("train", "heldout"):
            raise ValueError("train, heldout")
        messages = (Message(role=Role.user, content=f"A word of {split}."),)
        return [Task(id=split, env=self.name, messages=messages, payload=split)]

    def verify(self, task, completion):
        is_right = completion == task.payload
        return Verdict(reward=float(is_right), feedback=None if is_right else f"{len(completion)} letters are not it.")
"""


def test_a_check_runs_nothing_that_lies_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``sdpo envs check`` ran the ``sdpo.py`` and the ``random.py`` of the folder that it was called in."""
    for name in ("sdpo", "random", "pickle"):
        (tmp_path / f"{name}.py").write_text(HOSTILE)
    (tmp_path / "sound.py").write_text(SOUND)
    command = own_module("sdpo.cli", "envs", "check", "sound.py:Sound", "json=true", "tasks=1")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(tmp_path.glob("*.was_run")) == []


def programs(holding: str) -> list[Path]:
    found = (file for folder in ("sdpo", "envs", "conf", "benchmarks") for file in (ROOT / folder).rglob("*.py"))
    return [file for file in found if holding in file.read_text()]


ENDS_OTHERWISE = {
    "envs/sandbox/pool.py": "a fork server ends when its socket closes, and bounds what it runs",
    "sdpo/cluster/ray_node.py": "Ray's node is tied to the main thread, and its own reaper ends the rest",
    "sdpo/forkserver/owner.py": "the servers tie themselves to their owner, and their children to them",
}


def test_every_process_that_is_started_ends_with_the_one_that_starts_it() -> None:
    untied = {
        str(file.relative_to(ROOT)): text.count("subprocess.Popen(") - text.count(".tie(")
        for file in programs("subprocess.Popen(")
        if (text := file.read_text())
    }
    assert {name for name, number in untied.items() if number} == set(ENDS_OTHERWISE)


def test_no_command_of_ours_searches_the_current_folder_for_its_module() -> None:
    """Six did, of those that users start."""
    careless = [
        f"{file.relative_to(ROOT)}:{node.lineno}"
        for file in programs('"-m"')
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.List | ast.Tuple)
        for before, word in pairwise(node.elts)
        if isinstance(word, ast.Constant) and word.value == "-m" and ast.unparse(before) != "'-P'"
    ]
    assert careless == []
