"""Cases spread over processes, one a core; what has been run is kept, so that an interrupted gym goes on."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from queue import Empty, Queue

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tests.learning.runs import Case, Curve

ROOT = Path(__file__).parent.parent.parent


class Pool:
    """Worker processes, each with an engine of its own on a core of its own."""

    def __init__(self, model: Path, folder: Path, num_workers: int | None = None) -> None:
        """``folder`` gets each run's records and ``curves.jsonl``."""
        self._model, self.folder = model, folder
        folder.mkdir(parents=True, exist_ok=True)
        self._curves = folder / "curves.jsonl"
        cores = sorted(os.sched_getaffinity(0))[:num_workers]
        self._done, self._sources = self._kept(), _sources()
        self._workers = [_Worker(core, folder / f"worker-{core}.log") for core in cores]
        self._lock = threading.Lock()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.process.kill()

    def curves(self, what: str, cases: Sequence[Case]) -> list[Curve]:
        """In the order of ``cases``. Raises RuntimeError where a run failed, with the end of its worker's log."""
        missing: Queue[Case] = Queue()
        for case in cases:
            if self._key(case) not in self._done:
                missing.put(case)
        columns = (
            TextColumn(f"{what:40}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
            TextColumn("{task.description}"),
        )  # fmt: skip
        with Progress(*columns, disable=not sys.stderr.isatty()) as progress:
            bar = progress.add_task("", total=missing.qsize())
            failures: list[str] = []

            def work(worker: _Worker) -> None:
                while not failures:
                    try:
                        case = missing.get_nowait()
                    except Empty:
                        return
                    try:
                        curve = worker.run(case, self._model, self.folder / "runs")
                    except RuntimeError as error:
                        failures.append(str(error))
                        return
                    self._keep(case, curve)
                    progress.update(bar, advance=1, description=f"{case.name} seed {case.seed}: {curve.success[-1]:.2f}")
                    if not sys.stderr.isatty():
                        print(f"{what}: {case.name} seed {case.seed}: {curve.success[-1]:.2f}", file=sys.stderr, flush=True)

            threads = [threading.Thread(target=work, args=(worker,), daemon=True) for worker in self._workers]
            for thread in threads:
                thread.start()
            for thread in threads:
                while thread.is_alive():
                    thread.join(0.5)  # so that an interrupt is heard
        if failures:
            raise RuntimeError(failures[0])
        return [self._done[self._key(case)] for case in cases]

    def _key(self, case: Case) -> str:
        """Changes with the case, the model, and any line of the trainer."""
        words = json.dumps([case.name, case.words, case.seed, self._model.name, self._sources])
        return hashlib.sha256(words.encode()).hexdigest()[:16]

    def _keep(self, case: Case, curve: Curve) -> None:
        with self._lock:
            self._done[self._key(case)] = curve
            with self._curves.open("a") as file:
                file.write(json.dumps({"key": self._key(case), **curve.as_dict()}) + "\n")

    def _kept(self) -> dict[str, Curve]:
        if not self._curves.is_file():
            return {}
        rows = [json.loads(line) for line in self._curves.read_text().splitlines() if line.endswith("}")]
        return {row.pop("key"): Curve(**row) for row in rows}


def _sources() -> str:
    """A digest of everything that a run depends on besides its words."""
    files = [file for top in ("sdpo", "conf") for file in sorted((ROOT / top).rglob("*")) if file.suffix in (".py", ".yaml")]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


class _Worker:
    """A process that runs the cases it is handed."""

    def __init__(self, core: int, log: Path) -> None:
        self._log = log
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.learning.runs"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log.open("w"),
            text=True,
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        )

    def run(self, case: Case, model: Path, folder: Path) -> Curve:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        asked = {"name": case.name, "words": case.words, "seed": case.seed, "model": str(model), "folder": str(folder)}
        try:
            self.process.stdin.write(json.dumps(asked) + "\n")
            self.process.stdin.flush()
        except OSError:
            pass  # it has died; its log says why
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{case.name} with seed {case.seed} failed:\n{self._log.read_text(errors='replace')[-3000:]}")
        return Curve(**json.loads(line))
