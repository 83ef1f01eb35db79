"""What a teacher might say of made-up tokens: a right answer's tokens please it, those that differ from it do not.

The two distributions at a position are made first, and everything in the record follows from them.
"""

from __future__ import annotations

import difflib
import math
import random
import re
from collections.abc import Mapping

from sdpo.types import Group, Hint
from tests.report.exercises import Exercise

TOP = 5
_TOKEN = re.compile(r" ?[^\W\d]+| ?\d| ?[^\s\w]+|\s+(?!\S)|\s+", re.DOTALL)
_OPEN, _CLOSED = "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"
_HINDSIGHT = "A correct solution to this problem:\n", "What the environment said of your earlier attempt:\n"


def tokens_of(text: str) -> list[str]:
    """As byte-pair encodings cut: a word has the space before it, an indentation is a token of its own."""
    return _TOKEN.findall(text)


def credit_line(
    exercise: Exercise, group: Group, hint: Hint, *, step: int, task_index: int, attempt: int, draw: random.Random
) -> Mapping[str, object]:
    """A line of ``credit/``, as ``sdpo.tracking.credit`` writes it."""
    said = group.attempts[attempt]
    tokens = [*tokens_of(said.completion.text), "<|im_end|>"]
    right = [*tokens_of(exercise.right), "<|im_end|>"]
    others = {token for text, _ in exercise.wrong for token in tokens_of(text)}
    ids = {token: 100 + place for place, token in enumerate(sorted({*tokens, *right, *others, " the", "\n\n", " x", " 0", ":"}))}
    rows = []
    for token, wanted in zip(tokens, _wanted(tokens, right), strict=True):
        student = _distribution(token, _student_share(token, wanted, said.verdict.is_solved, draw), wanted, list(ids), draw)
        teacher = _distribution(wanted, draw.uniform(0.93, 0.995), token, list(ids), draw)
        rows.append((token, student, teacher))
    prompt, parts = _OPEN + exercise.question, []
    marks = {}
    for kind, opening, text in zip(
        ("demonstration", "feedback"), _HINDSIGHT, (hint.of("demonstration"), hint.of("feedback")), strict=True
    ):
        if text:
            start = len(prompt) + sum(map(len, parts)) + len("\n\n" + opening)
            parts.append(f"\n\n{opening}{text}")
            marks[kind] = [start, start + len(text)]
    return {
        "step": step,
        "task_index": task_index,
        "attempt": attempt,
        "task": group.task.id,
        "update": 0,
        "prompt": prompt + _CLOSED,
        "hindsight_prompt": prompt + "".join(parts) + "\n\nNow solve the original problem." + _CLOSED,
        "marks": marks,
        "tokens": tokens,
        "student": [round(math.log(student[token]), 4) for token, student, _ in rows],
        "teacher": [round(math.log(teacher[token]), 4) for token, _, teacher in rows],
        "divergence": [round(_divergence(student, teacher), 4) for _, student, teacher in rows],
        "student_top": [_top(student, ids) for _, student, _ in rows],
        "teacher_top": [_top(teacher, ids) for _, _, teacher in rows],
        "pieces": {str(number): token for token, number in ids.items()},
    }


def _wanted(tokens: list[str], right: list[str]) -> list[str]:
    """What the teacher would have written at each position."""
    wanted = list(tokens)
    for kind, first, last, other_first, other_last in difflib.SequenceMatcher(None, tokens, right, autojunk=False).get_opcodes():
        if kind in ("replace", "delete"):
            theirs = right[other_first:other_last] or [right[min(other_first, len(right) - 1)]]
            for place in range(first, min(last, first + 2)):  # once an answer has gone astray, the teacher goes along
                wanted[place] = theirs[min(place - first, len(theirs) - 1)]
    return wanted


def _student_share(token: str, wanted: str, is_solved: bool, draw: random.Random) -> float:
    if token != wanted:
        return draw.uniform(0.3, 0.85)
    choices = r" ?(low|high|lower|\d|return|True|False|<|>|append)" if is_solved else r" ?(for|lower|return|and)"
    is_choice = re.fullmatch(choices, token) is not None
    return draw.uniform(0.15, 0.45) if is_choice else min(0.995, draw.betavariate(30, 1))


def _distribution(first: str, share: float, second: str, vocabulary: list[str], draw: random.Random) -> dict[str, float]:
    """Two tokens that matter, a few others, and what is left to all the rest under the name None of them has."""
    rest = 1.0 - share
    found = {first: share}
    if second != first:
        found[second] = rest * draw.uniform(0.15, 0.8)
        rest -= found[second]
    for other in draw.sample(vocabulary, min(TOP + 2, len(vocabulary))):
        if other not in found:
            found[other] = rest * draw.uniform(0.2, 0.6)
            rest -= found[other]
    return found


def _divergence(student: Mapping[str, float], teacher: Mapping[str, float]) -> float:
    """KL(student‖teacher) over the tokens that both know, the rest as one."""
    both = student.keys() & teacher.keys()
    pairs = [(student[token], teacher[token]) for token in both]
    pairs.append((1.0 - sum(p for p, _ in pairs), 1.0 - sum(q for _, q in pairs)))
    return max(0.0, sum(p * math.log(p / q) for p, q in pairs if p > 0 and q > 0))


def _top(distribution: Mapping[str, float], ids: Mapping[str, int]) -> list[list[float]]:
    best = sorted(distribution.items(), key=lambda item: -item[1])[:TOP]
    return [[ids[token], round(math.log(share), 4)] for token, share in best]
