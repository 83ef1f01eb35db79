"""Which of many possible questions are asked? As many of each difficulty, and of each answer, as can be."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import zip_longest
from typing import TypeVar

from sdpo.envs.chemistry.molecules import stable_hash
from sdpo.envs.chemistry.question import Difficulty, Question

AnyQuestion = TypeVar("AnyQuestion", bound=Question)
Item = TypeVar("Item")


def take_evenly(questions: Iterable[AnyQuestion], limit: int, *, kind: Callable[[AnyQuestion], str]) -> list[AnyQuestion]:
    """At most ``limit`` of each difficulty, of every kind alike: where the kind is the answer, none pays by default."""
    taken = []
    # One of each key: two molecules may well have the same slip, or give the same product.
    drawn = draw({question.key: question for question in questions}.values(), key=lambda question: question.key)
    for difficulty in Difficulty:
        by_kind: dict[str, list[AnyQuestion]] = {}
        for question in drawn:
            if question.difficulty is difficulty:
                by_kind.setdefault(kind(question), []).append(question)
        rounds = zip_longest(*(by_kind[name] for name in sorted(by_kind)))
        taken += [question for one_of_each in rounds for question in one_of_each if question is not None][:limit]
    return taken


def draw(items: Iterable[Item], *, key: Callable[[Item], str]) -> list[Item]:
    """In an order that looks random and is the same in every process."""
    return sorted(items, key=lambda item: stable_hash(key(item)))
