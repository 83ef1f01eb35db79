"""How quick is ``sdpo view`` over a large run?

A made-up run of 10,000 attempts of 4,000 tokens, a tenth of them with a credit record, is opened in a headless Chromium: until
the first attempts are listed, until all of them are, until an attempt of 4,000 coloured tokens stands there, a filter, a search
through all texts, and the list scrolled frame by frame. Headless Chromium draws without a
graphics card.

Prints a table and ends in a line of JSON.

    python benchmarks/view.py [--attempts 10000] [--tokens 4000] [--folder FOLDER, kept] [--json results.json]
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from playwright.sync_api import Page, sync_playwright
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests.report.browser import ARGUMENTS, CHROMIUM, served  # noqa: E402

PER_STEP, PER_GROUP, RECORDED = 256, 8, 10
"""Attempts a step and a group; one in how many has a record."""
PACES_PX = (100, 1400)
"""A hurried wheel; and through everything in four seconds, where no row stays for two frames."""
FRAMES_JS = """each => new Promise(done => {
  const list = document.getElementById("list"), times = [], frames = 240;
  list.scrollTop = 0;
  const step = now => {
    times.push(now);
    list.scrollTop += each;
    if (times.length <= frames) requestAnimationFrame(step); else done(times.slice(1).map((time, at) => time - times[at]));
  };
  requestAnimationFrame(step);
})"""


def write(folder: Path, num_attempts: int, num_tokens: int) -> None:
    """Texts and records of real size; only their heads differ, so that writing them does not take an hour."""
    draw = random.Random(0)
    words = [" value", " =", " the", " return", "(", ")", ":", "\n", "    ", " x", " +", " 1", " if", " list", "."]
    tokens = draw.choices(words, k=num_tokens)
    student = [round(-draw.expovariate(2), 4) for _ in tokens]
    tops = [[[place, round(-0.3 - place, 4)] for place in draw.sample(range(15), 5)] for _ in tokens]
    record = {
        "update": 0, "prompt": "What is asked?", "hindsight_prompt": "What is asked? And what was said.", "marks": {},
        "tokens": tokens, "student": student, "teacher": [round(one + draw.gauss(0, 1), 4) for one in student],
        "divergence": [round(draw.expovariate(3), 4) for _ in tokens], "student_top": tops, "teacher_top": tops,
        "pieces": {str(place): word for place, word in enumerate(words)},
    }  # fmt: skip
    told = json.dumps(record, separators=(",", ":"))[1:]
    text = "".join(tokens)
    for name in ("rollouts", "credit"):
        (folder / name).mkdir(parents=True)
    for step in range(1, num_attempts // PER_STEP + 2):
        first = (step - 1) * PER_STEP
        count = min(PER_STEP, num_attempts - first)
        with (
            (folder / f"rollouts/step_{step:06d}.jsonl").open("w") as rollouts,
            gzip.open(folder / f"credit/step_{step:06d}.jsonl.gz", "wt", compresslevel=1) as credit,
        ):
            for row in range(count):
                group, attempt = divmod(row, PER_GROUP)
                place = {"step": step, "task_index": group, "task": f"code/family{group % 12}-{step}", "attempt": attempt}
                line = {
                    **place, "question": "What is asked?", "completion": text, "finish": "stop", "num_tokens": num_tokens,
                    "weights_version": step - 1, "reward": float(draw.random() < 0.4), "feedback": f"wrong number {first + row}",
                    "hint": "feedback",
                }  # fmt: skip
                rollouts.write(json.dumps(line) + "\n")
                if row % RECORDED == 0:
                    credit.write(json.dumps(place, separators=(",", ":"))[:-1] + "," + told + "\n")
        with (folder / "metrics.jsonl").open("a") as metrics:
            metrics.write(json.dumps({"step": step, "success": 0.4, "hindsight": 1.0, "divergence": 0.3}) + "\n")


def wait(page: Page, until_js: str) -> None:
    """Looks in every frame; the page's policy forbids Playwright's own way, which evaluates text."""
    page.evaluate(f"async () => {{ while (!({until_js})) await new Promise(requestAnimationFrame); }}")


def took(page: Page, act: Callable[[], object], until_js: str) -> float:
    """Seconds from an act until a condition holds in the page."""
    start = time.perf_counter()
    act()
    wait(page, until_js)
    return time.perf_counter() - start


def measure(folder: Path, num_attempts: int, num_tokens: int) -> dict[str, float]:
    def counted(number: int) -> str:
        return (
            f"document.getElementById('count').textContent.startsWith('{number:,} attempt') && !/reading/.test(count.textContent)"
        )

    with served(folder) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        found: dict[str, float] = {}
        start = time.perf_counter()
        page.goto(address)
        wait(page, "document.querySelector('.row.attempt')")
        found["first attempts listed, s"] = time.perf_counter() - start
        wait(page, counted(num_attempts))
        found["all attempts indexed, s"] = time.perf_counter() - start
        tokens = f"document.querySelectorAll('.t').length >= {num_tokens}"
        found["attempt opened, s"] = took(page, lambda: page.locator(".row.attempt").first.click(), tokens)
        found["token chosen by key, s"] = took(page, lambda: page.keyboard.press("l"), "document.querySelector('.t.is-chosen')")
        solved = page.get_by_role("button", name="solved").first
        fewer = f"!document.getElementById('count').textContent.startsWith('{num_attempts:,}')"
        found["filtered, s"] = took(page, solved.click, fewer)
        took(page, lambda: page.keyboard.press("x"), counted(num_attempts))
        words = f"wrong number {num_attempts - 1}"
        found["searched, s"] = took(page, lambda: page.locator("#words").fill(words), counted(1))
        page.locator("#words").press("Escape")
        took(page, lambda: page.keyboard.press("x"), counted(num_attempts))
        for pace in PACES_PX:
            frames = page.evaluate(FRAMES_JS, pace)
            found[f"frame at {pace} px a frame, median ms"] = statistics.median(frames)
            found[f"frame at {pace} px a frame, 95th percentile ms"] = statistics.quantiles(frames, n=20)[-1]
        found["elements in the list"] = page.evaluate("document.querySelectorAll('#list .row').length")
        found["heap of the page, MiB"] = page.evaluate("performance.memory.usedJSHeapSize") / 2**20
        viewer = next(one for one in psutil.Process().children() if "view" in one.cmdline())
        found["memory of the viewer, MiB"] = viewer.memory_info().rss / 2**20
        browser.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attempts", type=int, default=10_000)
    parser.add_argument("--tokens", type=int, default=4_000)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.folder or Path(scratch) / "run"
        if not folder.exists():
            write(folder, arguments.attempts, arguments.tokens)
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        found = {"run folder, MiB": size / 2**20, **measure(folder, arguments.attempts, arguments.tokens)}
    table = Table("", "", title=f"sdpo view: {arguments.attempts:,} attempts of {arguments.tokens:,} tokens")
    for name, value in found.items():
        table.add_row(name, f"{value:,.3f}" if value < 10 else f"{value:,.0f}")
    Console().print(table)
    result = {"benchmark": "view", "attempts": arguments.attempts, "tokens": arguments.tokens, **found}
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(result) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
