"""What a verifier makes of an environment: an attempt, or what was set aside, and with it the task's id."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from sdpo.attempts.conversation import attempts
from sdpo.attempts.groups import grouped, refuse_broken_environment
from sdpo.errors import Stopped, UserError
from sdpo.machines.local import LocalVerifier
from sdpo.rollout.verify import judge, reply
from sdpo.types import Attempt, Completion, Finish, Message, Prompt, Reply, Role, Sampling, SetAside, Task, Verdict
from tests.loop.fakes import FakeRenderer
from tests.loop.test_conversation import END, Speaker

TASK = Task(id="sums/17", env="sums", messages=(Message(role=Role.user, content="2 + 2?"),))
FOUR = Completion(token_ids=(1,), logprobs=(-1.0,), text="4", finish=Finish.stop, weights_version=0)
RIGHT = Verdict(reward=1.0)


class Sums:
    """Its verdict is whatever a function makes."""

    name = "sums"

    def __init__(self, make: Callable[[], object]) -> None:
        self._make = make

    def tasks(self, split: str, seed: int) -> Sequence[Task]:
        return [TASK]

    def verify(self, task: Task, completion: str) -> Verdict:
        return self._make()  # type: ignore[return-value]


class Talk(Sums):
    """The same in several turns, where the function makes the replies."""

    def reply(self, task: Task, transcript: Sequence[Message]) -> str | None:
        return self._make()  # type: ignore[return-value]

    def judge(self, task: Task, transcript: Sequence[Message]) -> Verdict:
        said = [message.content for message in transcript if message.role is Role.assistant]
        return Verdict(reward=float(len(said) == len(transcript) // 2 + 1), feedback=" | ".join(said))


def raised(error: BaseException) -> None:
    raise error


ODD: dict[str, Callable[[], object]] = {
    "no verdict": lambda: 1.0,
    "a reward above 1": lambda: Verdict(reward=1.5),
    "a reward that is a list": lambda: Verdict(reward=[1.0]),  # type: ignore[arg-type]
    "feedback that is a list": lambda: Verdict(reward=0.0, feedback=["no"]),  # type: ignore[arg-type]
    "feedback that is a number": lambda: Verdict(reward=0.0, feedback=3),  # type: ignore[arg-type]
    "feedback of bytes": lambda: Verdict(reward=0.0, feedback=b"no"),  # type: ignore[arg-type]
    "feedback that is an exception": lambda: Verdict(reward=0.0, feedback=ValueError("no")),  # type: ignore[arg-type]
    "half a surrogate": lambda: Verdict(reward=0.0, feedback="no \ud800"),
    "metrics that are text": lambda: Verdict(reward=0.0, metrics="share"),  # type: ignore[arg-type]
    "no metrics": lambda: Verdict(reward=0.0, metrics=None),  # type: ignore[arg-type]
    "metrics in a list": lambda: Verdict(reward=0.0, metrics=[1.0]),  # type: ignore[arg-type]
    "an exception with half a surrogate": lambda: raised(RuntimeError("\ud800")),
    "an end of the process": lambda: sys.exit("done"),
}


@pytest.mark.parametrize("what", ODD)
def test_an_odd_verdict_is_set_aside_and_told_with_the_tasks_id(what: str) -> None:
    """Each of them ended a training run with a traceback, in the first step or in the two-hundredth."""
    (answer,) = LocalVerifier(Sums(ODD[what])).verify((TASK,), [(PROMPT, FOUR)])
    assert isinstance(answer[1], SetAside)
    assert pickle.loads(pickle.dumps(answer)) == answer
    answer[1].error.encode()
    groups = grouped((TASK,), ((1,),), [answer])
    with pytest.raises(UserError, match=r"1 of 1 were. The environment is at fault; its last error was:\ntask 'sums/17'"):
        refuse_broken_environment(groups, 0.2)


PROMPT = Prompt(token_ids=(1,), seed=0, task_index=0, attempt_index=0)


def test_numbers_of_numpy_are_an_attempts() -> None:
    outcome = judge(Sums(lambda: Verdict(reward=np.float32(1.0), metrics={"tests": np.int64(3)})), TASK, FOUR)  # type: ignore[arg-type, dict-item]
    assert outcome == Attempt(completion=FOUR, verdict=Verdict(reward=1.0, metrics={"tests": 3.0}))
    assert isinstance(outcome, Attempt)
    assert type(outcome.verdict.reward) is float


@pytest.mark.parametrize("said", [5, ["go on"], b"go on", "\ud800", lambda: "go on"])
def test_an_odd_reply_is_set_aside(said: object) -> None:
    outcome = reply(Talk(lambda: said), TASK, FOUR)
    assert isinstance(outcome, SetAside)
    assert outcome.error.startswith("task 'sums/17': ")
    assert "reply must" in outcome.error


def test_a_reply_of_an_environment_of_one_turn_is_set_aside() -> None:
    outcome = reply(Sums(lambda: RIGHT), TASK, FOUR)
    assert isinstance(outcome, SetAside)
    assert "Sums lacks" in outcome.error


def test_a_reply_is_passed_on() -> None:
    assert reply(Talk(lambda: "go on"), TASK, FOUR) == Reply(completion=FOUR, text="go on")
    assert reply(Talk(lambda: None), TASK, FOUR) == Reply(completion=FOUR, text=None)


def test_a_signal_that_asks_for_an_end_is_not_the_environments() -> None:
    with pytest.raises(Stopped):
        judge(Sums(lambda: raised(Stopped(15))), TASK, FOUR)


class Renderer(FakeRenderer):
    def reply(self, text: str, *, after: int) -> tuple[int, ...]:
        assert after == END
        return (70,)


@pytest.mark.parametrize(("max_turns", "said"), [(1, "turn 1"), (2, "turn 1 | turn 2"), (3, "turn 1 | turn 2 | turn 3")])
def test_a_conversational_environment_judges_the_conversation_also_where_it_has_one_turn(max_turns: int, said: str) -> None:
    sampling = Sampling(temperature=1.0, top_p=1.0, max_response_tokens=100, max_turns=max_turns)
    verifier = LocalVerifier(Talk(lambda: "go on"))
    found = attempts((TASK,), [PROMPT], Speaker(), verifier, Renderer(), sampling, lambda completions, total: iter(completions))
    ((_, outcome),) = found
    assert isinstance(outcome, Attempt)
    assert outcome.verdict == Verdict(reward=1.0, feedback=said)
