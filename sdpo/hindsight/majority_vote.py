"""What do most attempts at a task agree on? A demonstration without a label (U-OPSD, arXiv 2608.06296).

The answers of a group are read from its completions, and the most frequent one is taken for right where at least half of the
attempts give it. The longest attempt with another answer is shown the shortest one with that answer. An attempt without a
readable answer votes for nothing and is shown nothing. No verdict is looked at.

An answer is what the last ``\\boxed{}`` holds, or what stands between the tags of an answer. Where no attempt of the group has
either, it is all that was said. Of equally frequent answers the task's name draws one.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from sdpo.envs.answers import OPEN, NoAnswer, plain_answer, tagged_answer, undecorated, without_thinking
from sdpo.envs.math.boxed import last_box
from sdpo.hindsight.hints import demonstrated
from sdpo.types import Group

LEAST_AGREEMENT = 0.5
"""τ: share of a group's attempts that must give the answer."""
NUM_CORRECTED = 1
"""Of the attempts that give another answer, the longest so many are shown the majority's. The authors' ablation prefers one."""
_MARKS = (OPEN, "\\boxed")
"""What an answer is expected in where any attempt of the group has it, also half of it."""


@dataclass(slots=True)
class MajorityVote:
    """A source of hints: the shortest attempt whose answer most of the group give."""

    heading: str = "A solution to this problem on which most attempts agree:"
    _shown: tuple[Group, tuple[str | None, ...]] | None = field(default=None, repr=False)
    """The group that was asked about last, with what its attempts are shown: a vote is counted once."""

    def text(self, group: Group, index: int) -> str | None:
        shown = self._shown  # a batch that is generated ahead asks from another thread
        if shown is None or shown[0] is not group:
            shown = self._shown = group, corrections(group)
        return shown[1][index]


def corrections(group: Group) -> tuple[str | None, ...]:
    """[G] the majority's attempt for those that are shown it; None for the others."""
    attempts = group.attempts
    said = [attempt.completion.text for attempt in attempts]
    is_marked = any(mark in text.lower() for text in said for mark in _MARKS)
    answers = [marked_answer(text) if is_marked else whole_answer(text) for text in said]
    nothing = (None,) * len(attempts)
    winner = _winner(answers, group.task.id)
    if winner is None:
        return nothing
    texts = [demonstrated(a.completion.text, a.completion.transcript) for a in attempts]
    agreeing = [text for text, answer in zip(texts, answers, strict=True) if answer == winner and text]
    others = [index for index, answer in enumerate(answers) if answer is not None and answer != winner]
    others.sort(key=lambda index: len(attempts[index].completion.token_ids), reverse=True)
    if not agreeing:
        return nothing
    shown = min(agreeing, key=len)
    return tuple(shown if index in others[:NUM_CORRECTED] else None for index in range(len(attempts)))


def marked_answer(completion: str) -> str | None:
    """What stands in the last box or between the last tags, as ``alike`` has it; None where that cannot be read."""
    try:
        said = last_box(without_thinking(completion))
        return alike(tagged_answer(completion) if said is None else said)
    except NoAnswer:
        return None


def whole_answer(completion: str) -> str | None:
    """All that was said, as ``alike`` has it; None where that is nothing."""
    try:
        return alike(plain_answer(completion))
    except NoAnswer:
        return None


def alike(answer: str) -> str | None:
    """The answer without what only decorates it, in one case and spacing; None where nothing is left."""
    return " ".join(undecorated(answer).lower().split()) or None


def _winner(answers: Sequence[str | None], task_id: str) -> str | None:
    votes = Counter(answer for answer in answers if answer is not None)
    most = max(votes.values(), default=0)
    if most == 0 or most < LEAST_AGREEMENT * len(answers):
        return None
    return random.Random(f"{task_id}/majority").choice(sorted(answer for answer, count in votes.items() if count == most))
