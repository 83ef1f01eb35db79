"""Which attempts get which hint, and how it reads."""

import dataclasses

import pytest

from sdpo.config import HindsightConfig, HintChoice
from sdpo.envs.answers import without_thinking
from sdpo.hindsight.hints import CLOSING, choose_hints, hindsight_message, hint_of
from sdpo.types import Attempt, Completion, Finish, Group, Hint, Message, Role, Task, Verdict


def attempt(text: str, reward: float, feedback: str | None = None) -> Attempt:
    completion = Completion(token_ids=(1,), logprobs=(-0.5,), text=text, finish=Finish.stop, weights_version=0)
    return Attempt(completion=completion, verdict=Verdict(reward=reward, feedback=feedback))


def group(*attempts: Attempt, task_id: str = "sums/1") -> Group:
    task = Task(id=task_id, env="sums", messages=(Message(role=Role.user, content="What is 2 + 2?"),))
    return Group(task=task, prompt_ids=(1, 2), attempts=attempts)


def hints(of: Group, seed: str = "0/0", **config: object) -> tuple[Hint | None, ...]:
    return choose_hints(of, dataclasses.replace(HindsightConfig(), **config), seed)


MIXED = group(attempt("five", 0.0, "off by one"), attempt("four", 1.0), attempt("six", 0.0))
"""A failure with feedback, a solved attempt, and a failure of which nothing was said."""


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (HintChoice.demonstration_first, [("four", None), None, ("four", None)]),
        (HintChoice.both, [("four", "off by one"), None, ("four", None)]),
        (HintChoice.demonstration_only, [("four", None), None, ("four", None)]),
        (HintChoice.feedback_only, [(None, "off by one"), None, None]),
    ],
    ids=lambda value: value.value if isinstance(value, HintChoice) else "",
)
def test_each_choice_gives_what_its_name_says(choice, expected):
    given = [hint and (hint.of("demonstration"), hint.of("feedback")) for hint in hints(MIXED, choice=choice)]
    assert given == expected


@pytest.mark.parametrize(
    ("choice", "source"),
    [
        (HintChoice.demonstration_first, "feedback"),
        (HintChoice.both, "feedback"),
        (HintChoice.feedback_only, "feedback"),
        (HintChoice.demonstration_only, None),
    ],
    ids=lambda value: value.value if isinstance(value, HintChoice) else "",
)
def test_feedback_is_all_there_is_where_nobody_solved_the_task(choice, source):
    failures = group(attempt("five", 0.0, "too large"), attempt("three", 0.5, "too small"))
    assert [hint and hint.kind for hint in hints(failures, choice=choice)] == [source, source]


@pytest.mark.parametrize("choice", list(HintChoice), ids=lambda choice: choice.value)
def test_there_is_no_hint_where_there_is_neither_a_solved_sibling_nor_feedback(choice):
    assert hints(group(attempt("five", 0.0), attempt("six", 0.9)), choice=choice) == (None, None)
    assert hints(group(), choice=choice) == ()


def test_empty_feedback_is_no_hint():
    """An environment that says "" says nothing: a teacher shown nothing has no hindsight to teach."""
    assert hints(group(attempt("five", 0.0, ""), attempt("six", 0.0, ""))) == (None, None)


def test_nobody_is_shown_their_own_attempt():
    texts = [f"answer {index}" for index in range(5)]
    solved = group(*(attempt(text, 1.0) for text in texts))
    for seed in range(40):
        for text, hint in zip(texts, hints(solved, seed=str(seed)), strict=True):
            assert hint.of("demonstration") in texts
            assert hint.of("demonstration") != text


def test_a_lone_solved_attempt_has_nobody_to_learn_from():
    assert hints(group(attempt("four", 1.0))) == (None,)


def test_only_solved_siblings_demonstrate():
    nearly = group(attempt("five", 0.0), attempt("four, or so", 0.99), attempt("four", 1.0), attempt("six", 0.0))
    for seed in range(40):
        assert [hint and hint.of("demonstration") for hint in hints(nearly, seed=str(seed))] == ["four", "four", None, "four"]


def test_a_lower_demonstration_reward_lets_more_siblings_demonstrate_but_never_a_worthless_one():
    partly = group(attempt("five", 0.0), attempt("nearly four", 0.6))
    assert hints(partly, demonstration_reward=0.5)[0].of("demonstration") == "nearly four"
    worthless = group(attempt("five", 0.0), attempt("six", 0.0))
    assert hints(worthless, demonstration_reward=0.5) == (None, None)
    with pytest.raises(ValueError, match="demonstrates nothing"):
        hints(worthless, demonstration_reward=0.0)


def test_solved_attempts_get_hints_unless_told_otherwise():
    both_solved = group(attempt("four", 1.0), attempt("2 + 2 = 4", 1.0), attempt("five", 0.0))
    assert [hint.of("demonstration") for hint in hints(both_solved)[:2]] == ["2 + 2 = 4", "four"]
    first, second, third = hints(both_solved, solved_get_hints=False)
    assert (first, second) == (None, None)
    assert third is not None


def test_a_solved_attempt_need_not_be_shown_what_it_says_itself():
    """Shown its own words it becomes surer of them and learns nothing else."""
    solved = group(attempt("four", 1.0), attempt(" four ", 1.0), attempt("2 + 2 = 4", 1.0), attempt("five", 0.0))
    for seed in range(20):
        said = [hint.of("demonstration") for hint in hints(solved, seed=str(seed), repeats_get_hints=False)]
        assert said[:3] == ["2 + 2 = 4", "2 + 2 = 4", "four"]
        assert said[3] in ("four", "2 + 2 = 4")
    alike = group(attempt("four", 1.0), attempt("four", 1.0), attempt("five", 0.0))
    assert hints(alike, repeats_get_hints=False)[:2] == (None, None)
    assert hints(alike, repeats_get_hints=False)[2].of("demonstration") == "four"
    assert hints(alike)[0].of("demonstration") == "four"
    lone = group(attempt("four", 1.0))
    config = HindsightConfig(repeats_get_hints=False, success_buffer=1)
    assert choose_hints(lone, config, "0", remembered=["four"]) == (None,)
    (remembered,) = choose_hints(lone, config, "0", remembered=["2 + 2 = 4"])
    assert remembered.of("demonstration") == "2 + 2 = 4"
    with pytest.raises(ValueError, match="chooses among solved siblings"):
        HindsightConfig(repeats_get_hints=False, choice=HintChoice.reference)


def test_the_order_of_preference_is_a_function_of_the_seed_and_the_task():
    texts = [f"answer {index}" for index in range(9)]
    solved = group(*(attempt(text, 1.0) for text in texts))
    elsewhere = group(*(attempt(text, 1.0) for text in texts), task_id="sums/2")
    assert hints(solved, seed="0/3") == hints(solved, seed="0/3")
    assert hints(solved, seed="0/3") != hints(solved, seed="0/4")
    assert hints(solved, seed="0/3") != hints(elsewhere, seed="0/3")


def test_a_group_has_one_order_of_preference():
    """All are shown its first, and the first is shown the second: the hindsight prompts agree, and are computed once."""
    texts = [f"answer {index}" for index in range(4)]
    mixed = group(*[attempt("five", 0.0)] * 6, *(attempt(text, 1.0) for text in texts))
    for seed in range(20):
        shown = [hint.of("demonstration") for hint in hints(mixed, seed=str(seed))]
        preferred, of_solved = shown[0], dict(zip(texts, shown[6:], strict=True))
        its_own = of_solved.pop(preferred)
        assert set(shown[:6]) == set(of_solved.values()) == {preferred}
        assert its_own in of_solved


def test_what_was_said_of_the_failed_has_no_part_in_the_order_of_preference():
    solved = [attempt(f"answer {index}", 1.0) for index in range(3)]
    told, silent = (group(attempt("five", 0.0, feedback), *solved) for feedback in ("off by one", None))
    assert [hint.of("demonstration") for hint in hints(told)] == [hint.of("demonstration") for hint in hints(silent)]


def test_the_next_in_order_demonstrates_where_the_first_only_thought():
    thinkers = group(attempt("five", 0.0), *[attempt("<think>hm", 1.0)] * 5, attempt("four", 1.0), attempt("<think>hm", 1.0))
    for seed in range(20):
        shown = hints(thinkers, seed=str(seed))
        assert {hint and hint.of("demonstration") for hint in shown[:6]} == {"four"}
        assert shown[6] is None


REFERRED = HindsightConfig(choice=HintChoice.reference)


def test_the_environments_answer_stands_in_for_siblings_and_feedback_alike():
    given = choose_hints(MIXED, REFERRED, "0/0", reference="2 + 2 is 4", remembered=("four!",))
    assert given == (hint_of(demonstration="2 + 2 is 4", feedback=None),) * 3
    unsolved = dataclasses.replace(REFERRED, solved_get_hints=False)
    assert [hint is not None for hint in choose_hints(MIXED, unsolved, "0/0", reference="4")] == [True, False, True]


@pytest.mark.parametrize("reference", [None, "", " \n"])
def test_without_the_environments_answer_there_is_no_hint_also_where_a_sibling_solved_it(reference):
    assert choose_hints(MIXED, REFERRED, "0/0", reference=reference) == (None, None, None)


def test_the_environments_answer_is_shown_to_nobody_who_did_not_ask_for_it():
    for choice in set(HintChoice) - {HintChoice.reference}:
        config = HindsightConfig(choice=choice)
        assert choose_hints(MIXED, config, "0/0", reference="2 + 2 is 4") == choose_hints(MIXED, config, "0/0")


FAILURES = group(attempt("five", 0.0, "off by one"), attempt("six", 0.0))


def test_a_remembered_success_is_shown_where_no_sibling_solved_the_task():
    config = HindsightConfig(success_buffer=1)
    recalled = hint_of(demonstration="four!", feedback=None, is_remembered=True)
    assert choose_hints(FAILURES, config, "0/0", remembered=("four!",)) == (recalled, recalled)
    of_sibling = hint_of(demonstration="four", feedback=None)
    assert choose_hints(MIXED, config, "0/0", remembered=("four!",)) == (of_sibling, recalled, of_sibling)


def test_both_also_tell_what_was_wrong_beside_a_remembered_success():
    both = choose_hints(FAILURES, HindsightConfig(choice=HintChoice.both, success_buffer=1), "0/0", remembered=("four!",))
    assert [(hint.of("demonstration"), hint.of("feedback")) for hint in both] == [("four!", "off by one"), ("four!", None)]


def test_a_group_is_shown_one_remembered_success_and_each_sometimes():
    config, texts = HindsightConfig(success_buffer=3), ("four", "4", "2 + 2")
    shown = [{hint.of("demonstration") for hint in choose_hints(FAILURES, config, str(n), remembered=texts)} for n in range(40)]
    assert all(len(of_group) == 1 for of_group in shown)
    assert set.union(*shown) == set(texts)
    assert choose_hints(FAILURES, config, "3", remembered=texts) == choose_hints(FAILURES, config, "3", remembered=texts)


def test_without_hindsight_nobody_gets_a_hint():
    assert hints(MIXED, choice=HintChoice.none) == (None, None, None)


def test_every_solved_sibling_is_drawn_sometimes():
    failed = group(attempt("five", 0.0), *(attempt(f"answer {index}", 1.0) for index in range(4)))
    drawn = {hints(failed, seed=str(seed))[0].of("demonstration") for seed in range(60)}
    assert drawn == {f"answer {index}" for index in range(4)}


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>2 and 2</think>\n\nfour", "four"),
        ("<think>2\nand\n2</think>four<think>sure?</think> indeed", "four indeed"),
        ("four <think>or is it", "four"),
        ("<think>never closed", ""),
        ("<think></think>four", "four"),
        ("four", "four"),
    ],
)
def test_thinking_is_removed_also_where_it_was_never_closed(text, answer):
    assert without_thinking(text) == answer


def test_demonstrations_are_shown_without_their_thinking():
    assert hints(group(attempt("five", 0.0), attempt("<think>hm</think> four", 1.0)))[0].of("demonstration") == "four"


def test_a_sibling_that_only_thought_does_not_demonstrate():
    failed = group(attempt("five", 0.0, "off by one"), attempt("<think>four, clearly", 1.0))
    assert hints(failed)[0] == hint_of(demonstration=None, feedback="off by one")


def test_message_holds_the_question_the_hint_and_the_closing_instruction_in_this_order():
    message = hindsight_message("What is 2 + 2?", hint_of(demonstration="four", feedback="off by one").texts)
    assert message.role is Role.user
    places = [message.content.index(part) for part in ("What is 2 + 2?", "four", "off by one", CLOSING)]
    assert places == sorted(places)
    assert message.content.startswith("What is 2 + 2?")
    assert message.content.endswith(CLOSING)


def test_message_does_not_speak_of_what_the_hint_does_not_hold():
    shown = hindsight_message("Q", hint_of(demonstration="four", feedback=None).texts).content
    told = hindsight_message("Q", hint_of(demonstration=None, feedback="off by one").texts).content
    assert "Feedback" not in shown
    assert "solution" not in told
