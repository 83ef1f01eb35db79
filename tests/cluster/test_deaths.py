"""What killed a process is told where it was want of memory, and not where it was something else."""

from __future__ import annotations

from pathlib import Path

import pytest
from ray.exceptions import ActorDiedError, OutOfMemoryError

from sdpo.cluster import deaths
from sdpo.cluster.deaths import Death, death, num_memory_kills

REPORT = """1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 192.0.2.2, ID: 64284b09) was \
22.40GB used / 23.54GB limit (0.951572)
OOM kill reason: Memory usage 24051816857B exceeded threshold of 24012260556B (95.0% of 25276063744B limit)
Object store memory usage: [- objects spillable: 0
- bytes spillable: 0
(global lru) capacity: 214748365
(global lru) used: 0%]
Ray killed 1 worker(s) based on the killing policy
Considered workers: [
Selected to kill: (Actor(c14c0e30): job ID=01000000, lease ID=00000000, task name=A.__init__, required resources={}, pid=471, \
actual memory used=9.99GB, worker ID=2168f75f)
Selected to kill: (Actor(c14c0e31): job ID=01000000, lease ID=00000001, task name=A.__init__, required resources={}, pid=4711, \
actual memory used=6.12GB, worker ID=2168f75e)
]
Top 10 memory users: PID\tMEM(GB)\tCOMMAND
13466\t0.40\t.venv/bin/python
"""
"""What Ray 2.60 says, shortened."""


def machine(root: Path, *, vmstat: str = "", group: str = "0::/", events: dict[str, str] | None = None) -> Path:
    files = {"proc/vmstat": vmstat, "proc/self/cgroup": group, **(events or {})}
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_the_kernel_s_kills_are_counted_in_the_own_group_where_it_has_a_counter(tmp_path: Path) -> None:
    group = "sys/fs/cgroup/jobs/7/memory.events"
    counted = {group: "low 0\noom 4\noom_kill 3\noom_group_kill 0\n"}
    found = machine(tmp_path, vmstat="pgfault 5\noom_kill 41\n", group="0::/jobs/7\n", events=counted)
    assert num_memory_kills(found) == 3
    (tmp_path / group).unlink()
    assert num_memory_kills(found) == 41
    assert num_memory_kills(tmp_path / "nowhere") == 0


def test_a_kill_by_ray_s_monitor_is_told_with_its_figures() -> None:
    """It was called "rank 0 of the learner died", and the run began the step again until it had no more restarts."""
    how = death(OutOfMemoryError(REPORT), pid=4711, num_kills_before=0)
    assert how == Death(words="was killed by Ray's memory monitor (95 % of 23.5 GiB used; it held 6.1 GiB)", is_for_memory=True)
    assert death(OutOfMemoryError("killed"), pid=None, num_kills_before=0).words == "was killed by Ray's memory monitor"


def test_a_kill_by_the_kernel_is_known_by_its_counter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deaths, "num_memory_kills", lambda: 8)
    how = death(ActorDiedError(), pid=1, num_kills_before=7)
    assert how.is_for_memory
    assert how.words.startswith("was killed by the kernel, which had no memory left")
    assert death(ActorDiedError(), pid=1, num_kills_before=8) == Death(words="died")


def test_a_death_where_shared_memory_is_full_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rank that writes weights there is ended by SIGBUS: "rank 0 of the learner died"."""
    monkeypatch.setattr(deaths, "full_shared_memory", lambda: "/dev/shm is full")
    assert death(ActorDiedError(), pid=1, num_kills_before=10**9) == Death(words="died, and /dev/shm is full")
