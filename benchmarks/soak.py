"""Does a long run outlive everything that dies in it, and does it leak?

``sdpo train`` on a tiny model with two engines, two learner ranks and two verifiers. Every few steps, at a random moment,
something is done to it:

- a process is killed or stopped: an engine, both engines, a verifier, a rank of the learner, or the run's own process, after
  whose death the same command is given again;
- likewise, and the newest checkpoint is damaged in between: a byte flipped, or a file cut off;
- the shared memory in which Ray's object store lies is filled for some seconds. It is the run's own, a mount of 700 MiB; where
  this process may not mount one, that is left out.

At the end every step must be there once, with exactly its attempts, all sampled by the weights of the step before. Every damaged
checkpoint must have been named, and no process may be left. The memory of driver, engines and learner (what each has for itself)
in the last fifth of the steps is compared with that in the second fifth.

Prints a table and ends in a line of JSON; the exit code is 1 where something of the above does not hold.

    python benchmarks/soak.py [--steps 300] [--every 10] [--seed 0] [--folder runs/soak] [--json results.json]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from sdpo.envs.children import Lifeline  # noqa: E402
from sdpo.run.logs import processes  # noqa: E402
from tests.tiny import write_tiny_model  # noqa: E402

FAULTS = {
    "engine killed": ("engine", signal.SIGKILL),
    "engine stopped": ("engine", signal.SIGSTOP),
    "both engines killed": ("engines", signal.SIGKILL),
    "verifier killed": ("verifier", signal.SIGKILL),
    "verifier stopped": ("verifier", signal.SIGSTOP),
    "learner rank killed": ("learner", signal.SIGKILL),
    "learner rank stopped": ("learner", signal.SIGSTOP),
    "driver killed": ("driver", signal.SIGKILL),
    "newest checkpoint flipped": ("driver", signal.SIGKILL),
    "newest checkpoint cut off": ("driver", signal.SIGKILL),
    "shared memory full": ("driver", None),
}
"""Who is struck, and by which signal."""
DAMAGES = {"newest checkpoint flipped": "flip", "newest checkpoint cut off": "cut"}
"""Faults after which the newest checkpoint is damaged before the command is given again."""
FULL_S = 20.0
"""Longest that shared memory stays full."""
MOST_SHARED = 700 * 2**20
"""Bytes of it."""
OWN_SHARED = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o size=700m tmpfs /dev/shm && exec "$@"', "sh")
"""Words before a command that becomes it, with a /dev/shm of its own."""
ATTEMPTS = 16
RECOVERY = re.compile(r"(engine) \d+ is back.*, ([0-9.]+) s after|the (learner) was rebuilt in ([0-9.]+) s")
MEMORY_GROWTH = 0.05


@dataclass
class Run:
    """The command, as often as it takes."""

    folder: Path
    words: list[str]
    lines: list[str] = field(default_factory=list)
    num_starts: int = 0
    before: tuple[str, ...] = ()
    """Words before the command, which become it."""
    num_damaged: int = 0
    """Checkpoints that were damaged."""

    def start(self) -> None:
        self.num_starts += 1
        line = Lifeline()  # open as long as this process is there
        self.process = subprocess.Popen(
            [*self.before, sys.executable, "-P", "-m", "sdpo.cli", "train", *self.words],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True, cwd=ROOT,
            env={**os.environ, "COLUMNS": "200", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}, pass_fds=line.pass_fds,
        )  # fmt: skip
        line.tie(self.process)
        threading.Thread(target=self._read, args=(self.process,), daemon=True).start()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self.lines.append(line)

    @property
    def num_named(self) -> int:
        """Damaged checkpoints that it has named."""
        return sum(" is damaged: " in line for line in self.lines)

    @property
    def shared(self) -> Path:
        """Its /dev/shm, as this process sees it."""
        return Path(f"/proc/{self.process.pid}/root/dev/shm")

    @property
    def newest(self) -> Path | None:
        """Its newest checkpoint."""
        found = [path for path in (self.folder / "checkpoints").glob("step_*") if path.name.removeprefix("step_").isdigit()]
        return max(found, key=lambda path: int(path.name.removeprefix("step_")), default=None)

    @property
    def steps(self) -> list[int]:
        file = self.folder / "metrics.jsonl"
        if not file.is_file():
            return []
        return [json.loads(line)["step"] for line in file.read_text().splitlines() if line.endswith("}")]

    def pids(self, role: str) -> list[int]:
        """Of the role's living processes, by the log they write."""
        if role == "driver":
            return [self.process.pid] if self.process.poll() is None else []
        found = []
        for pid in processes(self.folder / "logs"):
            with suppress(OSError):
                if Path(os.readlink(f"/proc/{pid}/fd/1")).name.startswith(role):
                    found.append(pid)
        return found

    def strays(self) -> list[int]:
        """What is left of the run, in any of its sessions."""
        alive = [*processes(self.folder / "logs")]
        return [pid for pid in alive if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]


def own_memory(pid: int) -> int | None:
    """Bytes that a process has for itself."""
    try:
        info = psutil.Process(pid).memory_info()
    except psutil.Error:
        return None
    return int(info.rss - info.shared)


def fill_shared(run: Run) -> None:
    """Take what is free in the run's shared memory, until it ends or ``FULL_S`` are over."""
    with suppress(OSError), (run.shared / "filler").open("wb") as filler:  # it may end at any time
        size = 0
        for num_bytes in (2**20, 2**12):
            with suppress(OSError):
                while size < MOST_SHARED:
                    os.posix_fallocate(filler.fileno(), size, num_bytes)
                    size += num_bytes
    until = time.monotonic() + FULL_S
    while run.process.poll() is None and time.monotonic() < until:
        time.sleep(0.2)
    with suppress(OSError):
        (run.shared / "filler").unlink()


def damage(run: Run, name: str, chance: random.Random) -> bool:
    """Damage the newest of several checkpoints once nobody writes. Returns whether there was one."""
    run.process.wait()
    until = time.monotonic() + 60.0
    while run.strays() and time.monotonic() < until:
        time.sleep(0.2)
    if run.newest is None or len(list((run.folder / "checkpoints").glob("step_*[0-9]"))) < 2:
        return False
    file = chance.choice(sorted(run.newest.glob("*.safetensors")))
    if DAMAGES[name] == "cut":
        os.truncate(file, file.stat().st_size // 2)
    else:
        place = chance.randrange(file.stat().st_size)
        with file.open("r+b") as stream:
            stream.seek(place)
            (byte,) = stream.read(1)
            stream.seek(place)
            stream.write(bytes([byte ^ 0xFF]))
    run.num_damaged += 1
    return True


def strike(run: Run, name: str, chance: random.Random) -> bool:
    """Whether there was somebody to strike."""
    role, number = FAULTS[name]
    if name in DAMAGES and run.num_named < run.num_damaged:
        return False  # the last one is still the newest, and would be damaged twice
    if number is None:
        if not run.before:
            return False
        fill_shared(run)
        return True
    pids = run.pids("engine" if role == "engines" else role)
    if not pids or (role == "engines" and len(pids) < 2):
        return False
    for pid in pids if role == "engines" else [chance.choice(pids)]:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
    return damage(run, name, chance) if name in DAMAGES else True


Memory = dict[str, dict[int, float]]
"""Bytes of the role's largest process, by role and step."""


def soak(run: Run, num_steps: int, every: int, chance: random.Random, screen: Console) -> tuple[Counter[str], Memory]:
    """Until the command ends by itself: the faults that were made, and each role's memory by step."""
    faults: Counter[str] = Counter()
    memory: Memory = defaultdict(dict)
    names = [name for name, (_, number) in FAULTS.items() if number is not None or run.before]
    num_lines = 0
    """Lines that were there when the command was given last."""
    next_fault, last = every, 0
    run.start()
    while True:
        time.sleep(0.2)
        if run.process.poll() is not None:
            if run.process.returncode == 0:
                return faults, memory
            lost_shared = run.process.returncode == 1 and any("/dev/shm is full" in line for line in run.lines[num_lines:])
            if run.process.returncode != -signal.SIGKILL and not lost_shared:
                raise SystemExit(f"the run ended with exit code {run.process.returncode}:\n{''.join(run.lines[-40:])}")
            num_lines = len(run.lines)
            run.start()
        step = max(run.steps, default=0)
        if step != last:
            last = step
            for role in ("driver", "engine", "learner"):
                sizes = [size for pid in run.pids(role) if (size := own_memory(pid)) is not None]
                if sizes:
                    memory[role][step] = max(sizes)  # one that has just begun has less
        if step >= next_fault and next_fault < num_steps:
            time.sleep(chance.uniform(0.0, 2.0))
            name = names[sum(faults.values()) % len(names)]
            if strike(run, name, chance):
                faults[name] += 1
                next_fault += every
                screen.print(f"step {step}: {name}", highlight=False)


def growth(sizes: dict[int, float], num_steps: int) -> float | None:
    """Of the median, from the second fifth of the steps to the last; None where nothing was measured in one of them."""
    early = [size for step, size in sizes.items() if num_steps / 5 <= step < 2 * num_steps / 5]
    late = [size for step, size in sizes.items() if step >= 4 * num_steps / 5]
    return statistics.median(late) / statistics.median(early) - 1.0 if early and late else None


def complaints(run: Run, num_steps: int) -> list[str]:
    """What should be and is not."""
    found = []
    if run.num_named != run.num_damaged:
        found.append(f"{run.num_named} damaged checkpoints were named, of {run.num_damaged}")
    if run.steps != list(range(1, num_steps + 1)):
        found.append(f"steps are missing, or there twice: {run.steps}")
    for step in range(1, num_steps + 1):
        lines = (run.folder / "rollouts" / f"step_{step:06d}.jsonl").read_text().splitlines()
        attempts = [json.loads(line) for line in lines]
        if len(attempts) != ATTEMPTS:
            found.append(f"step {step} has {len(attempts)} attempts")
        if any(attempt.get("weights_version", step - 1) != step - 1 for attempt in attempts):
            found.append(f"step {step} learned from other weights' attempts")
    until = time.monotonic() + 30.0
    while (left := run.strays()) and time.monotonic() < until:
        time.sleep(0.5)
    if left:
        found.append(f"processes are left: {left}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--every", type=int, default=10, help="steps between faults")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=None, help="a new one; default: a temporary one")
    parser.add_argument("--json", type=Path, help="also write everything here")
    options = parser.parse_args()
    screen = Console(width=110)
    folder = options.folder or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    model = write_tiny_model(folder / "model")
    words = [
        f"model.path={model}", "model.name=tiny", "env=custom", f"env.name={ROOT / 'tests' / 'letters.py'}:Letters",
        f"runs_dir={folder}", "name=soak", f"num_steps={options.steps}", "batch.num_tasks=4", "batch.group_size=4",
        "batch.micro_batch_tokens=600", "sampling.max_prompt_tokens=100", "sampling.max_response_tokens=8",
        "algorithm.hindsight.max_prompt_tokens=300", "algorithm.support.num_ids=20", "evaluation.num_tasks=0",
        "learner.lr=1e-4", "rollout.dtype=float32", "learner.dtype=float32", "rollout.kv_cache_gib=1",
        "cluster.object_store_gib=0.5", "rollout.num_engines=2", "learner.num_ranks=2", "rollout.silence_s=15",
        "rollout.verify_timeout_s=5", "learner.timeout_s=60", "tracking.quiet=true", "tracking.tensorboard=false",
        "algorithm.on_low_lift=ignore", "checkpoint.keep=3",
    ]  # fmt: skip
    may_mount = subprocess.run([*OWN_SHARED, "true"], capture_output=True, check=False).returncode == 0
    run = Run(folder / "soak", words, before=OWN_SHARED if may_mount else ())
    began = time.monotonic()
    try:
        faults, memory = soak(run, options.steps, options.every, random.Random(options.seed), screen)
    finally:
        if run.process.poll() is None:
            os.killpg(run.process.pid, signal.SIGKILL)
    took_s = time.monotonic() - began
    found = complaints(run, options.steps)
    recovered: dict[str, list[float]] = defaultdict(list)
    for line in run.lines:
        match = RECOVERY.search(line)
        if match:
            recovered[match[1] or match[3]].append(float(match[2] or match[4]))
    grown = {role: round(by, 4) for role, sizes in memory.items() if (by := growth(sizes, options.steps)) is not None}
    found += [f"the memory of {role} grew by {by:.1%}" for role, by in grown.items() if by > MEMORY_GROWTH]
    table = Table(title=f"{options.steps} steps, {sum(faults.values())} faults, {took_s / 60:.1f} min")
    table.add_column("fault")
    table.add_column("times", justify="right")
    for name in FAULTS:
        table.add_row(name, str(faults[name]))
    screen.print(table)
    for sentence in found:
        screen.print(f"NOT AS IT SHOULD BE: {sentence}", highlight=False)
    figures = {
        "steps": len(run.steps), "faults": dict(faults), "wall_s": round(took_s), "num_starts": run.num_starts,
        "recovery_s": {
            who: {"num": len(seconds), "median": statistics.median(seconds), "max": max(seconds)}
            for who, seconds in recovered.items()
        },
        "memory_growth": grown,
        "memory_mib": {
            role: [round(size / 2**20) for _, size in sorted(sizes.items())][:: options.every] for role, sizes in memory.items()
        },
        "not_as_it_should_be": found,
    }  # fmt: skip
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
