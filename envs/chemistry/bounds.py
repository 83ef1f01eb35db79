"""Write a molecule whose properties lie within bounds, two or, on hard, three: the family ``bounds``.

The bounds of a task are drawn around a molecule of its own split, so that something small meets them. A hash of the bounds
themselves then divides them between the splits once more. Any molecule within the bounds is right, so an answer may well solve
tasks on both sides. The question and its reference never stand on both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import floor

from rdkit import Chem
from rdkit.Chem.rdMolDescriptors import (
    CalcCrippenDescriptors,
    CalcNumHBA,
    CalcNumHBD,
    CalcNumHeavyAtoms,
)

from sdpo.envs.answers import CLOSE, OPEN
from sdpo.envs.chemistry.answers import Unreadable
from sdpo.envs.chemistry.molecules import difficulty_of, molecule, molecules, num_rings, split_of, stable_hash
from sdpo.envs.chemistry.question import RIGHT, Difficulty, Judgement, unreadable, wrong
from sdpo.envs.chemistry.selection import take_evenly
from sdpo.envs.chemistry.smiles import read_molecule

WEIGHT = "molecular weight in g/mol"
LOGP = "Crippen logP"
HEAVY_ATOMS = "number of atoms other than hydrogen"
DONORS = "number of hydrogen-bond donors"
ACCEPTORS = "number of hydrogen-bond acceptors"
RINGS = "number of rings"
HYDROGEN_MASS = 1.008

PROPERTIES: Mapping[str, Callable[[Chem.Mol], float]] = {
    WEIGHT: lambda mol: sum(atom.GetMass() + HYDROGEN_MASS * atom.GetTotalNumHs() for atom in mol.GetAtoms()),
    LOGP: lambda mol: CalcCrippenDescriptors(mol)[0],
    HEAVY_ATOMS: CalcNumHeavyAtoms,
    DONORS: CalcNumHBD,
    ACCEPTORS: CalcNumHBA,
    RINGS: num_rings,
}
PAIRS = tuple((size, other) for size in (WEIGHT, HEAVY_ATOMS) for other in (LOGP, DONORS, ACCEPTORS, RINGS))
THIRD = {LOGP: (RINGS,), DONORS: (LOGP,), ACCEPTORS: (DONORS,), RINGS: (ACCEPTORS,)}
"""What hard questions bound besides."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """``low <= property <= high``, where the property, rounded to two decimals, is one of the names above."""

    property: str
    low: float
    high: float

    def __str__(self) -> str:
        if self.low == self.high:
            return f"{self.property}: exactly {self.low:g}"
        return f"{self.property}: {self.low:g} to {self.high:g}"

    def objection(self, mol: Chem.Mol) -> str | None:
        """How the molecule breaks the bound: ``"its number of rings is 0, below 1"``; None if it keeps it."""
        value = measure(self.property, mol)
        if value < self.low:
            return f"its {self.property} is {value:g}, below {self.low:g}"
        if value > self.high:
            return f"its {self.property} is {value:g}, above {self.high:g}"
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundsQuestion:
    """Write a molecule within all ``bounds``; ``reference`` is one."""

    bounds: tuple[Bound, ...]
    reference: str

    @property
    def key(self) -> str:
        return "; ".join(map(str, self.bounds))

    @property
    def difficulty(self) -> Difficulty:
        return difficulty_of(self.reference)

    @property
    def prompt(self) -> str:
        return f"Write a molecule within these bounds. {self.key}. Answer with one SMILES, like {OPEN}CCCCCCCCCCCCO{CLOSE}."

    def judge(self, answer: str) -> Judgement:
        mol = read_molecule(answer)
        if isinstance(mol, Unreadable):
            return unreadable(mol)
        objections = [objection for bound in self.bounds if (objection := bound.objection(mol)) is not None]
        if not objections:
            return RIGHT
        return wrong(f"The molecule is valid, but {', and '.join(objections)}.")


def measure(name: str, mol: Chem.Mol) -> float:
    """A property as it is compared and shown, rounded to two decimals."""
    return round(float(PROPERTIES[name](mol)), 2)


def bounds_questions(split: str, limit: int) -> list[BoundsQuestion]:
    questions = {question.key: question for question in _candidates(split) if split_of(question.key) == split}
    # By the second bound, so that few of the tasks ask for the commonplace: no ring, no donor.
    return take_evenly(questions.values(), limit, kind=lambda question: str(question.bounds[1]))


def _candidates(split: str) -> Iterator[BoundsQuestion]:
    for smiles in molecules(split):
        pair = PAIRS[stable_hash(f"bounds/{smiles}") % len(PAIRS)]
        names = (*pair, *THIRD[pair[1]]) if difficulty_of(smiles) is Difficulty.hard else pair
        yield BoundsQuestion(bounds=tuple(_around(name, measure(name, molecule(smiles))) for name in names), reference=smiles)


def _around(name: str, value: float) -> Bound:
    """A round window that holds ``value``, wide enough to be hit by chance."""
    if name == WEIGHT:
        low = 10.0 * floor(value / 10 - 1)
        return Bound(property=name, low=low, high=low + 30)
    if name == LOGP:
        low = floor(2 * value) / 2 - 0.5
        return Bound(property=name, low=low, high=low + 1.5)
    if name == HEAVY_ATOMS:
        return Bound(property=name, low=value - 1, high=value + 1)
    return Bound(property=name, low=value, high=value)
