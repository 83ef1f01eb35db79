"""A command does not wait for a Ray that is gone, wherever it waits."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue

import psutil
import pytest

from sdpo.cluster import presence
from sdpo.cluster.deaths import full_shared_memory
from sdpo.cluster.presence import Child, Listener, Stranger, listening_at, while_there
from sdpo.errors import MachineError, Stopped, UserError

TITLE = "Ray's raylet on this machine"


@pytest.fixture
def raylet() -> Iterator[subprocess.Popen[bytes]]:
    """Something that lives, in its place."""
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


WAITS: dict[str, Callable[[], object]] = {
    "an event": lambda: threading.Event().wait(60.0),
    "a queue": lambda: SimpleQueue[int]().get(),
    "a thread": lambda: blocked_thread().join(),
    "sleep": lambda: time.sleep(60.0),
}


def blocked_thread() -> threading.Thread:
    thread = threading.Thread(target=time.sleep, args=(60.0,), daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("waits", sorted(WAITS))
def test_the_main_thread_hears_at_once_that_ray_is_gone(raylet: subprocess.Popen[bytes], waits: str) -> None:
    """Killed raylets were waited for without end, a killed control store for a minute, and then nothing was said."""
    threading.Timer(0.2, raylet.kill).start()
    began = time.monotonic()
    with (
        pytest.raises(MachineError, match=rf"^{TITLE} was ended by SIGKILL, and without it no engine .* can go on"),
        while_there([Child(title=TITLE, process=raylet)]),
    ):
        WAITS[waits]()
    assert time.monotonic() - began < 20.0
    assert signal.getsignal(signal.SIGUSR2) is signal.SIG_DFL


def test_an_error_that_ray_s_end_led_to_is_told_as_that(raylet: subprocess.Popen[bytes]) -> None:
    """Else a run says that an engine died, and a restart of the learner waits for a raylet that is gone."""
    raylet.kill()
    with pytest.raises(MachineError, match=TITLE), while_there([Child(title=TITLE, process=raylet)]):
        raise MachineError("engine 0 died")


def test_what_ray_says_a_moment_before_its_end_is_seen_is_told_as_that(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread found the end while the error was looked into, and its interrupt left in the error's place: exit code 130."""
    monkeypatch.setattr(presence, "CHECK_S", 0.05)

    class Late:
        title = TITLE
        ends_at = 0.0

        def end(self) -> str | None:
            return "is gone" if time.monotonic() > self.ends_at else None

    def fail() -> None:
        time.sleep(0.1)
        raise RuntimeError("a call of Ray failed")

    for _ in range(20):
        part = Late()
        part.ends_at = time.monotonic() + 0.12
        with pytest.raises(MachineError, match=TITLE), while_there([part]):
            fail()


def test_a_signal_of_somebody_else_interrupts_nothing(raylet: subprocess.Popen[bytes]) -> None:
    with while_there([Child(title=TITLE, process=raylet)]):
        os.kill(os.getpid(), signal.SIGUSR2)
        time.sleep(0.1)


def test_other_errors_stay_what_they_are(raylet: subprocess.Popen[bytes]) -> None:
    for error in (UserError("a key"), MachineError("a rank"), Stopped(15), KeyboardInterrupt()):
        with pytest.raises(type(error)) as raised, while_there([Child(title=TITLE, process=raylet)]):
            raise error
        assert raised.value is error


def test_a_block_that_ends_well_is_not_interrupted_afterwards(raylet: subprocess.Popen[bytes]) -> None:
    with while_there([Child(title=TITLE, process=raylet)]):
        pass
    raylet.kill()
    time.sleep(2.5 * presence.CHECK_S)


STUCK = f"""
import signal, sys, threading, time
from sdpo.cluster import presence
presence.PRESS_S = 0.1
class Gone:
    title = "{TITLE}"
    def end(self): return "is gone"
with presence.while_there([Gone()]):
    signal.pthread_sigmask(signal.SIG_BLOCK, {{signal.SIGUSR2}})
    time.sleep(60)
"""


def test_a_process_that_does_not_hear_it_is_ended_with_the_sentence() -> None:
    ended = subprocess.run([sys.executable, "-P", "-c", STUCK], capture_output=True, text=True, check=False, timeout=120)
    assert ended.returncode == 1
    assert ended.stderr == (
        f"error: {TITLE} is gone, and without it no engine and no rank of the learner can go on.\n"
        "The last checkpoint stands; the same command continues from it.\n"
    )


def test_a_stranger_is_gone_when_it_is_and_as_a_zombie(raylet: subprocess.Popen[bytes]) -> None:
    stranger = Stranger(title=TITLE, process=psutil.Process(raylet.pid))
    assert stranger.end() is None
    raylet.kill()
    os.waitid(os.P_PID, raylet.pid, os.WEXITED | os.WNOWAIT)  # it stays a zombie
    assert stranger.end() == "is gone"


def test_a_control_store_elsewhere_may_be_away_for_a_while() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        store = Listener(title="store", address=server.getsockname()[:2], patience_s=0.3)
        assert store.end() is None
    assert store.end() is None
    time.sleep(0.4)
    assert store.end() == "has refused connections for 0 s"


def test_who_listens_at_a_socket_is_known_without_asking_it(tmp_path: Path) -> None:
    place = str(tmp_path / "raylet")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(place)
        server.listen()
        found = listening_at(place)
        assert found is not None
        assert found.pid == os.getpid()
    assert listening_at(place) is None


def test_full_shared_memory_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The raylet dies of it by SIGBUS, which says nothing."""
    usage = type(shutil.disk_usage("/"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(2**34, 2**34 - 2**20, 2**20))
    assert full_shared_memory(Path("/dev/shm")) == (
        "/dev/shm is full (1 MiB of 16.0 GiB are free), and Ray's object store lies there: free it, enlarge it, or lower "
        "cluster.object_store_gib"
    )
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(2**34, 2**33, 2**33))
    assert full_shared_memory(Path("/dev/shm")) is None
