"""Which part of a completion is the answer? Shared by the adapters whose scorers want the bare answer."""

from __future__ import annotations

OPEN, CLOSE = "<answer>", "</answer>"
MAX_ANSWER_CHARS = 20_000


class NoAnswer(ValueError):
    """Nothing to score; its text says to the one who wrote the completion why."""


def tagged_answer(completion: str) -> str:
    """What stands between the last pair of tags: ``"so <answer> 3 </answer>"`` gives ``"3"``. Raises NoAnswer."""
    end = completion.rfind(CLOSE)
    if end < 0:
        if OPEN in completion:
            raise NoAnswer(f"The answer's tag was opened but never closed: end it with {CLOSE}.")
        raise NoAnswer(f"There is no answer to read: write the final answer between {OPEN} and {CLOSE}.")
    start = completion.rfind(OPEN, 0, end)
    if start < 0:
        raise NoAnswer(f"The answer's tag was closed but never opened: begin it with {OPEN}.")
    return plain_answer(completion[start + len(OPEN) : end])


def plain_answer(completion: str) -> str:
    """The whole text, without white space around it. Raises NoAnswer."""
    answer = completion.strip()
    if not answer:
        raise NoAnswer("The answer is empty.")
    if len(answer) > MAX_ANSWER_CHARS:
        raise NoAnswer(
            f"The answer is too long to be scored: write the final answer only, in at most {MAX_ANSWER_CHARS} characters."
        )
    return answer
