"""Prompts out, groups in."""

import random

import pytest

from sdpo.attempts.groups import asked, grouped
from sdpo.types import Attempt, Completion, Finish, Message, Prompt, Role, SetAside, Task, Verdict

PROMPTS = ((1, 2), (3,), (4, 5, 6))
TASKS = tuple(Task(id=f"sums/{index}", env="sums", messages=(Message(role=Role.user, content="?"),)) for index in range(3))


def outcome(prompt: Prompt, *, breaks: bool = False) -> Attempt | SetAside:
    text = f"{prompt.task_index}/{prompt.attempt_index}"
    completion = Completion(token_ids=(1,), logprobs=(-1.0,), text=text, finish=Finish.stop, weights_version=0)
    if breaks:
        return SetAside(completion=completion, error="Traceback")
    return Attempt(completion=completion, verdict=Verdict(reward=0.0))


def test_each_prompt_is_asked_as_often_as_the_group_is_large():
    prompts = asked(PROMPTS, 4, "0/0")
    assert [(p.task_index, p.attempt_index) for p in prompts] == [(task, n) for task in range(3) for n in range(4)]
    assert all(prompt.token_ids == PROMPTS[prompt.task_index] for prompt in prompts)


def test_seeds_are_distinct_within_a_step_and_between_steps():
    seeds = [prompt.seed for step in range(20) for prompt in asked(PROMPTS, 8, f"0/{step}")]
    assert len(set(seeds)) == len(seeds) == 480


def test_seeds_fit_into_31_bits():
    assert all(0 <= prompt.seed < 2**31 for prompt in asked(PROMPTS, 50, "0/0"))


def test_a_seed_depends_on_its_place_alone():
    """Neither on the prompts, nor on how many others are asked."""
    few = {(p.task_index, p.attempt_index): p.seed for p in asked(PROMPTS[:1], 2, "0/0")}
    many = {(p.task_index, p.attempt_index): p.seed for p in asked(((9,), *PROMPTS[1:]), 8, "0/0")}
    assert few.items() <= many.items()


@pytest.mark.parametrize("seed", range(5))
def test_groups_do_not_depend_on_the_order_of_arrival(seed):
    verified = [(prompt, outcome(prompt, breaks=prompt.attempt_index == 1)) for prompt in asked(PROMPTS, 4, "0/0")]
    in_order = grouped(TASKS, PROMPTS, verified)
    random.Random(seed).shuffle(verified)
    assert grouped(TASKS, PROMPTS, verified) == in_order
    for index, group in enumerate(in_order):
        assert group.task == TASKS[index]
        assert group.prompt_ids == PROMPTS[index]
        assert [a.completion.text for a in group.attempts] == [f"{index}/0", f"{index}/2", f"{index}/3"]
        assert [s.completion.text for s in group.set_aside] == [f"{index}/1"]


def test_a_task_without_outcomes_keeps_its_place():
    first, _, third = asked(PROMPTS, 1, "0/0")
    groups = grouped(TASKS, PROMPTS, [(third, outcome(third)), (first, outcome(first))])
    assert [len(group.attempts) for group in groups] == [1, 0, 1]
