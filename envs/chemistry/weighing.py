"""How heavy is a mole of it? The family ``weight``: the molecular weight of a SMILES, within half a unit."""

from __future__ import annotations

from dataclasses import dataclass

from sdpo.envs.answers import CLOSE, OPEN
from sdpo.envs.chemistry.answers import GRAMS_PER_MOLE, Unreadable, read_number
from sdpo.envs.chemistry.bounds import WEIGHT, measure
from sdpo.envs.chemistry.molecules import difficulty_of, molecule, molecules
from sdpo.envs.chemistry.question import RIGHT, Difficulty, Judgement, unreadable, wrong
from sdpo.envs.chemistry.selection import take_evenly

TOLERANCE = 0.5
"""In g/mol: half a hydrogen, so that rounded atomic masses are fine and a miscounted atom is not."""
FEW_HYDROGENS = 4.5
"""In g/mol: a difference below is a matter of hydrogens, as no other atom is that light."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightQuestion:
    """What is the molecular weight of ``smiles``?"""

    smiles: str

    @property
    def key(self) -> str:
        return self.smiles

    @property
    def difficulty(self) -> Difficulty:
        return difficulty_of(self.smiles)

    @property
    def prompt(self) -> str:
        return (
            f"What is the molecular weight, in g/mol, of the molecule with the SMILES {self.smiles} ? It must be right to "
            f"within {TOLERANCE:g}. Answer with the number only, like {OPEN}342.30{CLOSE}."
        )

    @property
    def reference(self) -> str:
        return f"{measure(WEIGHT, molecule(self.smiles)):.2f}"

    def judge(self, answer: str) -> Judgement:
        weight = read_number(answer, GRAMS_PER_MOLE, "g/mol")
        if isinstance(weight, Unreadable):
            return unreadable(weight)
        surplus = weight - float(self.reference)
        if abs(surplus) <= TOLERANCE:
            return RIGHT
        side = "high" if surplus > 0 else "low"
        if abs(surplus) < FEW_HYDROGENS:
            return wrong(f"{weight:g} is too {side}, by so little that hydrogens were miscounted: count the implicit ones again.")
        return wrong(
            f"{weight:g} is too {side}, by more than a few hydrogens: count the heavy atoms along {self.smiles} and add up "
            "their masses."
        )


def weight_questions(split: str, limit: int) -> list[WeightQuestion]:
    questions = [WeightQuestion(smiles=smiles) for smiles in molecules(split)]
    return take_evenly(questions, limit, kind=lambda question: f"{molecule(question.smiles).GetNumAtoms():02}")
