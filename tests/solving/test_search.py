"""What a search remembers, spends and keeps."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from sdpo.config import BudgetConfig, HindsightConfig
from sdpo.errors import UserError
from sdpo.solving.budget import Spent, eta_s, exhausted, next_attempts, share_spent
from sdpo.solving.folder import STEPS, SearchFolder
from sdpo.solving.memory import FeedbackMemory
from sdpo.solving.once import Once, digest
from sdpo.solving.search import Ending, Search, Step, Tried, absorbed
from sdpo.types import Attempt, Completion, Finish, Message, Prompt, Role, SetAside, Task, Verdict

TASK = Task(id="sums/1", env="sums", messages=(Message(role=Role.user, content="2 + 2?"),))
BUDGET = BudgetConfig(attempts=100)
HOSTILE = "\x1b[2J<script>\ud800" + "x" * 1_000_000


def completion(text: str) -> Completion:
    return Completion(token_ids=(1,), logprobs=(-1.0,), text=text, finish=Finish.stop, weights_version=0)


def tried(index: int, text: str, reward: float | None = 0.0, feedback: str | None = "wrong") -> Tried:
    return Tried(index=index, text=text, num_tokens=10, finish="stop", reward=reward, feedback=feedback)


def step(number: int, *attempts: Tried) -> Step:
    return Step(number=number, seconds=2.0, attempts=attempts, learned_rows=len(attempts))


def search(*steps: Step) -> Search:
    return absorbed(Search(TASK, HindsightConfig()), steps)


def test_memory_keeps_each_failure_once_and_the_latest_last() -> None:
    memory = FeedbackMemory()
    for said in ("a", "b", "  a\n", "c", "b"):
        memory.add(said)
    assert memory.feedbacks == ("a", "c", "b")
    assert [(failure.feedback, failure.times) for failure in memory.failures] == [("a", 2), ("b", 2), ("c", 1)]


@pytest.mark.parametrize("nothing", [None, "", " \n\t"])
def test_memory_keeps_nothing_of_a_failure_that_nothing_was_said_of(nothing: str | None) -> None:
    memory = FeedbackMemory()
    memory.add(nothing)
    assert (len(memory), memory.feedbacks) == (0, ())


class Counting:
    """A verifier that counts what it judges, holds its answers back to the end, and breaks over "broken"."""

    def __init__(self) -> None:
        self.judged: list[str] = []

    def verify(
        self, tasks_P: Sequence[Task], completions: Iterable[tuple[Prompt, Completion]]
    ) -> Iterator[tuple[Prompt, Attempt | SetAside]]:
        for prompt, one in list(completions):
            self.judged.append(one.text)
            if one.text == "broken":
                yield prompt, SetAside(completion=one, error="the verifier broke")
            else:
                yield prompt, Attempt(completion=one, verdict=Verdict(reward=0.0, feedback=f"not {one.text}"))

    def reply(self, tasks_P: Sequence[Task], completions: Iterable[tuple[Prompt, Completion]]) -> Iterator[object]:
        raise AssertionError("nobody replies here")


def verified(once: Once, *texts: str) -> dict[int, Attempt | SetAside]:
    asked = [
        (Prompt(token_ids=(1,), seed=0, task_index=0, attempt_index=index), completion(text)) for index, text in enumerate(texts)
    ]
    return {prompt.attempt_index: outcome for prompt, outcome in once.verify((TASK,), asked)}


def test_identical_attempts_are_verified_once_and_each_has_its_verdict() -> None:
    inner = Counting()
    once = Once(inner, {})  # type: ignore[arg-type]
    found = verified(once, "a", "b", "a", "a") | {4: verified(once, "b")[0]}
    assert inner.judged == ["a", "b"]
    said = [outcome.verdict.feedback for _, outcome in sorted(found.items()) if isinstance(outcome, Attempt)]
    assert said == ["not a", "not b", "not a", "not a", "not b"]


def test_what_the_verifier_broke_over_is_asked_again() -> None:
    inner = Counting()
    once = Once(inner, {})  # type: ignore[arg-type]
    assert all(isinstance(outcome, SetAside) for outcome in verified(once, "broken", "broken").values())
    verified(once, "broken")
    assert inner.judged == ["broken", "broken"]


def test_any_text_has_a_digest() -> None:
    assert len({digest(completion(text).transcript) for text in ("", " ", HOSTILE, HOSTILE + "x", "\x00")}) == 5


def test_a_budget_is_spent_by_whichever_limit_is_reached_first() -> None:
    budget = BudgetConfig(attempts=100, tokens=1000, seconds=50.0)
    assert exhausted(budget, Spent(attempts=99, tokens=999, seconds=49.9)) is None
    assert exhausted(budget, Spent(attempts=3, tokens=1000, seconds=1.0)) == "tokens"
    assert exhausted(budget, Spent(attempts=3, tokens=1, seconds=50.0)) == "seconds"
    assert share_spent(budget, Spent(attempts=10, tokens=900, seconds=5.0)) == 0.9


def test_the_last_step_makes_no_more_attempts_than_are_left() -> None:
    assert next_attempts(BUDGET, Spent(attempts=90), 16) == 10
    assert next_attempts(BudgetConfig(attempts=None, tokens=5), Spent(attempts=10**6), 16) == 16


def test_the_eta_follows_the_pace_to_the_nearest_limit() -> None:
    assert eta_s(BudgetConfig(attempts=100, tokens=10_000), Spent(attempts=10, tokens=5000, seconds=30.0)) == pytest.approx(30.0)
    assert eta_s(BUDGET, Spent()) is None


@pytest.mark.parametrize(
    "limits", [{"attempts": 0}, {"attempts": -1}, {"tokens": 0}, {"seconds": 0.0}, {"seconds": float("nan")}]
)
def test_an_empty_budget_is_refused(limits: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"budget.{next(iter(limits))} must be positive"):
        BudgetConfig(**limits)  # type: ignore[arg-type]


def test_a_search_without_an_end_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a budget"):
        BudgetConfig(attempts=None)


def test_a_search_is_over_once_it_is_solved_and_knows_what_that_took() -> None:
    found = search(step(1, tried(0, "a"), tried(1, "b")), step(2, tried(0, "c"), tried(1, "d", 1.0, None), tried(2, "e")))
    assert found.ending(BUDGET, 3) is Ending.solved
    assert found.solution is not None
    assert found.solution.text == "d"
    assert found.solved_at == Spent(attempts=4, tokens=40, seconds=4.0)
    assert found.spent == Spent(attempts=5, tokens=50, seconds=4.0)


def test_a_search_ends_when_its_attempts_stop_varying() -> None:
    same = [step(number, tried(0, "a"), tried(1, "a")) for number in (1, 2, 3)]
    assert search(*same).ending(BUDGET, 3) is None, "the first of them was new"
    assert search(*same).num_repeats == 5
    assert search(*same, step(4, tried(0, "a"))).ending(BUDGET, 3) is Ending.stale
    assert search(*same, step(4, tried(0, "b"))).ending(BUDGET, 3) is None
    assert search(*same, step(4, tried(0, "a"))).ending(BUDGET, 0) is None


def test_an_attempt_without_a_verdict_is_spent_and_says_nothing() -> None:
    found = search(step(1, tried(0, "a", None, "Traceback")))
    assert (found.spent.attempts, len(found.memory), found.best, found.verdicts) == (1, 0, None, {})


def test_a_low_bar_lets_the_best_of_what_was_tried_demonstrate() -> None:
    half = absorbed(Search(TASK, HindsightConfig(success_buffer=2, demonstration_reward=0.5)), [step(1, tried(0, "half", 0.5))])
    assert half.successes.of(TASK.id) == ("half",)
    assert search(step(1, tried(0, "half", 0.5))).successes.of(TASK.id) == ()


def test_a_folder_gives_back_what_it_was_given(tmp_path: Path) -> None:
    folder = SearchFolder(tmp_path)
    steps = (
        step(1, tried(0, HOSTILE, feedback="\x1b]0;owned\x07 </div>")),
        step(2, tried(0, "b", None), tried(3, "c", 1.0, None)),
    )
    for one in steps:
        folder.add(one, None)
    assert folder.steps() == steps


def test_a_conversation_is_kept_with_who_said_what_and_is_another_than_one_answer_of_the_same_text(tmp_path: Path) -> None:
    """Turns were glued together, so that one answer could take another conversation's verdict."""
    turns = tuple(
        Message(role=role, content=said) for role, said in ((Role.assistant, "a"), (Role.user, "?"), (Role.assistant, "b"))
    )
    talk = replace(tried(0, "a\n\nb"), turns=turns)
    folder = SearchFolder(tmp_path)
    folder.add(step(1, talk, tried(1, "a\n\nb")), None)
    assert folder.steps() == (step(1, talk, tried(1, "a\n\nb")),)
    assert search(*folder.steps()).num_repeats == 0
    (tmp_path / STEPS).write_text((tmp_path / STEPS).read_text().replace(', "turns": []', ""))
    assert folder.steps()[0].attempts[1].turns == (), "a search of an earlier version goes on"


def test_a_step_that_a_kill_cut_off_does_not_count(tmp_path: Path) -> None:
    folder = SearchFolder(tmp_path)
    folder.add(step(1, tried(0, "a")), None)
    folder.add(step(2, tried(0, "b")), None)
    whole = (tmp_path / STEPS).read_text()
    for cut in (1, 40, len(whole.splitlines()[1])):
        (tmp_path / STEPS).write_text(whole[:-cut])
        assert [one.number for one in folder.stand(None)] == [1]
        folder.add(step(2, tried(0, "again")), None)
        assert [one.attempts[0].text for one in folder.steps()] == ["a", "again"]


def test_a_broken_line_within_is_not_passed_over(tmp_path: Path) -> None:
    folder = SearchFolder(tmp_path)
    folder.add(step(1, tried(0, "a")), None)
    folder.add(replace(step(1, tried(0, "a")), number=3), None)
    folder.add(step(4, tried(0, "a")), None)
    with pytest.raises(UserError, match=r"line 2 of .* is not its step 2"):
        folder.steps()


def test_one_process_at_a_time_searches_in_a_folder(tmp_path: Path) -> None:
    with SearchFolder(tmp_path).claimed() as first, SearchFolder(tmp_path).claimed() as second:
        assert (first, second) == (True, False)
    with SearchFolder(tmp_path).claimed() as third:
        assert third


def test_a_solution_of_any_text_is_kept(tmp_path: Path) -> None:
    found = search(step(1, tried(0, HOSTILE, 1.0, None)))
    SearchFolder(tmp_path).finish(found, Ending.solved, {"task": TASK.id})
    assert json.loads((tmp_path / "solution.json").read_text())["solution"] == HOSTILE
    assert len((tmp_path / "solution.txt").read_text()) > 1_000_000
