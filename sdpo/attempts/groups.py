"""Prompts out, groups in: each task is asked several times, and what comes back is put together again, in whatever order."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from sdpo.errors import UserError
from sdpo.types import Attempt, Group, Prompt, SetAside, Task


def asked(prompts_P: Sequence[tuple[int, ...]], group_size: int, seed: str, *, first: int = 0) -> tuple[Prompt, ...]:
    """[P·G] each prompt ``group_size`` times, each with a seed of its own that depends on nothing but its place.

    ``first`` is the place of the first task.
    """
    return tuple(
        Prompt(
            token_ids=token_ids,
            seed=random.Random(f"{seed}/{task_index}/{attempt_index}").getrandbits(31),
            task_index=task_index,
            attempt_index=attempt_index,
        )
        for task_index, token_ids in enumerate(prompts_P, start=first)
        for attempt_index in range(group_size)
    )


def grouped(
    tasks_P: Sequence[Task],
    prompts_P: Sequence[tuple[int, ...]],
    verified: Iterable[tuple[Prompt, Attempt | SetAside]],
    *,
    first: int = 0,
) -> tuple[Group, ...]:
    """[P] the attempts at each task, in the order they were asked for, not the one they came in. ``first``: as in ``asked``."""
    by_task: list[dict[int, Attempt | SetAside]] = [{} for _ in tasks_P]
    for prompt, outcome in verified:
        of_task = by_task[prompt.task_index - first]
        assert prompt.attempt_index not in of_task, f"attempt {prompt.attempt_index} came twice"
        of_task[prompt.attempt_index] = outcome
    return tuple(
        Group(
            task=task,
            prompt_ids=tuple(token_ids),
            attempts=tuple(o for _, o in sorted(outcomes.items()) if isinstance(o, Attempt)),
            set_aside=tuple(o for _, o in sorted(outcomes.items()) if isinstance(o, SetAside)),
        )
        for task, token_ids, outcomes in zip(tasks_P, prompts_P, by_task, strict=True)
    )


def refuse_broken_environment(groups_P: Sequence[Group], max_share: float) -> None:
    """Raises UserError where more than ``max_share`` of the attempts had to be set aside: numbers of the rest would mislead."""
    broken = [outcome for group in groups_P for outcome in group.set_aside]
    total = len(broken) + sum(len(group.attempts) for group in groups_P)
    if len(broken) > max_share * total:
        raise UserError(
            f"at most {max_share:.0%} of the attempts may be set aside (rollout.max_set_aside_share), because their verification "
            f"broke; {len(broken)} of {total} were. The environment is at fault; its last error was:\n{broken[-1].error}"
        )
