"""What does the last ``\\boxed{}`` of a text hold?

Untrusted text: nothing raises but NoAnswer, and nothing takes longer than a few passes over the text.
"""

from __future__ import annotations

import re

from sdpo.envs.answers import NoAnswer, without_thinking

MAX_ANSWER_CHARS = 1_000

_BOX = re.compile(r"\\f?boxed(?![A-Za-z])\s{0,9}(\{|[^\s{}\\$]+)?")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)


def answer_in_box(completion: str) -> tuple[str, int]:
    """What the last box outside the thoughts holds, and how many boxes there are. Raises NoAnswer."""
    text = without_thinking(completion)
    boxes = list(_BOX.finditer(text))
    if not boxes:
        if text != completion.strip():
            raise NoAnswer("There is no answer outside the thoughts: after them write the final answer within \\boxed{}.")
        raise NoAnswer("There is no answer to read: write the final answer within \\boxed{}.")
    return content(text, boxes[-1]), len(boxes)


def last_box(text: str) -> str | None:
    """What the last box holds; None where there is none. Raises NoAnswer for one that is empty or never closed."""
    boxes = list(_BOX.finditer(text))
    return content(text, boxes[-1]) if boxes else None


def content(text: str, box: re.Match[str]) -> str:
    """What a box holds. Raises NoAnswer."""
    if box[1] != "{":
        held = box[1] or ""
    else:
        depth, end = 1, None
        for brace in _BRACE.finditer(text, box.end()):
            depth += {"{": 1, "}": -1}.get(brace.group(), 0)
            if depth == 0:
                end = brace.start()
                break
        if end is None:
            raise NoAnswer("The last \\boxed{ is never closed: end it with a brace.")
        held = text[box.end() : end]
    if not held.strip():
        raise NoAnswer("The last \\boxed{} is empty: write the final answer in it.")
    if len(held) > MAX_ANSWER_CHARS:
        raise NoAnswer(f"What the last \\boxed{{}} holds is too long: at most {MAX_ANSWER_CHARS} characters are read.")
    return held.strip()
