"""Two machines on this one: network namespaces with an address each, and the command started on both as srun would."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import psutil


def reason_against() -> str | None:
    """Why there can be none here; None: there can."""
    if shutil.which("ip") is None:
        return "network namespaces need iproute2's ip"
    name = f"sdpo-try-{os.getpid()}"
    tried = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if tried.returncode:
        return f"network namespaces need more rights than this user has: {tried.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", name], check=True)
    return None


@dataclass(frozen=True)
class Machines:
    """Namespaces on one bridge. Their names, interfaces and addresses are this process's own."""

    number: int

    def name(self, index: int) -> str:
        return f"sdpo{self.number}-{index}"

    def address(self, index: int) -> str:
        return f"10.213.{self.number}.{index + 1}"

    def link(self, index: int) -> str:
        """The end of its cable that is here."""
        return f"sd{self.number}v{index}"

    def of(self, pid: int) -> int:
        """Where a process lives."""
        there = os.stat(f"/proc/{pid}/ns/net").st_ino
        return [os.stat(f"/run/netns/{self.name(index)}").st_ino for index in range(2)].index(there)

    def cut(self, index: int) -> None:
        """Its cable; its processes go on."""
        _ip("link", "set", self.link(index), "down")

    def start(self, index: int, words: Sequence[str], *, job: int) -> subprocess.Popen[str]:
        """The command on one of them, as a task of the job."""
        return subprocess.Popen(
            ["ip", "netns", "exec", self.name(index), sys.executable, "-m", "sdpo.cli", "train", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env={
                **os.environ,
                "COLUMNS": "200",
                "SLURM_JOB_ID": str(job),
                "SLURM_STEP_ID": "0",
                "SLURM_STEP_NODELIST": f"10.213.{self.number}.[1-2]",
                "SLURM_STEP_NUM_TASKS": "2",
                "SLURM_NODEID": str(index),
            },
        )


@contextmanager
def machines() -> Iterator[Machines]:
    found = Machines(os.getpid() % 250 + 1)
    bridge = f"sdbr{found.number}"
    try:
        _ip("link", "add", bridge, "type", "bridge")
        _ip("link", "set", bridge, "up")
        for index in range(2):
            name, link = found.name(index), found.link(index)
            _ip("netns", "add", name)
            _ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", name)
            _ip("link", "set", link, "master", bridge, "up")
            _ip("-n", name, "addr", "add", f"{found.address(index)}/24", "dev", "eth0")
            _ip("-n", name, "link", "set", "eth0", "up")
            _ip("-n", name, "link", "set", "lo", "up")
        yield found
    finally:
        for index in range(2):
            subprocess.run(["ip", "netns", "del", found.name(index)], capture_output=True, check=False)
        subprocess.run(["ip", "link", "del", bridge], capture_output=True, check=False)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def raylet(folder: str) -> psutil.Process:
    """Of the node whose temporary folder's path begins so."""
    (found,) = [
        process
        for process in psutil.process_iter(["name", "cmdline"])
        if process.info["name"] == "raylet" and any(folder in word for word in process.info["cmdline"] or [])
    ]
    return found
