"""What an environment returns is a verdict in plain values, or a sentence: nothing else gets any further."""

from __future__ import annotations

import json
import pickle
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch

from sdpo.envs.judging import (
    MOST_CHARS,
    InvalidReply,
    reference_of,
    reply_of,
    told,
    told_at_length,
    unreadable_part,
    valid_verdict,
    verdict_of,
    verdict_on,
)
from sdpo.types import InvalidVerdict, Message, Role, Task, Verdict

QUESTION = Message(role=Role.user, content="2 + 2?")
TASK = Task(id="sums/1", env="sums", messages=(QUESTION,))


def made(reward: object = 0.5, feedback: object = None, metrics: object = None) -> Verdict:
    """A verdict of whatever an author may put into one."""
    verdict = Verdict(reward=0.0)
    for name, value in {"reward": reward, "feedback": feedback, "metrics": {} if metrics is None else metrics}.items():
        object.__setattr__(verdict, name, value)
    return verdict


@pytest.mark.parametrize(
    ("reward", "plain"),
    [
        (np.float32(0.5), 0.5),
        (np.float16(1), 1.0),
        (np.int64(1), 1.0),
        (np.bool_(True), 1.0),
        (np.longdouble(0.25), 0.25),
        (np.where(True, 1.0, 0.0), 1.0),
        (torch.tensor(0.5), 0.5),
        (True, 1.0),
        (0, 0.0),
        (Fraction(1, 4), 0.25),
    ],
)
def test_a_librarys_number_is_a_number(reward: object, plain: float) -> None:
    """A reward of numpy's float32 ended a run in the first file that JSON was written into."""
    verdict = valid_verdict(Verdict(reward=reward, metrics={"share": reward}), "verify")  # type: ignore[arg-type, dict-item]
    assert (type(verdict.reward), verdict.reward) == (float, plain)
    assert json.loads(json.dumps(dict(verdict.metrics))) == {"share": plain}


@pytest.mark.parametrize(
    "reward",
    [
        1.5,
        -0.1,
        float("nan"),
        float("inf"),
        10**400,
        "1.0",
        b"1",
        None,
        [1.0],
        np.array([1.0]),
        1j,
        np.complex64(1),
        Decimal(1),
        object(),
    ],
)
def test_a_reward_that_is_no_number_from_0_to_1_is_refused_where_it_is_made_and_where_it_is_read(reward: object) -> None:
    with pytest.raises(InvalidVerdict, match="a reward must") as made_here:
        Verdict(reward=reward)  # type: ignore[arg-type]
    with pytest.raises(InvalidVerdict, match=r"a reward must .*verify of Sums") as read_here:
        valid_verdict(made(reward=reward), "verify of Sums")
    assert made_here.value.part == read_here.value.part == "reward"


@pytest.mark.parametrize("feedback", [["wrong"], 5, b"wrong", ValueError("wrong"), "half \ud800 of it", "x" * (MOST_CHARS + 1)])
def test_feedback_that_is_no_text_that_can_be_written_is_refused(feedback: object) -> None:
    with pytest.raises(InvalidVerdict, match="feedback must") as refusal:
        valid_verdict(made(feedback=feedback), "verify")
    assert refusal.value.part == ("feedback-text" if isinstance(feedback, str) else "feedback")


@pytest.mark.parametrize(
    "metrics",
    [
        "share", None, [("share", 1.0)], 3, {1: 1.0}, {"": 1.0}, {b"share": 1.0}, {"\ud800": 1.0}, {"share": "half"},
        {"share": None},        {"share": float("nan")}, {"share": float("inf")}, {"share": {"of": 1.0}},
        {"share": np.array([1.0, 2.0])},
        {str(number): 1.0 for number in range(2000)},
    ],
)  # fmt: skip
def test_metrics_that_do_not_map_names_to_numbers_are_refused(metrics: object) -> None:
    returned = made()
    object.__setattr__(returned, "metrics", metrics)
    with pytest.raises(InvalidVerdict, match="metric") as refusal:
        valid_verdict(returned, "verify")
    assert refusal.value.part == "metrics"


@pytest.mark.parametrize("returned", [None, 1.0, True, (1.0, "wrong"), {"reward": 1.0}, Verdict])
def test_what_is_no_verdict_is_refused(returned: object) -> None:
    with pytest.raises(InvalidVerdict, match="a Verdict must be returned; verify of Sums returned a"):
        valid_verdict(returned, "verify of Sums")


class Lazy(Verdict):
    @property
    def feedback(self) -> str:  # type: ignore[override]
        raise ConnectionError("the judge \ud800 is away")


class Endless(Mapping[str, float]):
    def __getitem__(self, key: str) -> float:
        return 1.0

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[str]:
        number = 0
        while True:
            number += 1
            yield str(number)


class Text(str):
    __slots__ = ()

    def __reduce__(self) -> tuple[object, ...]:
        raise RuntimeError("never travels")

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        raise RuntimeError("never written")


class Loud(Verdict):
    """Has more to it than a verdict."""

    log = open  # what cannot be pickled


def test_what_raises_while_it_is_read_is_refused_in_words_that_can_be_written() -> None:
    verdict = object.__new__(Lazy)
    object.__setattr__(verdict, "reward", 1.0)
    with pytest.raises(InvalidVerdict, match="reading that of verify raised ConnectionError") as refusal:
        valid_verdict(verdict, "verify")
    str(refusal.value).encode()


def test_metrics_without_end_are_refused_in_time() -> None:
    with pytest.raises(InvalidVerdict, match="at most 1000 metrics"):
        valid_verdict(Verdict(reward=1.0, metrics=Endless()), "verify")


def test_subclasses_become_plain() -> None:
    returned = Loud(reward=0.5, feedback=Text("no"), metrics=Counter({Text("tests"): 3}))
    verdict = valid_verdict(returned, "verify")
    assert verdict == Verdict(reward=0.5, feedback="no", metrics={"tests": 3.0})
    assert [type(part) for part in (verdict, verdict.feedback, verdict.metrics, *verdict.metrics)] == [Verdict, str, dict, str]
    assert pickle.loads(pickle.dumps(verdict)) == verdict


def test_a_refusal_travels_between_processes() -> None:
    refusal = pickle.loads(pickle.dumps(InvalidVerdict("a reward must", part="reward")))
    assert (str(refusal), refusal.part) == ("a reward must", "reward")


class Talk:
    """Judges the conversation, and would give itself away if it were asked to verify."""

    name = "talk"

    def __init__(self, reply: object = None, reference: object = "4") -> None:
        self._reply, self._reference = reply, reference

    def tasks(self, split: str, seed: int) -> Sequence[Task]:
        return [TASK]

    def reply(self, task: Task, transcript: Sequence[Message]) -> str | None:
        return self._reply  # type: ignore[return-value]

    def judge(self, task: Task, transcript: Sequence[Message]) -> Verdict:
        return Verdict(reward=0.0, feedback=" / ".join(f"{said.role.value}: {said.content}" for said in transcript))

    def verify(self, task: Task, completion: str) -> Verdict:
        raise AssertionError("a conversational environment judges")

    def reference(self, task: Task) -> str:
        return self._reference  # type: ignore[return-value]


def test_a_conversational_environment_sees_who_said_what_and_is_never_asked_to_verify() -> None:
    """It was given the policy's turns in one text with a control character between them, which one answer could hold too."""
    said = (
        Message(role=Role.assistant, content="3\x1e4"),
        Message(role=Role.user, content="no"),
        Message(role=Role.assistant, content="4"),
    )
    assert verdict_of(Talk(), TASK, said).feedback == "assistant: 3\x1e4 / user: no / assistant: 4"
    assert verdict_on(Talk(), TASK, "4").feedback == "assistant: 4"


@pytest.mark.parametrize("reply", [5, ["go on"], b"go on", "half \ud800", "x" * (MOST_CHARS + 1)])
def test_a_reply_that_is_no_text_is_refused(reply: object) -> None:
    with pytest.raises(InvalidReply, match="reply must"):
        reply_of(Talk(reply), TASK, (Message(role=Role.assistant, content="3"),))


def test_a_reply_is_plain_text_or_nothing() -> None:
    said = reply_of(Talk(Text("go on")), TASK, (Message(role=Role.assistant, content="3"),))
    assert (said, type(said)) == ("go on", str)
    assert reply_of(Talk(None), TASK, (Message(role=Role.assistant, content="3"),)) is None


@pytest.mark.parametrize("reference", [4, None, "half \ud800"])
def test_a_reference_that_is_no_text_is_refused(reference: object) -> None:
    with pytest.raises(ValueError, match="a reference must"):
        reference_of(Talk(reference=reference), TASK)


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even this")


@pytest.mark.parametrize(
    "error", [ValueError("half \ud800 of it"), Unprintable(), SyntaxError("x", (1, 2, 3, 4)), ValueError("y" * 10**6)]
)
def test_whatever_was_raised_can_be_told(error: Exception) -> None:
    for text in (told(error), told_at_length(error)):
        assert type(error).__name__ in text or len(text) == 20_000
        assert len(text.encode()) < 30_000


def test_a_task_that_no_tokenizer_can_read_is_known_by_its_part() -> None:
    half = "2 + \udfff"
    assert unreadable_part(TASK) is None
    assert unreadable_part(Task(id=half, env="sums", messages=(QUESTION,))) == "its id"
    system = Message(role=Role.system, content=half)
    assert unreadable_part(Task(id="1", env="sums", messages=(system, QUESTION))) == "its system message"
    unset = Message(role=Role.user, content=None)  # type: ignore[arg-type]
    assert unreadable_part(Task(id="1", env="sums", messages=(unset,))) == "its user message"
