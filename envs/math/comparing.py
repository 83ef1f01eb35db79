"""Does an answer equal the right one?

Texts that are the same but for spacing are equal, and plain numbers are compared exactly; neither needs another process. All
else goes to the package math-verify. It parses LaTeX and works with sympy, neither bounded in time nor in memory. So it runs in
a helper (``worker.py``), where each answer is read in a fork with limits. Its own limit is a signal, which only a main thread
gets.
"""

from __future__ import annotations

import re
from enum import Enum
from fractions import Fraction
from pathlib import Path

from sdpo.envs.answers import undecorated
from sdpo.envs.sandbox.helpers import Limits, helper

WORKER = Path(__file__).with_name("worker.py")
PACKAGE = "math_verify"

_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d{1,60})?(?:\.\d{1,60})?")
_GROUPED = re.compile(r"(?<=\d)(?:\\[,!;: ]|\{,\}|~| )(?=\d{3}(?!\d))")
"""What stands between thousands, but for the comma."""
_SPACING = re.compile(r"(?<!\d)\s+|\s+(?!\d)|\\(?:left|right)(?![A-Za-z])")
"""White space, but for that between digits, and what only sizes a bracket."""
_SPACES = re.compile(r"\\[,!;:]|\\ |\\q?quad(?![A-Za-z])|\s+")
_FRACTION = re.compile(r"\\[dt]frac(?![A-Za-z])")
_PERCENT = re.compile(r"\\?%$")
_BEFORE = re.compile(r"^(?:=\s*)?(?:\\?\$\s*(?=[-+.\d]))?")
"""A sign of equality or of the dollar."""


class Outcome(Enum):
    """What comparing came to."""

    equal = "equal"
    different = "different"
    unread = "unread"
    """The answer is no mathematics that can be read."""
    too_costly = "too costly"
    """It could not be worked out within the limits."""


def start() -> None:
    """Import the package, which takes seconds, before the first answer waits for it. Raises RuntimeError where that fails."""
    helper(WORKER, PACKAGE)


def compare(right: str, answer: str, limits: Limits) -> Outcome:
    """Raises RuntimeError where comparing itself is broken; no answer makes it raise."""
    right, is_share = _plain(right)
    answer, is_written_as_share = _plain(answer)
    if _SPACING.sub("", right) == _SPACING.sub("", answer):
        return Outcome.equal
    expected, given = _number(right), _number(answer)
    if expected is not None and given is not None:
        is_right = expected == given
        if is_share != is_written_as_share:  # 50% is 50, as the published comparisons have it, and 0.5
            is_right = is_right or (expected == given * 100 if is_share else expected * 100 == given)
        return Outcome.equal if is_right else Outcome.different
    try:
        reply = helper(WORKER, PACKAGE).ask(("compare", right, answer, limits.wall_s, limits.memory_bytes))
    except ValueError as error:
        raise RuntimeError(f"math-verify could not be run: {error}") from error
    match reply:
        case ("said", bytes(word)):
            return Outcome(word.decode())
        case ("stopped", str()) | ("raised", "MemoryError"):
            return Outcome.too_costly
        case ("raised", str()):
            return Outcome.unread
    raise AssertionError(reply)


def _plain(text: str) -> tuple[str, bool]:
    """The text less decoration, what groups thousands and signs of dollar, equality and percent; whether it had the last one."""
    text = _FRACTION.sub(r"\\frac", undecorated(text).encode("utf-8", "replace").decode("utf-8"))
    bare = _PERCENT.sub("", _BEFORE.sub("", text))
    return undecorated(_GROUPED.sub("", _SPACES.sub(" ", undecorated(bare)))), _PERCENT.search(text) is not None


def _number(text: str) -> Fraction | None:
    """The number that a plain decimal writes, ``"1,234.50"``; None for anything else."""
    digits = text.replace(" ", "") if text[:1] in "-+" else text
    if not digits.strip("-+.") or not digits.isascii() or _NUMBER.fullmatch(digits) is None:
        return None
    return Fraction(digits.replace(",", ""))
