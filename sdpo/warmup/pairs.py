"""Pairs from what is known of the training tasks: a hindsight prompt as training will show it, and a right answer to it.

A demonstration is another right answer where there is one. Otherwise it is the answer itself, and what is learned is to take over
what is shown. Feedback is what the environment said of a wrong answer, whoever wrote that.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sdpo.errors import UserError
from sdpo.hindsight.hints import hint_of
from sdpo.protocols import Renderer
from sdpo.warmup.exploration import Answer, Explored, Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """What a model that uses hindsight would do."""

    task_id: str
    source: str
    origin: str
    """Whose answer is learned and, after a hyphen, whose demonstration or failure is shown: ``"reference-own"``."""
    prompt_ids: tuple[int, ...]
    """The hindsight prompt."""
    response_ids: tuple[int, ...]
    """A right answer, its turn ended."""


Pairs = Mapping[str, Sequence[Pair]]


def make_pairs(explored: Sequence[Explored], renderer: Renderer, seed: int) -> Pairs:
    """All pairs there are, of every source that has any. Raises UserError where there is none at all."""
    found: dict[str, list[Pair]] = {}
    for task in explored:
        for pair in _of_task(task, renderer, random.Random(f"{seed}/pairs/{task.group.task.id}")):
            found.setdefault(pair.source, []).append(pair)
    if not found:
        num_attempts = sum(len(task.group.attempts) for task in explored)
        raise UserError(
            "a warm-up needs right answers to learn; the environment has no reference that it accepts and that fits into "
            f"sampling.max_response_tokens, and none of the model's own {num_attempts} attempts was solved and ended by itself. "
            "Give the environment a method reference(task) (docs/environments.md), choose easier tasks, or raise "
            "sampling.max_response_tokens or pairs.num_tasks."
        )
    return found


def counts(pairs: Pairs) -> dict[str, dict[str, int]]:
    """By source of the hint, then by origin."""
    return {source: dict(sorted(Counter(pair.origin for pair in of_source).items())) for source, of_source in pairs.items()}


def _of_task(explored: Explored, renderer: Renderer, draw: random.Random) -> Iterator[Pair]:
    learnable = [answer for answer in explored.answers if answer.token_ids is not None]
    if not learnable:
        return
    for target in learnable:
        shown = _another(target, explored.answers, draw)
        yield from _pair(explored, renderer, target, shown, None)
    for failure in explored.failures:
        target = draw.choice(learnable)
        shown = _another(target, explored.answers, draw)
        yield from _pair(explored, renderer, target, None, failure)
        yield from _pair(explored, renderer, target, shown, failure)


def _another(target: Answer, answers: Sequence[Answer], draw: random.Random) -> Answer:
    others = [answer for answer in answers if answer != target]
    return draw.choice(others) if others else target


def _pair(
    explored: Explored, renderer: Renderer, target: Answer, shown: Answer | None, failure: Failure | None
) -> Iterator[Pair]:
    """None where nothing of the hint fits into the prompt."""
    hint = hint_of(demonstration=shown.text if shown else None, feedback=failure.feedback if failure else None)
    prompt_ids = renderer.hindsight_prompt(explored.group.task, hint)
    if prompt_ids is None:
        return
    assert target.token_ids is not None
    of_hint = failure or shown
    assert of_hint is not None
    yield Pair(
        task_id=explored.group.task.id,
        source=hint.kind,
        origin=f"{_whose(target.is_own)}-{'itself' if of_hint is target else _whose(of_hint.is_own)}",
        prompt_ids=prompt_ids,
        response_ids=target.token_ids,
    )


def _whose(is_own: bool) -> str:
    return "own" if is_own else "reference"
