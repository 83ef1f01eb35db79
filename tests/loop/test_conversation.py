"""Several turns with fakes: who is asked what, and which tokens are whose."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import pytest

from sdpo.attempts.conversation import attempts
from sdpo.protocols import Sampler
from sdpo.types import (
    Attempt,
    Completion,
    Finish,
    Message,
    Prompt,
    Reply,
    Role,
    Sampling,
    SetAside,
    Task,
    Verdict,
)
from tests.loop.fakes import FakeRenderer, FakeReport, task

END = 9
REPLY = (70, 71)


@dataclass
class Speaker:
    """Every turn is two tokens: how often this was asked, and the end of the turn, unless it runs out of room."""

    never_ends: bool = False
    first_version: int = 3
    """Of the weights; the next ones come with each turn."""
    asked: list[list[Prompt]] = field(default_factory=list)

    def load(self, weights: object, *, version: int) -> None:
        """Not looked at."""

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[tuple[Prompt, Completion]]:
        self.asked.append(list(prompts))
        turn = len(self.asked)
        for prompt in reversed(prompts):
            yield (
                prompt,
                Completion(
                    token_ids=(turn, END),
                    logprobs=(-1.0, -0.5),
                    text=f"turn {turn}",
                    finish=Finish.length if self.never_ends else Finish.stop,
                    weights_version=self.first_version + turn - 1,
                ),
            )


@dataclass
class Teller:
    """Replies to the first attempt ``num_replies`` times, to the second never, and breaks at the third."""

    num_replies: int
    transcripts: list[tuple[Message, ...]] = field(default_factory=list)

    def reply(
        self, tasks_P: Sequence[Task], completions: Iterable[tuple[Prompt, Completion]]
    ) -> Iterator[tuple[Prompt, Reply | SetAside]]:
        for prompt, completion in completions:
            self.transcripts.append(completion.transcript)
            said = sum(message.role is Role.assistant for message in completion.transcript)
            if prompt.attempt_index == 2:
                yield prompt, SetAside(completion=completion, error="the environment broke")
            else:
                is_over = prompt.attempt_index == 1 or said > self.num_replies
                yield prompt, Reply(completion=completion, text=None if is_over else "go on")

    def verify(
        self, tasks_P: Sequence[Task], completions: Iterable[tuple[Prompt, Completion]]
    ) -> Iterator[tuple[Prompt, Attempt | SetAside]]:
        for prompt, completion in completions:
            yield prompt, Attempt(completion=completion, verdict=Verdict(reward=1.0))


class Renderer(FakeRenderer):
    def reply(self, text: str, *, after: int) -> tuple[int, ...]:
        assert (text, after) == ("go on", END)
        return REPLY


def talk(
    num_attempts: int, *, max_turns: int, speaker: Speaker, teller: Teller, room: int = 100
) -> dict[int, Attempt | SetAside]:
    prompts = [Prompt(token_ids=(1, 2, 3), seed=5 + i, task_index=0, attempt_index=i) for i in range(num_attempts)]
    sampling = Sampling(temperature=1.0, top_p=1.0, max_response_tokens=room, max_turns=max_turns)
    sampler = Sampler(engine=speaker, verifier=teller, renderer=Renderer())  # type: ignore[arg-type]
    found = attempts([task("t")], prompts, sampler, sampling, FakeReport([]))
    return {prompt.attempt_index: outcome for prompt, outcome in found}


def completion_of(outcome: Attempt | SetAside) -> Completion:
    assert isinstance(outcome, Attempt)
    return outcome.completion


def test_a_conversation_is_one_response_in_which_only_the_policys_tokens_are_its_own() -> None:
    speaker, teller = Speaker(), Teller(num_replies=1)
    completion = completion_of(talk(2, max_turns=3, speaker=speaker, teller=teller)[0])
    assert completion.token_ids == (1, END, *REPLY, 2, END)
    assert completion.own_mask == (True, True, False, False, True, True)
    assert completion.logprobs == (-1.0, -0.5, 0.0, 0.0, -1.0, -0.5)
    assert completion.text == "turn 1\n\nturn 2"
    assert [message.content for message in completion.turns] == ["turn 1", "go on", "turn 2"]


def test_every_turn_keeps_the_version_that_sampled_it() -> None:
    completion = completion_of(talk(1, max_turns=3, speaker=Speaker(), teller=Teller(num_replies=2))[0])
    assert completion.versions == ((3, 2), (4, 2), (5, 2))
    assert completion.weights_version == 3
    assert completion_of(talk(1, max_turns=1, speaker=Speaker(), teller=Teller(num_replies=0))[0]).versions == ()


def test_what_was_sampled_is_continued_and_never_tokenised_again() -> None:
    speaker, teller = Speaker(), Teller(num_replies=2)
    talk(1, max_turns=3, speaker=speaker, teller=teller)
    first, second, third = (asked[0] for asked in speaker.asked)
    assert second.token_ids == (1, 2, 3, 1, END, *REPLY)
    assert third.token_ids == (1, 2, 3, 1, END, *REPLY, 2, END, *REPLY)
    assert (second.max_response_tokens, third.max_response_tokens) == (96, 92)
    assert len({first.seed, second.seed, third.seed}) == 3


def test_those_with_nothing_more_to_hear_are_not_asked_again() -> None:
    speaker, teller = Speaker(), Teller(num_replies=1)
    outcomes = talk(2, max_turns=5, speaker=speaker, teller=teller)
    assert [[prompt.attempt_index for prompt in asked] for asked in speaker.asked] == [[0, 1], [0]]
    assert completion_of(outcomes[1]).token_ids == (1, END)


def test_the_last_turn_is_judged_without_another_reply() -> None:
    speaker, teller = Speaker(), Teller(num_replies=9)
    assert len(completion_of(talk(1, max_turns=2, speaker=speaker, teller=teller)[0]).token_ids) == 6
    assert len(teller.transcripts) == 1


def test_a_conversation_ends_where_there_is_no_room_and_where_the_policy_did_not_end_its_turn() -> None:
    assert completion_of(talk(1, max_turns=3, speaker=Speaker(), teller=Teller(num_replies=9), room=4)[0]).token_ids == (1, END)
    endless = Speaker(never_ends=True)
    assert completion_of(talk(1, max_turns=3, speaker=endless, teller=Teller(num_replies=9))[0]).token_ids == (1, END)


def test_an_environment_that_breaks_while_it_replies_costs_that_attempt_alone() -> None:
    outcomes = talk(3, max_turns=2, speaker=Speaker(), teller=Teller(num_replies=1))
    assert [type(outcomes[index]) for index in range(3)] == [Attempt, Attempt, SetAside]


def test_with_one_turn_nobody_is_asked_for_a_reply() -> None:
    teller = Teller(num_replies=9)
    completion = completion_of(talk(1, max_turns=1, speaker=Speaker(), teller=teller)[0])
    assert teller.transcripts == []
    assert completion.own_mask is None
    assert completion.transcript == (Message(role=Role.assistant, content="turn 1"),)


@pytest.mark.parametrize("mask", [(True,), (True, False, True)])
def test_a_mask_must_cover_the_tokens(mask: tuple[bool, ...]) -> None:
    with pytest.raises(ValueError, match="mask must cover its 2 tokens"):
        Completion(token_ids=(1, 2), logprobs=(0.0, 0.0), text="", finish=Finish.stop, weights_version=0, own_mask=mask)
