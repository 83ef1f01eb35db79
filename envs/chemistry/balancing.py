"""Which whole numbers balance an equation? The family ``balance``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import gcd

from sdpo.envs.answers import CLOSE, OPEN
from sdpo.envs.chemistry.answers import Unreadable
from sdpo.envs.chemistry.equations import Equation, equations
from sdpo.envs.chemistry.latex import plain
from sdpo.envs.chemistry.question import RIGHT, Difficulty, Judgement, unreadable, wrong
from sdpo.envs.chemistry.selection import take_evenly

_LABEL = re.compile(r"[A-Za-z]?[a-z]{2}[A-Za-z _]{0,60}: ?")
_STATE = re.compile(r" ?\((?:s|l|g|aq)\)")
_SEPARATOR = re.compile(r" ?(?:,|;|:|\+|->|\band\b| ) ?")
_NAMED = re.compile(r"\b[a-z] ?= ?")
_TERM = re.compile(r"(?:\(?([0-9]{1,6})\)?)?[·*×]?([A-Z][A-Za-z0-9()]*)(?::([0-9]{1,6}))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class BalanceQuestion:
    """Which are the smallest whole coefficients of ``equation``?"""

    equation: Equation

    @property
    def key(self) -> str:
        return str(self.equation)

    @property
    def difficulty(self) -> Difficulty:
        return self.equation.difficulty

    @property
    def prompt(self) -> str:
        return (
            f"Balance this equation with the smallest whole numbers: {self.equation} . Answer with all "
            f"{len(self.equation.species)} coefficients in this order, 1 included, separated by commas, "
            f"like {OPEN}3, 1, 7, 12{CLOSE}."
        )

    @property
    def reference(self) -> str:
        return ", ".join(map(str, self.equation.coefficients))

    def judge(self, answer: str) -> Judgement:
        coefficients = read_coefficients(answer, self.equation)
        if isinstance(coefficients, Unreadable):
            return unreadable(coefficients)
        left, right = self.equation.sides(coefficients)
        off = [
            f"{element}: {left.get(element, 0)} on the left, {right.get(element, 0)} on the right"
            for element in left
            if left.get(element, 0) != right.get(element, 0)
        ]
        if off:
            return wrong(f"With these coefficients it is not balanced. {'; '.join(off)}.")
        divisor = gcd(*coefficients)
        if divisor > 1:
            return wrong(f"It is balanced, but not with the smallest whole numbers: {divisor} divides all of them.")
        return RIGHT


def balance_questions(split: str, limit: int) -> list[BalanceQuestion]:
    questions = [BalanceQuestion(equation=equation) for equation in equations(split) if max(equation.coefficients) > 1]
    return take_evenly(questions, limit, kind=lambda question: question.reference)


def read_coefficients(answer: str, equation: Equation) -> tuple[int, ...] | Unreadable:
    """``"2, 1, 2"``, ``"2 1 2"``, ``"2 H2, O2, 2 H2O"`` and ``"2H2 + O2 -> 2H2O"`` give (2, 1, 2), balanced or not."""
    text = _STATE.sub("", _NAMED.sub("", _LABEL.sub("", plain(answer), count=1))).strip()
    text = text[1:-1].strip() if (text[:1], text[-1:]) in (("[", "]"), ("(", ")"), ("{", "}")) else text
    if re.search("[A-Z]", text):
        return _of_terms(text, equation)
    parts = text.split("-") if re.fullmatch(r"[0-9]+(?:-[0-9]+)+", text) else _SEPARATOR.split(text)
    if len(parts) != len(equation.species):
        return Unreadable(f"{len(equation.species)} integers are needed, separated by commas; the answer has {len(parts)}.")
    if any(re.fullmatch("[0-9]{1,6}", part) is None or int(part) == 0 for part in parts):
        return Unreadable("The answer must hold positive integers and commas only, no words.")
    return tuple(map(int, parts))


def _of_terms(text: str, equation: Equation) -> tuple[int, ...] | Unreadable:
    """From an equation, or from a list of its substances, each with its coefficient."""
    refused = Unreadable(
        "The coefficients cannot be read from the answer: write positive integers and commas only, or the equation of "
        "the question with its coefficients."
    )
    sides = re.split(" ?(?:->|=) ?", text)
    expected = [equation.species] if len(sides) == 1 else [equation.reactants, equation.products]
    if len(sides) != len(expected):
        return refused
    coefficients: dict[str, int] = {}
    for side, names in zip(sides, expected, strict=True):
        read = _of_side(side)
        if read is None or sorted(read) != sorted(names):
            return refused
        coefficients |= read
    return tuple(coefficients[name] for name in equation.species)


def _of_side(side: str) -> Mapping[str, int] | None:
    """``"2 H2 + O2"`` gives ``{"H2": 2, "O2": 1}``; None where a term is none, or a substance stands twice."""
    terms = [_TERM.fullmatch(term.replace(" ", "")) for term in re.split("[+,;]| and ", side)]
    read = {term[2]: int(term[1] or term[3] or 1) for term in terms if term is not None and not (term[1] and term[3])}
    return read if len(read) == len(terms) and min(read.values()) > 0 else None
