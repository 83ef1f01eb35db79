"""Processes that are forked instead of started: each is what a new process would have been, and none outlives its caller."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from sdpo.envs.scratch import remove_leftovers
from sdpo.forkserver import owner
from sdpo.forkserver.owner import FOLDER, fork_servers, variables
from sdpo.forkserver.server import address
from sdpo.forkserver.worker_setup import SERVER, forked

KIND = "verifier"
"""The one that imports least."""


@pytest.fixture(scope="module")
def server() -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(FOLDER, raising=False)
        patch.setattr(owner, "_GPU", Path("/no/such/device"))
        with fork_servers((KIND,)):
            found = address(Path(os.environ[FOLDER]), KIND)
            wait_until(found.exists)
            yield found


def wait_until(happened: object, timeout_s: float = 30.0) -> None:
    assert callable(happened)
    until = time.monotonic() + timeout_s
    while not happened():
        assert time.monotonic() < until
        time.sleep(0.01)


def script(folder: Path, text: str) -> str:
    file = folder / "script.py"
    file.write_text(text)
    return str(file)


def test_a_child_has_its_own_arguments_environment_and_folder(server: Path, tmp_path: Path) -> None:
    program = script(
        tmp_path,
        "import json, os, sys\n"
        "has_ray = 'ray' in sys.modules\n"
        "found = [sys.argv[1:], os.environ.get('ONLY_HERE'), 'SDPO_FORK_SERVERS' in os.environ, os.getcwd(), __name__, has_ray]\n"
        "open(sys.argv[1], 'w').write(json.dumps(found))\n",
    )
    environment = {**os.environ, "ONLY_HERE": "yes"}
    environment.pop(FOLDER)
    assert forked(server, [program, str(tmp_path / "said"), "a b"], environment) == 0
    said = (tmp_path / "said").read_text()
    assert said == f'[["{tmp_path}/said", "a b"], "yes", false, "{os.getcwd()}", "__main__", false]'


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("raise SystemExit(7)", 7),
        ("raise SystemExit('a sentence')", 1),
        ("1 / 0", 70),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
        ("import atexit; atexit.register(lambda: open('/dev/null').close())", 0),
    ],
)
def test_how_a_child_ended_is_told(text: str, code: int, server: Path, tmp_path: Path) -> None:
    assert forked(server, [script(tmp_path, text)], dict(os.environ)) == code


def test_a_child_dies_with_the_one_who_asked_for_it(server: Path, tmp_path: Path) -> None:
    program = script(tmp_path, "import os, sys, time\nopen(sys.argv[1], 'w').write(str(os.getpid()))\ntime.sleep(600)\n")
    said = tmp_path / "pid"
    code = "import os, sys\nfrom pathlib import Path\nfrom sdpo.forkserver.worker_setup import forked\n"
    code += "forked(Path(sys.argv[1]), sys.argv[2:], dict(os.environ))"
    asking = subprocess.Popen([sys.executable, "-c", code, str(server), program, str(said)])
    wait_until(lambda: said.exists() and said.read_text())
    child = psutil.Process(int(said.read_text()))
    asking.kill()
    asking.wait()
    child.wait(timeout=10)


def test_a_server_ends_with_its_owner_however_that_ends(tmp_path: Path) -> None:
    code = "import os, time\nfrom sdpo.forkserver.owner import FOLDER, fork_servers\n"
    code += f"with fork_servers(('{KIND}',)):\n    print(os.environ[FOLDER], flush=True)\n    time.sleep(600)\n"
    environment = {name: value for name, value in os.environ.items() if name != FOLDER}
    starting = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)
    assert starting.stdout is not None
    folder = Path(starting.stdout.readline().strip())
    wait_until((folder / "listening").exists)
    servers = psutil.Process(starting.pid).children(recursive=True)
    assert servers
    starting.kill()
    starting.communicate()
    psutil.wait_procs(servers, timeout=10)
    assert not [process for process in servers if process.is_running()]
    remove_leftovers(folder.parent)
    assert not folder.exists(), "the next start removes what a killed one left"


def test_an_environment_that_takes_a_new_process_is_declined(server: Path, tmp_path: Path) -> None:
    """A package that was put on PYTHONPATH after the server had begun was not found by a forked verifier."""
    program = script(tmp_path, "pass")
    assert forked(server, [program], {**os.environ, "PYTHONPATH": str(tmp_path)}) is None
    assert forked(server, [program], dict(os.environ)) == 0


def test_where_no_server_answers_the_caller_is_told(tmp_path: Path) -> None:
    assert forked(tmp_path / "nobody.sock", ["-c", "pass"], {}) is None
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(tmp_path / "dead.sock"))
    assert forked(tmp_path / "dead.sock", ["-c", "pass"], {}) is None


def test_actors_hear_of_servers_only_where_there_are_some(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path))
    assert variables("engine") == {SERVER: str(tmp_path / "engine.sock")}
    assert variables(None) == {}
    monkeypatch.setenv(FOLDER, "")
    assert variables("engine") == {}


def test_there_are_no_servers_beside_a_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Forking after a driver library was loaded has not been tried on one."""
    monkeypatch.delenv(FOLDER, raising=False)
    monkeypatch.setattr(owner, "_GPU", tmp_path)
    with fork_servers():
        assert FOLDER not in os.environ
