"""Which part of a completion is the answer? Shared by every environment, so that one shape is read alike in all of them.

Everything here reads untrusted text: nothing raises but NoAnswer, and nothing takes longer than a few passes over the text. A
reason never repeats what was written.
"""

from __future__ import annotations

import re
import string

OPEN, CLOSE = "<answer>", "</answer>"
MAX_ANSWER_CHARS = 20_000

_THINKING = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)
_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
"""The case of tags does not count. ``lower`` would change the length of some texts."""
_WRAPPINGS = (
    re.compile(r"```(?:\w*\n)?([^`]+)```"),
    re.compile(r"(?:\*\*\*|___)(.+)(?:\*\*\*|___)", re.DOTALL),
    re.compile(r"(?:\*\*|__)((?:(?!\*\*|__).)+)(?:\*\*|__)", re.DOTALL),
    re.compile(r"[*`]([^*`]+)[*`]"),
    re.compile(r"\$\$(.+)\$\$", re.DOTALL),
    re.compile(r"\$([^$]+)\$"),
    re.compile(r"\\\((.+)\\\)", re.DOTALL),
    re.compile(r"\\\[(.+)\\\]", re.DOTALL),
    re.compile(r"\\(?:boxed|ce|text|mathrm|mathbf|textbf)\s*\{(.+)\}", re.DOTALL),
    re.compile(r"[\"“'‘](.+)[\"”'’]", re.DOTALL),
)
"""What people put around an answer without meaning anything by it: marks of Markdown and LaTeX, and quotes."""
_MAX_WRAPPINGS = 8


class NoAnswer(ValueError):
    """Nothing to score; its text says to the one who wrote the completion why."""


def without_thinking(text: str) -> str:
    """The answer alone: ``<think>`` spans removed, one never closed up to the end, one opened in the prompt up to its end."""
    text = _THINKING.sub("", text)
    return text.rpartition("</think>")[2].strip()


def tagged_answer(completion: str, *, max_chars: int = MAX_ANSWER_CHARS) -> str:
    """What stands between the last pair of tags: ``"so <answer> 3 </answer>"`` gives ``"3"``. Thinking is not read.

    Raises NoAnswer, also for more than ``max_chars`` characters.
    """
    text = without_thinking(completion)
    lowered = text.translate(_LOWER)
    close = lowered.rfind(CLOSE)
    start = lowered.rfind(OPEN, 0, max(close, 0))
    if close < 0:
        if OPEN in lowered:
            raise NoAnswer(f"The answer's tag was opened but never closed: end it with {CLOSE}.")
        if text != completion.strip():
            raise NoAnswer(f"There is no answer outside the thoughts: after them write it between {OPEN} and {CLOSE}.")
        raise NoAnswer(f"There is no answer to read: write it between {OPEN} and {CLOSE}.")
    if start < 0:
        raise NoAnswer(f"The answer's tag was closed but never opened: begin it with {OPEN}.")
    answer = text[start + len(OPEN) : close].strip()
    if not answer:
        raise NoAnswer("The answer is empty: nothing stands between the tags.")
    return _of_length(answer, max_chars)


def plain_answer(completion: str) -> str:
    """All that was said, without thoughts and white space around it. Raises NoAnswer."""
    answer = without_thinking(completion)
    if not answer:
        raise NoAnswer("The answer is empty.")
    return _of_length(answer, MAX_ANSWER_CHARS)


def undecorated(answer: str) -> str:
    """The answer without what only decorates it: ``"**$\\boxed{3}$**."`` gives ``"3"``.

    Around it go white space, marks of Markdown and LaTeX, quotes, and a full stop at the end, which no answer ends in that is a
    number, a formula or a letter.
    """
    for _ in range(_MAX_WRAPPINGS):
        answer = answer.strip()
        bare = answer.removesuffix(".").rstrip()
        for wrapping in _WRAPPINGS:
            if (found := wrapping.fullmatch(bare)) and _is_whole(found[1]):
                bare = found[1].strip()
                break
        if bare == answer or not bare:
            break
        answer = bare
    return answer


def _is_whole(text: str) -> bool:
    """False where a brace closes that was opened outside: the wrapping of ``\\text{C}_{2}`` is not all of it."""
    depth = 0
    for character in text:
        depth += (character == "{") - (character == "}")
        if depth < 0:
            return False
    return True


def _of_length(answer: str, max_chars: int) -> str:
    if len(answer) > max_chars:
        raise NoAnswer(f"The answer is too long: write the final answer only, in at most {max_chars} characters.")
    return answer
