"""Between molecule and formula, both ways: the families ``formula`` (read one) and ``build`` (write a molecule).

Both are divided by formula as well as by scaffold, since here the formula is the question or the answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rdkit.Chem.rdMolDescriptors import CalcMolFormula

from sdpo.envs.answers import CLOSE, OPEN
from sdpo.envs.chemistry.answers import Unreadable, read_formula, write_formula
from sdpo.envs.chemistry.molecules import difficulty_of, formula_of, molecules, split_of
from sdpo.envs.chemistry.question import RIGHT, Difficulty, Judgement, unreadable, wrong
from sdpo.envs.chemistry.selection import draw, take_evenly
from sdpo.envs.chemistry.smiles import read_molecule


@dataclass(frozen=True, slots=True, kw_only=True)
class FormulaQuestion:
    """Which formula has the molecule ``smiles``?"""

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
            f"What is the molecular formula of the molecule with the SMILES {self.smiles} ? "
            f"Count the implicit hydrogens too. Answer with the formula, like {OPEN}C12H22O11{CLOSE}."
        )

    @property
    def reference(self) -> str:
        return formula_of(self.smiles)

    def judge(self, answer: str) -> Judgement:
        counts = read_formula(answer)
        if isinstance(counts, Unreadable):
            return unreadable(counts)
        right_counts = counts_of(self.reference)
        if counts == right_counts:
            return RIGHT
        written = write_formula(counts) or "A formula without atoms"
        return wrong(f"{written} is not right: {directions(counts, right_counts)}. Count along the SMILES {self.smiles} again.")


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildQuestion:
    """Write a molecule with the formula ``formula``; any isomer will do, ``reference`` is one."""

    formula: str
    reference: str

    @property
    def key(self) -> str:
        return self.formula

    @property
    def difficulty(self) -> Difficulty:
        return difficulty_of(self.reference)

    @property
    def prompt(self) -> str:
        question = f"Write a molecule with the molecular formula {self.formula} ."
        return f"{question} Answer with one SMILES, like {OPEN}CCCCCCCCCCCCO{CLOSE}."

    def judge(self, answer: str) -> Judgement:
        mol = read_molecule(answer)
        if isinstance(mol, Unreadable):
            return unreadable(mol)
        formula = CalcMolFormula(mol)
        counts, asked_counts = counts_of(formula), counts_of(self.formula)
        if counts == asked_counts:
            return RIGHT
        return wrong(
            f"The molecule has the formula {formula}, but {self.formula} was asked for: {difference(counts, asked_counts)}."
        )


def formula_questions(split: str, limit: int) -> list[FormulaQuestion]:
    questions = [FormulaQuestion(smiles=smiles) for smiles in _with_formulas(split)]
    return take_evenly(questions, limit, kind=lambda question: _size(question.reference))


def build_questions(split: str, limit: int) -> list[BuildQuestion]:
    """One a formula, small and large formulas alike."""
    smiles_of_formula = {formula: smiles for smiles, formula in draw(_with_formulas(split).items(), key=lambda item: item[0])}
    questions = [BuildQuestion(formula=formula, reference=smiles) for formula, smiles in smiles_of_formula.items()]
    return take_evenly(questions, limit, kind=lambda question: _size(question.formula))


def counts_of(formula: str) -> Mapping[str, int]:
    """The element counts of a formula that RDKit wrote."""
    counts = read_formula(formula)
    assert not isinstance(counts, Unreadable), formula
    return counts


def difference(counts: Mapping[str, int], right_counts: Mapping[str, int]) -> str:
    """Which elements are off and by how much: ``"2 H too few, 1 O too many"``. Only where the right formula is no secret."""
    return ", ".join(
        f"{abs(surplus)} {element} too {'many' if surplus > 0 else 'few'}"
        for element, surplus in _surpluses(counts, right_counts).items()
    )


def directions(counts: Mapping[str, int], right_counts: Mapping[str, int]) -> str:
    """Which elements are off and in which direction, never by how much: ``"too few H, too many O"``."""
    return ", ".join(
        f"too {'many' if surplus > 0 else 'few'} {element}" for element, surplus in _surpluses(counts, right_counts).items()
    )


def _surpluses(counts: Mapping[str, int], right_counts: Mapping[str, int]) -> Mapping[str, int]:
    elements = [*right_counts, *(element for element in counts if element not in right_counts)]
    surpluses = {element: counts.get(element, 0) - right_counts.get(element, 0) for element in elements}
    return {element: surplus for element, surplus in surpluses.items() if surplus}


def _with_formulas(split: str) -> Mapping[str, str]:
    return {smiles: formula for smiles, formula in molecules(split).items() if split_of(formula) == split}


def _size(formula: str) -> str:
    """The number of atoms other than hydrogen, to sort by."""
    return f"{sum(count for element, count in counts_of(formula).items() if element != 'H'):02}"
