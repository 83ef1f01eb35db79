"""What does a verdict on untrusted code cost: a warm fork server against a plain interpreter for every test?

The work is what the code environment does: answers to its own tasks (the references, every third of them broken), each judged by
all the tests of its task.

- sandbox: ``Code().verify``, one or two walled-in executions a verdict, under each isolation that the machine gives;
- subprocess: what one writes first, ``python -c`` for every test, the answer and one call in it, output compared. No walls.

The ways take turns. One worker, so verdicts a second are those of one core; the fork servers' own start is not counted.
Percentiles are over verdicts; the keys of the last line are those of the strongest isolation.

    python benchmarks/sandbox.py [--verdicts 300] [--repeats 3]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table

from sdpo.envs import sandbox
from sdpo.envs.base import Task
from sdpo.envs.code import Code
from sdpo.envs.code.problem import load_problems
from sdpo.envs.code.trials import FunctionTests, Trial, call_text
from sdpo.envs.sandbox import Isolation, Settings


@dataclass(frozen=True, slots=True)
class Answer:
    """What is judged."""

    task: Task
    source: str
    is_right: bool


@dataclass(slots=True)
class Way:
    """One way of judging, and how long its verdicts took."""

    name: str
    judge: Callable[[Answer], bool]
    seconds: list[float] = field(default_factory=list)
    totals: list[float] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--verdicts", type=int, default=300, help="of the sandbox a repeat; the plain way judges every tenth of them"
    )
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    console = Console()
    console.print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}", highlight=False)
    answers = some_answers(asked.verdicts)
    reasons = sandbox.reasons_against()
    ways = [Way(kind.value, judge_in_sandbox) for kind, reason in reasons.items() if not reason and kind is not Isolation.weak]
    for kind, reason in reasons.items():
        if reason:
            console.print(f"not measured: {kind.value} ({reason})", highlight=False)
    if not ways:
        raise SystemExit("no isolation that this machine gives is strong enough; see sdpo doctor")
    plain = Way("subprocess", judge_plainly)
    for _ in range(asked.repeats):
        for way in ways:
            sandbox.use(Settings(isolation=Isolation(way.name)))
            sandbox.isolation()  # the first server is up
            measure(way, answers)
        measure(plain, answers[::10])
    table = Table("way", "verdicts/s per core (range)", "median ms", "p99 ms", "verdicts")
    for way in (*ways, plain):
        rates = sorted(len(way.seconds) / asked.repeats / total for total in way.totals)
        quantiles = statistics.quantiles(way.seconds, n=100)
        table.add_row(
            way.name,
            f"{statistics.median(rates):.1f} ({rates[0]:.1f}–{rates[-1]:.1f})",
            f"{quantiles[49] * 1e3:.1f}",
            f"{quantiles[98] * 1e3:.1f}",
            str(len(way.seconds)),
        )
    console.print(table)
    best = ways[0]
    rate = len(best.seconds) / sum(best.totals)
    figures = {
        "speedup_vs_subprocess": round(rate / (len(plain.seconds) / sum(plain.totals)), 2),
        "verdicts_per_second_per_core": round(rate, 1),
        "p99_ms": round(statistics.quantiles(best.seconds, n=100)[98] * 1e3, 2),
        "isolation": best.name,
    }
    print(json.dumps(figures))


def some_answers(num: int) -> list[Answer]:
    """References of the functions among the built-in tasks, every third one broken."""
    found = []
    for problem in load_problems():
        for variant in problem.variants:
            task = problem.task(variant)
            if isinstance(task.payload, FunctionTests):
                is_right = len(found) % 3 != 0
                source = problem.reference(variant)
                found.append(Answer(task, source if is_right else source.replace("return", "return None or"), is_right))
    return [found[index % len(found)] for index in range(num)]


def judge_in_sandbox(answer: Answer) -> bool:
    return Code().verify(answer.task, f"```python\n{answer.source}```").is_solved


def judge_plainly(answer: Answer) -> bool:
    """A process a test, until one fails, as the sandbox too stops at the visible ones."""
    tests = answer.task.payload
    assert isinstance(tests, FunctionTests)
    return all(passes_plainly(answer.source, tests.function, trial) for trial in (*tests.visible, *tests.hidden))


def passes_plainly(source: str, function: str, trial: Trial) -> bool:
    program = f"{source}\nprint(repr({call_text(function, trial.arguments)}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=10, check=False)
    return done.returncode == 0 and done.stdout.strip() == repr(trial.expected)


def measure(way: Way, answers: list[Answer]) -> None:
    started = time.perf_counter()
    for answer in answers:
        before = time.perf_counter()
        way.judge(answer)
        way.seconds.append(time.perf_counter() - before)
    way.totals.append(time.perf_counter() - started)


if __name__ == "__main__":
    main()
