"""Between molecule and formula, both ways: the families ``formula`` (read one) and ``build`` (write a molecule)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rdkit.Chem.rdMolDescriptors import CalcMolFormula

from sdpo.envs.chemistry.answers import CLOSE, OPEN, Unreadable, read_formula, write_formula
from sdpo.envs.chemistry.molecules import formula_of, molecules, take_evenly
from sdpo.envs.chemistry.question import RIGHT, Judgement, unreadable, wrong
from sdpo.envs.chemistry.smiles import read_molecule


@dataclass(frozen=True, slots=True, kw_only=True)
class FormulaQuestion:
    """Which formula has the molecule ``smiles``?"""

    smiles: str

    @property
    def key(self) -> str:
        return self.smiles

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
        right_counts = _counts(self.reference)
        if counts == right_counts:
            return RIGHT
        written = write_formula(counts) or "A formula without atoms"
        return wrong(f"{written} is not right: {_difference(counts, right_counts)}. Count along the SMILES {self.smiles} again.")


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildQuestion:
    """Write a molecule with the formula ``formula``; any isomer will do, ``reference`` is one."""

    formula: str
    reference: str

    @property
    def key(self) -> str:
        return self.formula

    @property
    def prompt(self) -> str:
        question = f"Write a molecule with the molecular formula {self.formula} ."
        return f"{question} Answer with one SMILES, like {OPEN}CCCCCCCCCCCCO{CLOSE}."

    def judge(self, answer: str) -> Judgement:
        mol = read_molecule(answer)
        if isinstance(mol, Unreadable):
            return unreadable(mol)
        formula = CalcMolFormula(mol)
        counts, asked_counts = _counts(formula), _counts(self.formula)
        if counts == asked_counts:
            return RIGHT
        return wrong(
            f"The molecule has the formula {formula}, but {self.formula} was asked for: {_difference(counts, asked_counts)}."
        )


def formula_questions(split: str, limit: int) -> list[FormulaQuestion]:
    sizes = {FormulaQuestion(smiles=smiles): _size(formula) for smiles, formula in molecules(split).items()}
    return take_evenly(sizes, limit, key=lambda question: question.key, kind=lambda question: sizes[question])


def build_questions(split: str, limit: int) -> list[BuildQuestion]:
    """One a formula, small and large formulas alike."""
    first_of_formula = {formula: smiles for smiles, formula in reversed(list(molecules(split).items()))}
    questions = [BuildQuestion(formula=formula, reference=smiles) for formula, smiles in first_of_formula.items()]
    return take_evenly(questions, limit, key=lambda question: question.key, kind=lambda q: _size(q.formula))


def _size(formula: str) -> str:
    """The number of atoms other than hydrogen, to sort by."""
    return f"{sum(count for element, count in _counts(formula).items() if element != 'H'):02}"


def _counts(formula: str) -> Mapping[str, int]:
    """The element counts of a formula that RDKit wrote."""
    counts = read_formula(formula)
    assert not isinstance(counts, Unreadable), formula
    return counts


def _difference(counts: Mapping[str, int], right_counts: Mapping[str, int]) -> str:
    """Which elements are off and in which direction, never by how much: ``"too few H, too many O"``."""
    elements = [*right_counts, *(element for element in counts if element not in right_counts)]
    off = []
    for element in elements:
        count, right_count = counts.get(element, 0), right_counts.get(element, 0)
        if count != right_count:
            off.append(f"too {'many' if count > right_count else 'few'} {element}")
    return ", ".join(off)
