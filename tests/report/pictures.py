"""The pictures in docs/images: ``python -m tests.report.pictures [RUN [RUN2]]``; a made-up run where none is named.

The attempt is the failed one, among those with a record, in which hindsight changed the most tokens by a nat or more.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, expect, sync_playwright

from sdpo.report.reading import Run
from tests.report.browser import ARGUMENTS, CHROMIUM, served
from tests.report.runs import write_run

IMAGES = Path(__file__).parents[2] / "docs" / "images"
WAIT_MS = 30_000


def place_to_show(run: Run) -> str:
    """As a link names it."""
    best, link = -1, "#"
    for step in run.credit_files():
        attempts = {(one.task_index, one.attempt): one for one in run.attempts(step)}
        for credit in run.credits(step):
            attempt = attempts.get((credit.task_index, credit.attempt))
            pairs = zip(credit.student, credit.teacher, strict=True)
            changed = sum(abs(q - p) >= 1 for p, q in pairs if p is not None and q is not None)
            if attempt is not None and not attempt.is_solved and changed > best:
                best, link = changed, f"#open=0.{step}.{attempt.row}"
    return link


def picture(browser: Browser, address: str, scheme: Literal["light", "dark"], awaited: str, file: Path) -> None:
    context = browser.new_context(viewport={"width": 1440, "height": 900}, color_scheme=scheme, device_scale_factor=1.5)
    page = context.new_page()
    page.goto(address)
    expect(page.locator(awaited).first).to_be_visible(timeout=WAIT_MS)
    expect(page.locator("#count")).not_to_contain_text("reading", timeout=WAIT_MS)
    page.wait_for_timeout(300)  # fonts
    page.screenshot(path=file)
    context.close()


def main(names: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folders = list(map(Path, names))
        if not folders:
            folders = [write_run(Path(scratch) / "made-up-sdpo", seed=3)]
            folders.append(write_run(Path(scratch) / "made-up-grpo", seed=4, skill=0.1, algorithm="grpo"))
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
            with served(folders[0]) as address:
                link = address + place_to_show(Run(folders[0]))
                picture(browser, link, "light", ".inspector", IMAGES / "view-attempt-light.png")
                picture(browser, link, "dark", ".inspector", IMAGES / "view-attempt-dark.png")
            with served(*folders) as address:
                picture(browser, f"{address}#view=overview", "light", ".chart polyline", IMAGES / "view-overview.png")
            browser.close()


if __name__ == "__main__":
    main(sys.argv[1:])
