"""A real Slurm of two nodes on this machine, in a folder of its own, without accounting and without anybody's configuration."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "squeue", "srun")


def reason_against() -> str | None:
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        return f"a Slurm needs {', '.join(missing)} (apt-get install slurm-wlm munge)"
    return None if os.geteuid() == 0 else "a Slurm whose nodes start jobs needs root"


CONFIG = """\
ClusterName=sdpo
SlurmctldHost=localhost(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmctldPort={ports[0]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SwitchType=switch/none
MpiDefault=none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
JobRequeue=1
KillWait=10
SlurmdParameters=config_overrides
NodeName=n1 NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1 State=UNKNOWN
NodeName=n2 NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1 State=UNKNOWN
PartitionName=all Nodes=n[1-2] Default=YES MaxTime=INFINITE State=UP
"""


@contextmanager
def slurm(folder: Path) -> Iterator[dict[str, str]]:
    """The environment in which its commands reach it."""
    (folder / "state").mkdir(parents=True)
    key = folder / "key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    probes = [socket.socket() for _ in range(3)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    config = folder / "slurm.conf"
    config.write_text(CONFIG.format(folder=folder, ports=ports))
    environment = {**os.environ, "SLURM_CONF": str(config)}
    files = {"key-file": key, **{name: folder / f"munge.{name}" for name in ("socket", "pid-file", "log-file", "seed-file")}}
    daemons = [["munged", "--foreground", "--force", *(f"--{name}={file}" for name, file in files.items())]]
    daemons += [["slurmctld", "-D"], ["slurmd", "-D", "-N", "n1"], ["slurmd", "-D", "-N", "n2"]]
    started: list[subprocess.Popen[bytes]] = []
    try:
        with (folder / "daemons.log").open("w") as log:
            for words in daemons:
                started.append(subprocess.Popen(words, env=environment, stdout=log, stderr=log, start_new_session=True))
                time.sleep(0.5)
        until = time.monotonic() + 30.0
        while asked(environment, "sinfo", "-h", "-t", "idle", "-o", "%D") != "2":
            assert time.monotonic() < until, (folder / "daemons.log").read_text()
            time.sleep(0.5)
        yield environment
    finally:
        asked(environment, "scancel", "--user=root")
        until = time.monotonic() + 60.0  # else their srun outlives the rest
        while asked(environment, "squeue", "-h") and time.monotonic() < until:
            time.sleep(0.5)
        for process in reversed(started):
            process.terminate()
        for process in reversed(started):
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def asked(environment: dict[str, str], *words: str) -> str:
    """What a command of Slurm's says."""
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60, check=False).stdout.strip()
