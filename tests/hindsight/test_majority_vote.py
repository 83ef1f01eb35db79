"""Who is shown which attempt where a group votes, and that nobody looks at a verdict."""

from __future__ import annotations

import pytest

from sdpo.config import HindsightConfig, HintChoice
from sdpo.hindsight.hints import choose_hints
from sdpo.hindsight.majority_vote import MajorityVote, corrections
from sdpo.types import Attempt, Completion, Finish, Group, Message, Role, Task, Verdict


def attempt(text: str, reward: float = 0.0) -> Attempt:
    """As many tokens as characters."""
    num = max(len(text), 1)
    completion = Completion(token_ids=(1,) * num, logprobs=(-0.5,) * num, text=text, finish=Finish.stop, weights_version=0)
    return Attempt(completion=completion, verdict=Verdict(reward=reward, feedback="said of it"))


def group(*texts: str, reward: float = 0.0, task_id: str = "sums/1") -> Group:
    task = Task(id=task_id, env="sums", messages=(Message(role=Role.user, content="What is 2 + 2?"),))
    return Group(task=task, prompt_ids=(1, 2), attempts=tuple(attempt(text, reward) for text in texts))


SHORT, LONG = "So <answer>4</answer>", "I count on my fingers. So <answer> **4** </answer>"
WRONG, LONG_WRONG = "<answer>5</answer>", "I count on my other fingers. <answer>6</answer>"


def test_the_longest_that_disagrees_is_shown_the_shortest_that_agrees() -> None:
    assert corrections(group(LONG, WRONG, SHORT, LONG_WRONG)) == (None, None, None, SHORT)


def test_an_answer_is_the_same_in_every_wrapping() -> None:
    boxed, plain = "Thus \\boxed{\\text{Yes}}", "<answer>yes.</answer>"
    assert corrections(group(boxed, plain, "<answer>no</answer>")) == (None, None, plain)


def test_what_was_only_thought_is_neither_counted_nor_shown() -> None:
    thought = "<think>\\boxed{5}</think>\\boxed{4}"
    assert corrections(group(thought, "so it must be \\boxed{4}", "\\boxed{5}")) == (None, None, "\\boxed{4}")


def test_fewer_than_half_are_no_majority() -> None:
    """Also where the others have no answer: τ is a share of all attempts."""
    assert corrections(group(SHORT, SHORT, WRONG, LONG_WRONG, "no idea")) == (None,) * 5


def test_half_are_a_majority_and_of_two_halves_the_tasks_name_draws_one() -> None:
    drawn = {corrections(group(SHORT, WRONG, task_id=f"sums/{number}")) for number in range(20)}
    assert drawn == {(None, SHORT), (WRONG, None)}
    assert corrections(group(SHORT, WRONG)) == corrections(group(SHORT, WRONG))


def test_an_attempt_without_an_answer_is_shown_nothing() -> None:
    """It is no evidence of a wrong belief, and would be the longest of all where it rambled up to the limit."""
    assert corrections(group(SHORT, SHORT, "and then, " * 50, WRONG)) == (None, None, None, SHORT)


def test_without_any_marks_all_that_was_said_is_the_answer() -> None:
    assert corrections(group("4", " 4.", "five", "")) == (None, None, "4", None)


@pytest.mark.parametrize("texts", [(), ("",), ("", "  "), ("<answer>", "\\boxed{"), (SHORT, SHORT)], ids=repr)
def test_where_nobody_disagrees_readably_nobody_is_shown_anything(texts: tuple[str, ...]) -> None:
    assert corrections(group(*texts)) == (None,) * len(texts)


def test_the_hints_do_not_depend_on_the_verdicts() -> None:
    """It needs no label, so a wrong one must not matter: an answer that the environment calls wrong is shown as well."""
    config = HindsightConfig(choice=HintChoice.none, sources=["majority_vote"])
    given = [choose_hints(group(SHORT, LONG, WRONG, reward=reward), config, "0/0") for reward in (0.0, 1.0)]
    assert given[0] == given[1]
    assert [hint and hint.of("majority_vote") for hint in given[0]] == [None, None, SHORT]


def test_a_source_that_was_asked_about_one_group_knows_the_next() -> None:
    source = MajorityVote()
    first, second = group(SHORT, LONG, WRONG), group(WRONG, WRONG, SHORT)
    assert [source.text(first, index) for index in range(3)] == [None, None, SHORT]
    assert [source.text(second, index) for index in range(3)] == [None, None, WRONG]
