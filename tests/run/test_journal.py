"""What was written of an attempt is what is read; and what is not taken over."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdpo.config import TrackingConfig
from sdpo.envs.judging import valid_verdict
from sdpo.run.folder import RunFolder
from sdpo.run.journal import Journal, Page
from sdpo.tracking.tracker import Tracker
from sdpo.types import Attempt, Completion, Finish, Message, Prompt, Role, SetAside, Verdict

PROMPTS = tuple(
    Prompt(token_ids=(1, 2, 3 + task), seed=100 * task + attempt, task_index=task, attempt_index=attempt)
    for task in range(2)
    for attempt in range(3)
)


def attempt(version: int = 0, text: str = "four", **changes: object) -> Attempt:
    completion = Completion(token_ids=(5, 6), logprobs=(-0.1, -1e-9), text=text, finish=Finish.stop, weights_version=version)
    return Attempt(completion=replace(completion, **changes), verdict=Verdict(reward=1.0))  # type: ignore[arg-type]


def write(page: Page, answers: Sequence[tuple[Prompt, Attempt | SetAside]]) -> None:
    assert list(page.written(answers)) == list(answers)


def taken(folder: Path, *, step: int = 1, of: int = 0, prompts: Sequence[Prompt] = PROMPTS, oldest: int = 0) -> list[object]:
    """By a run that goes on with the weights of ``of``."""
    return list(Journal(folder, step=of).page(step, prompts, oldest_version=oldest).taken)


TEXTS = st.text(st.characters(codec=None), max_size=20)
LOGPROBS = st.floats(max_value=0.0, allow_nan=False)


@st.composite
def attempts(draw: st.DrawFn) -> Attempt:
    logprobs = tuple(draw(st.lists(LOGPROBS, max_size=6)))
    num = len(logprobs)
    mask = draw(st.none() | st.lists(st.booleans(), min_size=num, max_size=num).map(tuple))
    own = num if mask is None else sum(mask)
    version = draw(st.integers(0, 9))
    versions = ((version, 1), (version + 1, own - 1)) if own > 1 and draw(st.booleans()) else ()
    completion = Completion(
        token_ids=tuple(draw(st.lists(st.integers(0, 200_000), min_size=num, max_size=num))),
        logprobs=logprobs,
        text=draw(TEXTS),
        finish=draw(st.sampled_from(Finish)),
        weights_version=version,
        versions=versions,
        own_mask=mask,
        turns=tuple(Message(role=draw(st.sampled_from(Role)), content=text) for text in draw(st.lists(TEXTS, max_size=3))),
    )
    verdict = Verdict(
        reward=draw(st.floats(0.0, 1.0)),
        feedback=draw(st.none() | TEXTS),
        metrics=draw(st.dictionaries(TEXTS, st.floats(allow_nan=False), max_size=3)),
    )
    return Attempt(completion=completion, verdict=verdict)


@settings(max_examples=150, deadline=None)
@given(st.lists(attempts(), min_size=1, max_size=6))
def test_what_is_read_is_what_was_written(tmp_path_factory: pytest.TempPathFactory, found: list[Attempt]) -> None:
    folder = tmp_path_factory.mktemp("journal")
    answers = list(zip(PROMPTS, found, strict=False))
    write(Journal(folder, step=0).page(1, PROMPTS, oldest_version=0), answers)
    page = Journal(folder, step=99).page(100, PROMPTS, oldest_version=0)
    assert page.taken == (), "another step's"
    folder = tmp_path_factory.mktemp("journal")
    write(Journal(folder, step=9).page(11, PROMPTS, oldest_version=0), answers)
    page = Journal(folder, step=10).page(11, PROMPTS, oldest_version=0)
    assert list(page.taken) == answers
    assert [*(prompt for prompt, _ in page.taken), *page.missing] == list(PROMPTS)


def test_numbers_come_back_to_the_last_bit(tmp_path: Path) -> None:
    logprobs = (-0.1, -1 / 3, -5e-324, -1.7976931348623157e308, -0.0)
    given = attempt(token_ids=(1,) * 5, logprobs=logprobs)
    write(Journal(tmp_path, step=0).page(1, PROMPTS, oldest_version=0), [(PROMPTS[0], given)])
    ((_, read),) = taken(tmp_path)  # type: ignore[misc]
    assert [value.hex() for value in read.completion.logprobs] == [value.hex() for value in logprobs]


def test_an_environments_own_kind_of_number_can_be_written(tmp_path: Path) -> None:
    import numpy as np

    returned = Verdict(reward=np.float32(0.5), metrics={"loads_ok": np.bool_(True), "tests": np.int64(3)})  # type: ignore[arg-type, dict-item]
    verdict = valid_verdict(returned, "verify")
    write(Journal(tmp_path, step=0).page(1, PROMPTS, oldest_version=0), [(PROMPTS[0], replace(attempt(), verdict=verdict))])
    ((_, read),) = taken(tmp_path)  # type: ignore[misc]
    assert read.verdict == Verdict(reward=0.5, metrics={"loads_ok": 1.0, "tests": 3.0})


@pytest.mark.parametrize("num_chars", [1, 2, 50, 150])
def test_a_line_that_was_cut_off_is_asked_again_and_the_others_are_not(num_chars: int, tmp_path: Path) -> None:
    write(Journal(tmp_path, step=0).page(1, PROMPTS, oldest_version=0), [(prompt, attempt()) for prompt in PROMPTS[:3]])
    (file,) = tmp_path.iterdir()
    file.write_text(file.read_text()[:-num_chars])
    page = Journal(tmp_path, step=0).page(1, PROMPTS, oldest_version=0)
    assert [prompt for prompt, _ in page.taken] == list(PROMPTS[:2])
    assert page.missing == PROMPTS[2:]
    write(page, [(PROMPTS[2], attempt(text="again"))])
    assert len(taken(tmp_path)) == 3


def test_only_what_the_runs_own_weights_and_not_too_old_ones_sampled_is_taken_over(tmp_path: Path) -> None:
    answers = [(prompt, attempt(version=2 + index)) for index, prompt in enumerate(PROMPTS[:4])]
    write(Journal(tmp_path, step=9).page(10, PROMPTS, oldest_version=0), answers)
    assert taken(tmp_path, step=10, of=4, oldest=3) == answers[1:3]
    assert taken(tmp_path, step=10, of=9, oldest=0) == answers[1:3], "what was not taken over is overwritten"


def test_what_later_weights_sampled_is_gone_though_a_later_run_should_reach_their_number(tmp_path: Path) -> None:
    """Taken again, the steps between need not give the same weights to the last bit."""
    write(Journal(tmp_path, step=5).page(6, PROMPTS, oldest_version=5), [(PROMPTS[0], attempt(version=5))])
    Journal(tmp_path, step=4)
    assert taken(tmp_path, step=6, of=5, oldest=5) == []


@pytest.mark.parametrize("changed", [{"seed": 7}, {"token_ids": (1, 2)}])
def test_another_seed_or_another_prompt_is_another_question(changed: dict[str, object], tmp_path: Path) -> None:
    write(Journal(tmp_path, step=0).page(1, PROMPTS, oldest_version=0), [(PROMPTS[0], attempt()), (PROMPTS[1], attempt())])
    others = (replace(PROMPTS[0], **changed), *PROMPTS[1:])  # type: ignore[arg-type]
    assert taken(tmp_path, prompts=others) == [(PROMPTS[1], attempt())]


def test_a_conversation_is_kept_under_the_prompt_that_began_it(tmp_path: Path) -> None:
    said = attempt(
        text="one\n\ntwo",
        token_ids=(5, 6, 7, 8),
        logprobs=(-1.0, 0.0, -0.5, -0.25),
        own_mask=(True, False, True, True),
        turns=(Message(role=Role.assistant, content="one"), Message(role=Role.user, content="go on")),
    )
    later = replace(PROMPTS[4], token_ids=(1, 2, 3, 5, 6), seed=8, max_response_tokens=3)
    write(Journal(tmp_path, step=0).page(1, PROMPTS, oldest_version=0), [(later, said)])
    assert taken(tmp_path) == [(PROMPTS[4], said)]


def test_what_was_set_aside_is_written_and_asked_again(tmp_path: Path) -> None:
    broken = SetAside(completion=attempt().completion, error="Traceback: broke")
    write(Journal(tmp_path, step=0).page(1, PROMPTS, oldest_version=0), [(PROMPTS[0], broken)])
    assert "Traceback: broke" in (tmp_path / "step_000001.jsonl").read_text()
    assert taken(tmp_path) == []


def test_a_steps_file_goes_with_the_checkpoint_that_it_need_not_be_repeated_from(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    journal = Journal(folder.unfinished, step=0)
    for step in (1, 2, 3):
        write(journal.page(step, PROMPTS, oldest_version=0), [(PROMPTS[0], attempt())])
    tracker = Tracker(folder, TrackingConfig(tensorboard=False))
    tracker.saved(2)
    assert [file.name for file in folder.unfinished.iterdir()] == ["step_000003.jsonl"]
    Journal(folder.unfinished, step=3)
    assert list(folder.unfinished.iterdir()) == [], "nor does one stay that a kill came between"


def test_no_number_is_too_odd_for_a_line(tmp_path: Path) -> None:
    odd = attempt(logprobs=(-math.inf, -0.0))
    write(Journal(tmp_path, step=0).page(1, PROMPTS, oldest_version=0), [(PROMPTS[0], odd)])
    assert taken(tmp_path) == [(PROMPTS[0], odd)]


def test_what_a_step_asks_for_later_stays_when_it_is_asked_for_less_first(tmp_path: Path) -> None:
    """A step asks for its own tasks, and then for others in place of some of them: a page that dropped what it was not yet asked
    for would have a continued run sample those again."""
    page = Journal(tmp_path, step=0).page(1, PROMPTS[:3], oldest_version=0)
    write(page, [(PROMPTS[0], attempt())])
    write(page.further(PROMPTS[3:]), [(PROMPTS[4], attempt(text="later")), (PROMPTS[5], attempt())])
    again = Journal(tmp_path, step=0).page(1, PROMPTS[:3], oldest_version=0)
    assert again.taken == ((PROMPTS[0], attempt()),)
    write(again, [(PROMPTS[1], attempt()), (PROMPTS[2], attempt())])
    others = (PROMPTS[3], PROMPTS[4], replace(PROMPTS[5], seed=7))
    assert again.further(others).taken == ((PROMPTS[4], attempt(text="later")),)
    assert again.further(others).missing == (others[0], others[2])
