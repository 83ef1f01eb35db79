"""Which whole numbers balance an equation? The family ``balance``."""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

from sdpo.envs.chemistry.answers import CLOSE, OPEN, Unreadable, read_counts
from sdpo.envs.chemistry.equations import Equation, equations
from sdpo.envs.chemistry.question import RIGHT, Difficulty, Judgement, unreadable, wrong
from sdpo.envs.chemistry.selection import take_evenly


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
        coefficients = read_counts(answer, len(self.equation.species))
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
