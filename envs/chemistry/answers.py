"""What did the model answer? From a completion to a text, a number or a formula, or the reason why it is none.

Everything here reads untrusted text. Nothing raises, and nothing takes longer than a pass over the text. A reason never repeats
what was written, but for the symbol of an element.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

MAX_ANSWER_CHARACTERS = 200
OPEN, CLOSE = "<answer>", "</answer>"

_COUNT = re.compile(r"[0-9]{1,6}")
_SIGNED = re.compile(r"[+-]?[0-9]{1,3}")
_NUMBER = re.compile(r"[0-9]{1,9}(?:\.[0-9]{0,9})?")
_ELEMENT_COUNT = re.compile(r"([A-Z][a-z]?)([0-9]{0,4})")
_FORMULA = re.compile(f"(?:{_ELEMENT_COUNT.pattern})+")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Why an answer could not be read, as a sentence to the one who wrote it."""

    reason: str


def find_answer(completion: str) -> str | Unreadable:
    """What stands between the last pair of tags: ``"so <answer> 3 </answer>"`` gives ``"3"``."""
    end = completion.rfind(CLOSE)
    if end < 0:
        if OPEN in completion:
            return Unreadable(f"The answer's tag was opened but never closed: end it with {CLOSE}.")
        return Unreadable(f"There is no answer to read: write it between {OPEN} and {CLOSE}.")
    start = completion.rfind(OPEN, 0, end)
    if start < 0:
        return Unreadable(f"The answer's tag was closed but never opened: begin it with {OPEN}.")
    answer = completion[start + len(OPEN) : end].strip()
    if not answer:
        return Unreadable("The answer is empty: nothing stands between the tags.")
    if len(answer) > MAX_ANSWER_CHARACTERS:
        return Unreadable(
            f"The answer is too long: only the final answer, of at most {MAX_ANSWER_CHARACTERS} characters, "
            "may stand between the tags."
        )
    return answer


def read_count(answer: str) -> int | Unreadable:
    """``"3"`` gives 3."""
    if _COUNT.fullmatch(answer) is None:
        return Unreadable("The answer is not an integer that counts: write digits only, without sign, words or units.")
    return int(answer)


def read_signed(answer: str) -> int | Unreadable:
    """``"-3"``, ``"3"`` and ``"+3"``."""
    answer = answer.replace("\N{MINUS SIGN}", "-")
    if _SIGNED.fullmatch(answer) is None:
        return Unreadable("The answer is not an integer with its sign: write its sign and its digits, without words or units.")
    return int(answer)


def read_number(answer: str) -> float | Unreadable:
    """``"46.07"`` gives 46.07."""
    if _NUMBER.fullmatch(answer) is None:
        return Unreadable("The answer is not a decimal number: write digits and a point, without words, units or powers of ten.")
    return float(answer)


def read_counts(answer: str, num_counts: int) -> tuple[int, ...] | Unreadable:
    """``"2, 1, 2"`` gives (2, 1, 2), where so many were asked for."""
    parts = [part.strip() for part in answer.split(",")]
    if len(parts) != num_counts:
        return Unreadable(f"{num_counts} integers are needed, separated by commas; the answer has {len(parts)}.")
    if any(_COUNT.fullmatch(part) is None or int(part) == 0 for part in parts):
        return Unreadable("The answer must hold positive integers and commas only, no formulas or words.")
    return tuple(map(int, parts))


def read_formula(answer: str) -> Mapping[str, int] | Unreadable:
    """The count of each element: ``"C2H6O"`` gives ``{"C": 2, "H": 6, "O": 1}``, in whatever order they stand."""
    answer = answer.translate(_SUBSCRIPTS)
    if _FORMULA.fullmatch(answer) is None:
        return Unreadable("The answer is not a molecular formula: write element symbols, each with its count, and nothing else.")
    counts: dict[str, int] = {}
    for element, count in _ELEMENT_COUNT.findall(answer):
        if element in counts:
            return Unreadable(
                f"A molecular formula names each element once, with its total count; {element} stands more than once."
            )
        counts[element] = int(count) if count else 1
    return {element: count for element, count in counts.items() if count}


def write_formula(counts: Mapping[str, int]) -> str:
    """The inverse of ``read_formula``, in the order given."""
    return "".join(element + (str(count) if count > 1 else "") for element, count in counts.items())
