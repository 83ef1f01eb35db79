"""The page in a real browser: what the reader sees is what the run holds, and what a completion holds does nothing."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

from sdpo.report.reading import Run
from sdpo.report.records import AttemptRecord, CreditRecord
from sdpo.run.folder import RunFolder
from tests.report.browser import ARGUMENTS, CHROMIUM, served
from tests.report.runs import begun, write_run, write_step

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine; on Debian: apt-get install chromium"),
]
PATIENCE_MS = 60_000  # of a machine that does many other things; nothing waits for longer than it must


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield found
        found.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A tab that fails the test if the console complains."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.set_default_timeout(PATIENCE_MS)
    expect.set_options(timeout=PATIENCE_MS)
    tab = context.new_page()
    complaints: list[str] = []
    tab.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("dialog", lambda dialog: complaints.append(f"dialog: {dialog.message}"))
    yield tab
    context.close()
    outlived = "ERR_CONNECTION_REFUSED"  # a viewer that has ended is asked once more
    assert [one for one in complaints if outlived not in one] == []


@pytest.fixture(scope="module")
def address(written: Path) -> Iterator[str]:
    with served(written) as found:
        yield found


def recorded(folder: Path) -> tuple[AttemptRecord, CreditRecord]:
    """The first failed attempt with a record, and its record."""
    run = Run(folder)
    attempts = {(one.task_index, one.attempt): one for one in run.attempts(2)}
    credit = next(one for one in run.credits(2) if not attempts[one.task_index, one.attempt].is_solved)
    return attempts[credit.task_index, credit.attempt], credit


def link(attempt: AttemptRecord, run: int = 0) -> str:
    return f"#open={run}.{attempt.step}.{attempt.row}"


def percent(text: str) -> float:
    return float(text.rstrip("%").replace("−", "-")) / 100


def test_an_attempt_opens_with_everything_that_is_known_of_it(page: Page, address: str, written: Path) -> None:
    attempt, credit = recorded(written)
    page.goto(address)
    page.locator(".row.attempt").first.click()
    expect(page.locator(".attempt-view")).to_be_visible()
    page.goto(address + link(attempt))
    view = page.locator(".attempt-view")
    expect(view.locator("h1")).to_have_text(attempt.task)
    expect(view.locator(".outcome")).to_contain_text("failed")
    assert view.locator(".prose").nth(0).text_content() == credit.prompt
    assert view.locator(".feedback-card .prose").text_content() == attempt.feedback
    assert view.locator(".part").last.locator(".prose").text_content() == credit.hindsight_prompt
    for kind, (first, last) in credit.marks.items():
        assert view.locator(f"mark.{kind}").text_content() == credit.hindsight_prompt[first:last]


def test_every_token_stands_there_in_its_line_with_its_colour(page: Page, address: str, written: Path) -> None:
    attempt, credit = recorded(written)
    page.goto(address + link(attempt))
    expect(page.locator(".tokens")).to_be_visible()
    read = "parts => parts.map(part => [+part.dataset.at, part.textContent, part.className])"
    shown = page.locator(".tokens .t").evaluate_all(read)
    texts: dict[int, str] = {}
    for place, text, classes in shown:
        texts[place] = texts.get(place, "") + text
        student, teacher = credit.student[place], credit.teacher[place]
        assert student is not None
        assert teacher is not None
        if abs(teacher - student) >= 0.1:
            assert ("more-" if teacher > student else "less-") in classes
        else:
            assert "more-" not in classes
            assert "less-" not in classes
    assert [texts[place].replace("↵", "\n") for place in range(len(credit.tokens))] == list(credit.tokens)
    lines = page.locator(".tokens .line").all_text_contents()
    assert [line.removesuffix("↵") for line in lines] == "".join(credit.tokens).split("\n")


def test_a_token_under_the_pointer_shows_what_student_and_teacher_would_say(page: Page, address: str, written: Path) -> None:
    attempt, credit = recorded(written)
    page.goto(address + link(attempt))
    for place in (0, 5, len(credit.tokens) - 1):
        page.locator(f".t[data-at='{place}']").first.hover()
        expect(page.locator(".inspector")).to_contain_text(f"token {place + 1} of {len(credit.tokens)}")
        for column, top in enumerate((credit.student_top[place], credit.teacher_top[place])):
            rows = page.locator(".top-list").nth(column).locator("li")
            assert top is not None
            for row, (token_id, logprob) in enumerate(top):
                piece = rows.nth(row).locator(".piece").text_content()
                assert piece == credit.pieces[str(token_id)].replace(" ", "·").replace("\n", "↵")
                found = percent(rows.nth(row).locator(".share").text_content() or "")
                assert math.isclose(found, math.exp(logprob), rel_tol=0.51, abs_tol=0.0006)
            assert page.locator(".top-list").nth(column).locator(".is-sampled").count() == 1


def test_the_keyboard_goes_through_attempts_and_tokens(page: Page, address: str) -> None:
    page.goto(address)
    expect(page.locator(".row.attempt").first).to_be_visible()
    expect(page.locator("#count")).not_to_contain_text("reading")  # of a list that still grows the first may become the last
    page.keyboard.press("j")
    expect(page.locator(".row.attempt[aria-selected='true']")).to_have_attribute("data-at", "0")
    page.keyboard.press("j")
    expect(page.locator(".row.attempt[aria-selected='true']")).to_have_attribute("data-at", "1")
    page.keyboard.press("k")
    expect(page.locator(".tokens")).to_be_visible()
    page.keyboard.press("l")
    page.keyboard.press("l")
    expect(page.locator(".t.is-chosen").first).to_have_attribute("data-at", "1")
    expect(page.locator(".t.is-chosen").first).to_be_focused()
    expect(page.locator(".inspector")).to_contain_text("token 2 of")
    page.keyboard.press("h")
    expect(page.locator(".t.is-chosen").first).to_have_attribute("data-at", "0")
    page.keyboard.press("?")
    expect(page.locator("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    expect(page.locator("#words")).to_be_focused()


def test_the_keyboard_stays_at_its_token_when_the_attempt_is_drawn_anew(page: Page, address: str) -> None:
    """An answer of the server that came after the key was pressed took the focus away: the next key went nowhere."""
    held: list[Route] | None = None
    # From the start: of a request that is under way when routes begin, Playwright may never tell.
    page.route("**/attempt?*", lambda route: route.continue_() if held is None else held.append(route))
    page.goto(address)
    expect(page.locator(".row.attempt").first).to_be_visible()
    expect(page.locator("#count")).not_to_contain_text("reading")  # of a list that still grows the first may become the last
    page.keyboard.press("j")
    expect(page.locator(".tokens")).to_be_visible()
    held = []
    with page.expect_request("**/attempt?*"):
        page.keyboard.press("j")
    with page.expect_request("**/attempt?*"):
        page.keyboard.press("k")
    page.keyboard.press("l")
    page.keyboard.press("l")
    expect(page.locator(".t.is-chosen").first).to_be_focused()
    page.locator(".tokens").evaluate("tokens => tokens.dataset.isOld = true")
    for route in held:
        route.continue_()
    expect(page.locator(".tokens[data-is-old]")).to_have_count(0)
    expect(page.locator(".t.is-chosen").first).to_have_attribute("data-at", "1")
    expect(page.locator(".t.is-chosen").first).to_be_focused()


def test_filters_and_search_list_what_passes_them(page: Page, address: str, written: Path) -> None:
    run = Run(written)
    attempts = [one for step in run.rollout_files() for one in run.attempts(step)]
    page.goto(address)
    counted = page.locator("#count")
    expect(counted).to_contain_text(f"{len(attempts)} attempts")
    page.get_by_role("button", name="solved", exact=False).first.click()
    expect(counted).to_contain_text(f"{sum(one.is_solved for one in attempts)} attempts")
    page.keyboard.press("x")
    page.get_by_role("button", name="set aside").click()
    expect(counted).to_contain_text("1 attempt")
    page.keyboard.press("x")
    page.locator("#family").select_option("clamp")
    expect(counted).to_contain_text(f"{sum('clamp' in one.task for one in attempts)} attempts")
    page.keyboard.press("x")
    page.keyboard.press("c")
    expect(counted).to_contain_text(f"{sum(len(list(run.credits(step))) for step in run.credit_files())} attempts")
    page.keyboard.press("x")
    page.locator("#least").fill("40")
    page.locator("#least").press("Enter")
    expect(counted).to_contain_text(f"{sum((one.num_tokens or -1) >= 40 for one in attempts)} attempts")
    page.locator("#least").press("Escape")
    page.keyboard.press("x")
    page.locator("#words").fill("NOT DEFINED")
    expect(counted).to_contain_text(f"{sum('not defined' in (one.feedback or '') for one in attempts)} attempt")


def test_a_link_restores_attempt_token_and_filters(page: Page, address: str, written: Path) -> None:
    attempt, _ = recorded(written)
    page.goto(f"{address}{link(attempt)}&token=6&outcome=failed&step=2")
    expect(page.locator(".t.is-chosen").first).to_have_attribute("data-at", "6")
    expect(page.locator(".inspector")).to_contain_text("token 7 of")
    expect(page.locator(".row.attempt[aria-selected='true']")).to_be_visible()
    expect(page.locator(".chip[aria-pressed='true']")).to_contain_text("failed")
    page.locator(".t[data-at='3']").first.click()
    kept = page.url
    page.goto("about:blank")
    page.goto(kept)
    expect(page.locator(".t.is-chosen").first).to_have_attribute("data-at", "3")
    page.evaluate("location.hash = '#open=7.x.<b>&token=-1&view=<script>&step=1e9&run=5&outcome=constructor'")
    expect(page.locator("#count")).to_contain_text("0 attempts")


def test_two_runs_stand_side_by_side_and_their_curves_over_each_other(page: Page, written: Path, tmp_path: Path) -> None:
    other = write_run(tmp_path / "other", num_steps=3, seed=5, algorithm="grpo")
    attempt, _ = recorded(written)
    with served(written, other) as address:
        page.goto(address + link(attempt))
        expect(page.locator(".attempt-view")).to_have_count(2)
        expect(page.locator(".attempt-view h1").nth(1)).to_have_text(attempt.task)
        expect(page.locator(".attempt-view").nth(1)).to_contain_text("No credit record: the run holds none.")
        page.keyboard.press("o")
        success = page.locator(".chart").filter(has_text="Success").first
        expect(success.locator("polyline.a")).to_have_count(1)
        expect(success.locator("polyline.b")).to_have_count(1)
        expect(page.locator(".panel").filter(has_text="Settings that differ")).to_contain_text("algorithm.name")
        expect(page.locator(".panel").filter(has_text="What is missing")).to_contain_text("There are no credit records")


def test_new_steps_appear_and_the_reader_stays_where_he_was(page: Page, tmp_path: Path) -> None:
    run, tracker = begun(tmp_path / "run", "num_steps=9")
    draw = random.Random(0)
    for step in range(1, 5):
        write_step(tracker, step, 0.4, 6, draw)
    with served(run.path) as address:
        page.goto(f"{address}#open=0.2.1")
        expect(page.locator(".attempt-view")).to_be_visible()
        expect(page.locator("#count")).to_contain_text("97 attempts")
        page.locator("#list").evaluate("list => list.scrollTop = 500")
        page.locator("#main").evaluate("main => main.scrollTop = 40")
        page.evaluate("document.querySelector('.attempt-view').isTheSame = true")
        write_step(tracker, 5, 0.4, 6, draw)
        expect(page.locator("#count")).to_contain_text("121 attempts")
        expect(page.locator("#runs")).to_contain_text("step 5 of 9")
        assert page.locator("#list").evaluate("list => list.scrollTop") == 500
        assert page.locator("#main").evaluate("main => main.scrollTop") == 40
        assert page.evaluate("document.querySelector('.attempt-view').isTheSame")


def test_hostile_completions_are_text_and_run_nothing(page: Page, hostile: Path) -> None:
    attempts = Run(hostile).attempts(1)
    with served(hostile) as address:
        for attempt in attempts:
            page.goto(f"{address}{link(attempt)}")
            expect(page.locator(".attempt-view .outcome")).to_contain_text("failed")
            assert page.locator("#main :is(img, script, iframe, svg, a, b[onclick])").count() == 0
            assert page.evaluate("window.hurt") is None
            page.keyboard.press("o")
            page.keyboard.press("o")
        page.goto(f"{address}{link(attempts[1])}")
        expect(page.locator(".tokens")).to_contain_text("␛[31mred␛[0m")
        assert "\x1b" not in page.locator("body").inner_html()
        page.goto(f"{address}{link(attempts[2])}")
        expect(page.locator(".tokens")).to_contain_text("[202E]")
        expect(page.locator(".tokens")).to_contain_text("�")
        assert "\u202e" not in page.locator("body").inner_html()
        page.goto(f"{address}{link(attempts[4])}")
        page.get_by_role("button", name="Show the other 980,000 characters").first.click()
        assert page.locator(".prose").filter(has_text="x" * 100).first.evaluate("pre => pre.textContent.length") == 1_000_000
        assert page.evaluate("window.hurt") is None


def test_light_and_dark_follow_the_system_and_the_switch(page: Page, address: str) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    page.emulate_media(color_scheme="light")
    page.goto(address)
    light = page.evaluate(ground)
    page.emulate_media(color_scheme="dark")
    dark = page.evaluate(ground)
    assert light != dark
    page.keyboard.press("t")
    assert page.evaluate(ground) == light
    page.reload()
    assert page.evaluate(ground) == light


def test_an_old_and_damaged_run_opens_with_what_it_has(page: Page, folder: Path) -> None:
    run = RunFolder(folder)
    for file in run.credit.iterdir():
        file.unlink()
    for step in (1, 2):
        lines = [json.loads(line) for line in run.rollouts_of(step).read_text().splitlines()]
        old = [{key: value for key, value in line.items() if key not in ("task_index", "attempt")} for line in lines]
        run.rollouts_of(step).write_text("".join(json.dumps(line) + "\n" for line in old))
    run.rollouts_of(3).write_bytes(run.rollouts_of(3).read_bytes()[:-40])
    with served(folder) as address:
        page.goto(address)
        landing = page.locator(".landing")
        for sentence in ("no credit records", "of an older version", "step_000003.jsonl is cut off in the middle of a line"):
            expect(landing).to_contain_text(sentence)
        page.keyboard.press("j")
        expect(page.locator(".attempt-view")).to_contain_text("No credit record: the run holds none.")
        expect(page.locator(".row.group").first).to_contain_text("/6")
