"""How much comes of how much? The family ``stoichiometry``: moles on easy, grams on medium, the limiting reactant on hard.

A wrong number is compared with what the usual slips would have given: a ratio forgotten, moles for grams, the reactant in excess.
So the feedback can name the slip.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from sdpo.envs.answers import CLOSE, OPEN
from sdpo.envs.chemistry.answers import GRAMS, MOLES, Unreadable, read_number
from sdpo.envs.chemistry.equations import Equation, equations
from sdpo.envs.chemistry.question import RIGHT, Difficulty, Judgement, unreadable, wrong
from sdpo.envs.chemistry.selection import take_evenly
from sdpo.envs.chemistry.substances import molar_mass

TOLERANCE = 0.01
"""Relative, so that rounded atomic masses are fine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AmountQuestion:
    """How much of ``product`` can ``given`` make? In moles on easy, else in grams."""

    equation: Equation
    given: tuple[tuple[str, float], ...]
    """Reactants with their amounts: one, any others in excess, or two on hard, of which one is in excess."""
    product: str
    difficulty: Difficulty

    @property
    def unit(self) -> str:
        return "mol" if self.difficulty is Difficulty.easy else "g"

    @property
    def key(self) -> str:
        return f"{self.prompt_of_amounts}/{self.equation}"

    @property
    def prompt_of_amounts(self) -> str:
        given = " and ".join(f"{amount:g} {self.unit} of {name}" for name, amount in self.given)
        return f"How many {'moles' if self.unit == 'mol' else 'grams'} of {self.product} can at most be made from {given}"

    @property
    def prompt(self) -> str:
        others = len(self.equation.reactants) > len(self.given)
        equation = f"{self.equation} (not balanced)" if self.difficulty is Difficulty.hard else self.equation.balanced
        return (
            f"{self.prompt_of_amounts}{', with enough of the rest' if others else ''}? {equation} . It must be right to within "
            f"1 %. Answer with the number only, like {OPEN}46.07{CLOSE}."
        )

    @property
    def reference(self) -> str:
        return f"{self._yield():.4g}"

    def judge(self, answer: str) -> Judgement:
        amount = read_number(answer, MOLES if self.unit == "mol" else GRAMS, self.unit, self.product)
        if isinstance(amount, Unreadable):
            return unreadable(amount)
        right = self._yield()
        if _agree(amount, right):
            return RIGHT
        # A slip that leads to the right number after all (a ratio of 1) is no explanation.
        for slip, value in self._slips():
            if _agree(amount, value) and not _agree(value, right):
                return wrong(f"{amount:g} {self.unit} is not right: {slip}.")
        side = "high" if amount > right else "low"
        way = "multiply the moles by the ratio of the coefficients"
        if self.unit == "g":
            way = f"go from grams to moles, by the coefficients to moles of {self.product}, and only then to grams"
        return wrong(f"{amount:g} {self.unit} is too {side}: {way}.")

    def _yield(self) -> float:
        """What the reactant that runs out first gives."""
        return min(self._yield_of(name, amount) for name, amount in self.given)

    def _yield_of(self, name: str, amount: float) -> float:
        ratio = self._coefficient(self.product) / self._coefficient(name)
        if self.unit == "mol":
            return amount * ratio
        return amount / molar_mass(name) * ratio * molar_mass(self.product)

    def _coefficient(self, name: str) -> int:
        return self.equation.coefficients[self.equation.species.index(name)]

    def _slips(self) -> Iterator[tuple[str, float]]:
        """What went wrong, and the number that this gives."""
        if len(self.given) > 1:
            yield (
                "that is what the reactant in excess would give, the other one runs out first",
                max(self._yield_of(name, amount) for name, amount in self.given),
            )
        for name, amount in self.given:
            ratio = self._coefficient(self.product) / self._coefficient(name)
            yielded = self._yield_of(name, amount)
            yield f"the coefficients of {name} and {self.product} were left out or taken as equal", yielded / ratio
            yield f"the ratio of the coefficients of {name} and {self.product} is upside down", yielded / ratio**2
            if self.unit == "g":
                yield "these are moles of the product, grams were asked for", yielded / molar_mass(self.product)
                yield f"grams of {name} were taken as grams of {self.product}, go through moles", amount
                yield "the masses were multiplied by coefficients without going through moles", amount * ratio
                yield "grams were taken as moles", amount * ratio * molar_mass(self.product)


def stoichiometry_questions(split: str, limit: int) -> list[AmountQuestion]:
    return take_evenly(_candidates(split), limit, kind=lambda question: question.product)


def _candidates(split: str) -> Iterator[AmountQuestion]:
    """One question of each difficulty an equation: easy only where the ratio is not 1, hard only with two reactants."""
    for equation in equations(split):
        draw = random.Random(f"stoichiometry/{equation}")
        coefficients = dict(zip(equation.species, equation.coefficients, strict=True))
        pairs = [(reactant, product) for reactant in equation.reactants for product in equation.products]
        uneven = [(reactant, product) for reactant, product in pairs if coefficients[reactant] != coefficients[product]]
        if uneven:
            reactant, product = draw.choice(uneven)
            moles = draw.randint(2, 40) / 4
            yield AmountQuestion(equation=equation, given=((reactant, moles),), product=product, difficulty=Difficulty.easy)
        reactant, product = draw.choice(pairs)
        grams = float(draw.randint(5, 99))
        yield AmountQuestion(equation=equation, given=((reactant, grams),), product=product, difficulty=Difficulty.medium)
        if len(equation.reactants) == 2:
            yield _limited(equation, product, draw)


def _limited(equation: Equation, product: str, draw: random.Random) -> AmountQuestion:
    """Two masses, of which either may be the one that runs out, by a quarter at least."""
    num_runs = draw.uniform(0.1, 0.6)
    excess = [1.0, draw.uniform(1.3, 2.5)]
    draw.shuffle(excess)
    masses = [
        round(num_runs * times * coefficient * molar_mass(name), 1)
        for name, times, coefficient in zip(equation.reactants, excess, equation.coefficients, strict=False)
    ]
    return AmountQuestion(
        equation=equation,
        given=tuple(zip(equation.reactants, masses, strict=True)),
        product=product,
        difficulty=Difficulty.hard,
    )


def _agree(amount: float, other: float) -> bool:
    return abs(amount - other) <= TOLERANCE * other
