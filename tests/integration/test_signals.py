"""A run that is asked to end, by whom and whenever: as docs/reliability.md says, and with it ends all that it started."""

from __future__ import annotations

import os
import pty
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import ray

from sdpo.envs.children import ASKS, Lifeline, own_module
from sdpo.forkserver.owner import FOLDER
from tests import letters
from tests.integration.conftest import LETTERS, Trainer
from tests.session import RAY

pytestmark = [pytest.mark.integration]
SLOW = LETTERS.replace(":Letters", ":Thoughtful")
"""Sixteen attempts of a step are judged in some seconds."""
SLOWING = """
import time
from pathlib import Path
from letters import Letters

class Slowing(Letters):
    def verify(self, task, completion):
        time.sleep(1.5 if Path(__file__).with_suffix(".now").exists() else 0.0)
        return super().verify(task, completion)
"""
"""A run whose steps are short is quick enough to win against whatever dies."""
MARKER = "SDPO_TEST_OF_SIGNALS"


def words(trainer: Trainer, *more: str) -> list[str]:
    return trainer.words("num_steps=50", "evaluation.num_tasks=0", *more, env=SLOW)


def wait_until(happened: Callable[[], bool], process: subprocess.Popen[str], timeout_s: float = 300.0) -> None:
    until = time.monotonic() + timeout_s
    while not happened():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.05)


def is_left(marker: str) -> list[list[str]]:
    """Command lines of processes that were started by a command with this marker, and live."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARKER) == marker and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.cmdline()[:4])
        except psutil.Error:
            continue
    return found


def check_all_is_over(marker: str) -> None:
    until = time.monotonic() + 30.0
    while (left := is_left(marker)) and time.monotonic() < until:
        time.sleep(0.5)
    assert left == []


def check_last_step_is_kept(trainer: Trainer, said: str, number: signal.Signals) -> None:
    last = int(trainer.rows()[-1]["step"])
    assert (trainer.runs / "run" / "checkpoints" / f"step_{last:06d}" / "learner.json").is_file(), said + trainer.logs()
    assert f"Stopped by {number.name} after a checkpoint; the same command continues." in said, said


def test_a_signal_to_the_whole_group_in_a_step_costs_no_checkpoint(trainer: Trainer, tmp_path: Path) -> None:
    """``timeout`` sends SIGTERM to its child and to the child's group. Ray's processes stood in that and died: the run said that
    it would stop after this step, hung for a minute and ended with exit code 1."""
    shutil.copy(letters.__file__, tmp_path)  # a command that starts from nothing knows no package of tests
    (tmp_path / "slowing.py").write_text(SLOWING)
    process = trainer.start_from_nothing(words(trainer, f"env.name={tmp_path / 'slowing.py'}:Slowing"), **{MARKER: "group"})
    assert os.getpgid(process.pid) == process.pid
    wait_until((trainer.runs / "run" / "checkpoints" / "step_000001").is_dir, process)
    (tmp_path / "slowing.now").touch()
    time.sleep(4.0)  # some verdicts of the step under way were quick; those of this one or the next take twelve seconds
    os.kill(process.pid, signal.SIGTERM)
    os.killpg(process.pid, signal.SIGTERM)
    said, _ = process.communicate(timeout=200)
    assert process.returncode == 128 + signal.SIGTERM, said + trainer.logs()
    check_last_step_is_kept(trainer, said, signal.SIGTERM)
    assert "stopping after this step" in said
    assert len(trainer.rows()) >= 2
    check_all_is_over("group")


class Present:
    def processes(self) -> tuple[int, int]:
        """Of this actor and of what started it."""
        return os.getpid(), os.getppid()


@pytest.mark.usefixtures("ray_cluster")
def test_rays_processes_have_sessions_of_their_own_are_deaf_and_listen_at_loopback_alone() -> None:
    """They stood in the command's group, and listened at all addresses without a token."""
    assert os.environ[RAY].startswith("127.0.0.1:")
    actor = ray.remote(Present).options(num_cpus=0).remote()
    own, raylet = ray.get(actor.processes.remote())
    node = psutil.Process(raylet).parent()
    assert node is not None
    of_ray = [process for process in node.children() if process.name() in ("raylet", "gcs_server")]
    assert {process.name() for process in of_ray} == {"raylet", "gcs_server"}
    for process in of_ray:
        assert os.getsid(process.pid) == os.getpgid(process.pid) == process.pid
    family = [*of_ray, *psutil.Process(raylet).children(recursive=True)]
    assert own in {process.pid for process in family}
    for process in family:
        assert blocked(process.pid) >= ASKS, process.cmdline()
        addresses = {connection.laddr.ip for connection in process.net_connections("inet") if connection.status == "LISTEN"}
        assert addresses <= {"127.0.0.1", "::ffff:127.0.0.1"}, process.cmdline()
    ray.kill(actor)


def blocked(pid: int) -> set[int]:
    """Numbers of the signals that the first thread of a process has blocked (proc(5))."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigBlk:"))
    bits = int(line.split()[1], 16)
    return {number for number in range(1, 65) if bits >> (number - 1) & 1}


def has_log(trainer: Trainer, name: str) -> Callable[[], bool]:
    return lambda: any((trainer.runs / "run" / "logs").glob(name))


@pytest.mark.full
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
@pytest.mark.parametrize("moment", ["start", "evaluation", "step", "update"])
@pytest.mark.parametrize("to_group", [False, True], ids=["alone", "group"])
def test_a_run_ends_as_the_docs_say_whenever_it_is_asked_to(
    moment: str, number: signal.Signals, to_group: bool, trainer: Trainer
) -> None:
    """``make test`` has one of these, above."""
    evaluates = ("evaluation.num_tasks=26", "evaluation.num_attempts=8") if moment == "evaluation" else ()
    marker = f"{moment}-{number}-{to_group}"
    process = trainer.start_from_nothing(words(trainer, *evaluates), **{MARKER: marker})
    run = trainer.runs / "run"
    if moment == "start":
        wait_until(run.is_dir, process)
    elif moment == "evaluation":
        wait_until(has_log(trainer, "verifier.log"), process)
        time.sleep(8.0)
    elif moment == "step":
        wait_until((run / "checkpoints" / "step_000001").is_dir, process)
    else:
        wait_until((run / "rollouts" / "step_000001.jsonl").is_file, process)
    (os.killpg if to_group else os.kill)(process.pid, number)
    began = time.monotonic()
    said, _ = process.communicate(timeout=200)
    assert process.returncode == 128 + number, said + trainer.logs()
    if moment in ("start", "evaluation") or number == signal.SIGQUIT:
        assert f"stopped at once by {number.name}; the last checkpoint stands" in said
        assert time.monotonic() - began < 60.0
    else:
        check_last_step_is_kept(trainer, said, number)
    check_all_is_over(marker)


@pytest.mark.full
def test_a_second_request_of_a_person_ends_a_step_at_once(trainer: Trainer) -> None:
    process = trainer.start_from_nothing(words(trainer, "batch.group_size=64"), **{MARKER: "twice"})
    wait_until((trainer.runs / "run" / "checkpoints" / "step_000001").is_dir, process)
    process.send_signal(signal.SIGINT)
    time.sleep(1.5)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=100)
    assert process.returncode == 130, said
    assert "stopped at once by SIGINT; the last checkpoint stands" in said
    check_all_is_over("twice")


def read(terminal: int) -> bytes:
    """What was written to it in the next moment; nothing where nobody has its other end open."""
    if select.select([terminal], [], [], 0.05)[0]:
        with suppress(OSError):
            return os.read(terminal, 65536)
        time.sleep(0.05)
    return b""


@pytest.mark.full
@pytest.mark.parametrize("how", ["Ctrl-C", "closed", "nohup"])
def test_a_terminal_ends_a_run_after_its_step(how: str, trainer: Trainer) -> None:
    """Closing it cost the checkpoint: the run died of the line that said it would stop."""
    ours, theirs = pty.openpty()
    environment = {key: value for key, value in os.environ.items() if key != FOLDER}
    command = own_module(
        "sdpo.cli", "train", *(word for word in words(trainer, "num_steps=4") if not word.startswith("cluster.address="))
    )
    with Lifeline() as line:
        process = subprocess.Popen(
            ["setsid", "--ctty", *(["nohup"] if how == "nohup" else []), *command, "cluster.object_store_gib=0.5"],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            text=True,
            env={**environment, "TERM": "xterm", MARKER: how},
            cwd=trainer.runs.parent,  # for nohup.out
            pass_fds=line.pass_fds,
        )
        line.tie(process)
        os.close(theirs)
        seen = b""
        while not (trainer.runs / "run" / "checkpoints" / "step_000001").is_dir():
            assert process.poll() is None, seen
            seen += read(ours)
        if how == "Ctrl-C":
            os.write(ours, b"\x03")
            while process.poll() is None:
                seen += read(ours)
        os.close(ours)
        code = process.wait(timeout=200)
    last = int(trainer.rows()[-1]["step"])
    assert (trainer.runs / "run" / "checkpoints" / f"step_{last:06d}").is_dir()
    assert (code, last == 4) == {"Ctrl-C": (130, False), "closed": (129, False), "nohup": (0, True)}[how], seen
    check_all_is_over(how)
