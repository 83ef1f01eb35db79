"""How is a task attempted? In one turn, or in several where the environment replies to the policy.

The tokens of a conversation are one response: the policy's turns as sampled, and between them the environment's. Those carry no
loss, but student and teacher both see them. What was sampled is never tokenised again. Turns go round by round: all conversations
that go on are continued together, and the prefix cache of the engine knows what was said before.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from sdpo.protocols import Renderer, Sampler, Watcher
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
    joined_versions,
)


def attempts(
    tasks_P: Sequence[Task], prompts: Sequence[Prompt], sampler: Sampler, sampling: Sampling, log: Watcher
) -> Iterator[tuple[Prompt, Attempt | SetAside]]:
    """One for each prompt, in the order in which verdicts arrive."""
    if not prompts:
        return
    last_came = time.monotonic()

    def sample(prompts: Sequence[Prompt]) -> Iterator[tuple[Prompt, Completion]]:
        nonlocal last_came
        for answer in log.watch(sampler.engine.sample(prompts, sampling), len(prompts)):
            last_came = time.monotonic()
            yield answer

    if sampling.max_turns == 1:
        yield from sampler.verifier.verify(tasks_P, sample(prompts))
    else:
        yield from _conversations(tasks_P, prompts, sampler, sampling, sample)
    log.judging(time.monotonic() - last_came)


def _conversations(
    tasks_P: Sequence[Task],
    prompts: Sequence[Prompt],
    sampler: Sampler,
    sampling: Sampling,
    sample: Callable[[Sequence[Prompt]], Iterator[tuple[Prompt, Completion]]],
) -> Iterator[tuple[Prompt, Attempt | SetAside]]:
    """Attempts of several turns."""
    over: list[tuple[Prompt, Completion]] = []
    going_on = list(prompts)
    first = {_key(prompt): prompt for prompt in prompts}
    before: dict[tuple[int, int], Completion] = {}
    for turn in range(sampling.max_turns):
        completions = [(prompt, _continued(before.get(_key(prompt)), completion)) for prompt, completion in sample(going_on)]
        if turn == sampling.max_turns - 1:
            over += completions
            break
        going_on = []
        for prompt, outcome in sampler.verifier.reply(tasks_P, completions):
            if isinstance(outcome, SetAside):
                yield prompt, outcome
                continue
            following = _following(first[_key(prompt)], outcome, sampler.renderer, sampling, turn)
            if following is None:
                over.append((prompt, outcome.completion))
            else:
                next_prompt, before[_key(prompt)] = following
                going_on.append(next_prompt)
        if not going_on:
            break
    yield from sampler.verifier.verify(tasks_P, over)


def _key(prompt: Prompt) -> tuple[int, int]:
    return prompt.task_index, prompt.attempt_index


def _continued(before: Completion | None, turn: Completion) -> Completion:
    """What was said so far, with the policy's new turn."""
    said = Message(role=Role.assistant, content=turn.text)
    if before is None:
        return replace(turn, own_mask=(True,) * len(turn.token_ids), turns=(said,))
    assert before.own_mask is not None
    return Completion(
        token_ids=before.token_ids + turn.token_ids,
        logprobs=before.logprobs + turn.logprobs,
        text=f"{before.text}\n\n{turn.text}",
        finish=turn.finish,
        weights_version=min(before.weights_version, turn.weights_version),
        versions=joined_versions(before.version_runs + turn.version_runs),
        own_mask=before.own_mask + (True,) * len(turn.token_ids),
        turns=(*before.turns, said),
    )


def _following(
    first: Prompt, reply: Reply, renderer: Renderer, sampling: Sampling, turn: int
) -> tuple[Prompt, Completion] | None:
    """The prompt of the policy's next turn, and the response so far with the reply in it; None where the conversation is over.

    It is over where nothing was replied, the policy did not end its turn, or there is no room for another.
    """
    completion = reply.completion
    if reply.text is None or completion.finish is not Finish.stop:
        return None
    said = renderer.reply(reply.text, after=completion.token_ids[-1])
    assert completion.own_mask is not None
    so_far = replace(
        completion,
        token_ids=completion.token_ids + said,
        logprobs=completion.logprobs + (0.0,) * len(said),
        own_mask=completion.own_mask + (False,) * len(said),
        turns=(*completion.turns, Message(role=Role.user, content=reply.text)),
    )
    room = sampling.max_response_tokens - len(so_far.token_ids)
    if room < 1:
        return None
    following = replace(
        first,
        token_ids=first.token_ids + so_far.token_ids,
        seed=random.Random(f"{first.seed}/{turn}").getrandbits(31),
        max_response_tokens=room,
    )
    return following, so_far
