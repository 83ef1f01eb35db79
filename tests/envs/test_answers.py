"""The reader of answers that every environment shares."""

from __future__ import annotations

import pytest

from sdpo.envs.answers import NoAnswer, plain_answer, tagged_answer, undecorated


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("so <answer> 3 </answer>", "3"),
        ("<answer>1</answer> no: <answer>2</answer>", "2"),
        ("<answer>1</answer> as said <answer>", "1"),
        ("<ANSWER>3</Answer>", "3"),
        ("<think>is it <answer>1</answer>?</think><answer>2</answer>", "2"),
        ("is it <answer>1</answer>?</think><answer>2</answer>", "2"),
    ],
)
def test_last_pair_of_tags_outside_the_thoughts_is_read(completion: str, answer: str) -> None:
    """Thinking never counts: a draft in the thoughts was read as the answer."""
    assert tagged_answer(completion) == answer


@pytest.mark.parametrize(
    ("completion", "word"),
    [
        ("3", "no answer to read"),
        ("<think>hm <answer>3</answer>", "outside the thoughts"),
        ("<answer>3", "never closed"),
        ("3</answer>", "never opened"),
        ("<answer> </answer>", "empty"),
        ("<answer>" + "3" * 30_000 + "</answer>", "too long"),
    ],
)
def test_why_there_is_none_is_said(completion: str, word: str) -> None:
    with pytest.raises(NoAnswer, match=word):
        tagged_answer(completion)


def test_a_thought_that_never_ends_is_no_plain_answer() -> None:
    with pytest.raises(NoAnswer, match="empty"):
        plain_answer("<think> 3")


@pytest.mark.parametrize(
    "written",
    [
        "3",
        "**3**",
        "3.",
        "**3**.",
        r"\boxed{3}",
        r"$\boxed{3}$",
        "`3`",
        '"3"',
        r"\(3\)",
        "***3***",
        r"**$\boxed{\text{3}}$**.",
        "```\n3\n```",
    ],
)
def test_decoration_means_nothing(written: str) -> None:
    assert undecorated(written) == "3"


@pytest.mark.parametrize(
    "written",
    ["C=C", "*C", "[NH4+]", "1.5", "a*b", "(3)", "\\frac{1}{2}", "", ".", "**", r"\text{C}_{2}", "**a** b **c**", "$a$ b $c$"],
)
def test_what_is_no_decoration_stays(written: str) -> None:
    assert undecorated(written) == written
