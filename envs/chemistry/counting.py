"""How many of something does a molecule have?

The families ``heavy_atoms``, ``rings``, ``functional_groups`` and ``unsaturation``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from rdkit import Chem
from rdkit.Chem.rdMolDescriptors import CalcNumHeavyAtoms

from sdpo.envs.answers import CLOSE, OPEN
from sdpo.envs.chemistry.answers import Unreadable, read_count
from sdpo.envs.chemistry.molecules import difficulty_of, molecule, molecules, num_rings, stable_hash
from sdpo.envs.chemistry.question import RIGHT, Difficulty, Judgement, unreadable, wrong
from sdpo.envs.chemistry.selection import take_evenly

HEAVY_ATOMS = "atoms other than hydrogen"
RINGS = "rings (each ring of a fused pair counts)"
UNSATURATION = "degrees of unsaturation (rings plus pi bonds, those of aromatic rings included)"
GROUPS = {
    "hydroxyl groups (OH, those of carboxylic acids left out)": "[OX2H][#6;!$(C=O)]",
    "carbonyl groups (C=O, those of acids and amides included)": "[CX3]=[OX1]",
    "carboxylic acid groups (COOH)": "[CX3](=O)[OX2H]",
    "amine nitrogens (amides and aromatic nitrogen left out)": "[NX3;!$(NC=[O,S])]",
    "ether oxygens (C-O-C, aromatic oxygen left out)": "[OX2;!$(OC=O)]([#6])[#6]",
    "nitrile groups (C#N)": "[CX2]#[NX1]",
    "halogen atoms": "[F,Cl,Br,I]",
    "carbon-carbon double bonds (aromatic bonds left out)": "C=C",
}
"""The wording of each group to its SMARTS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CountQuestion:
    """How many ``subject`` are in the molecule ``smiles``? The subject is one of the wordings above."""

    subject: str
    smiles: str

    @property
    def key(self) -> str:
        return f"{self.subject}/{self.smiles}"

    @property
    def difficulty(self) -> Difficulty:
        return difficulty_of(self.smiles)

    @property
    def prompt(self) -> str:
        question = f"How many {self.subject} are in the molecule with the SMILES {self.smiles} ?"
        return f"{question} Answer with one integer, like {OPEN}12{CLOSE}."

    @property
    def reference(self) -> str:
        return str(_count(self.subject, molecule(self.smiles)))

    def judge(self, answer: str) -> Judgement:
        count = read_count(answer, f"{self.subject} heavy")
        if isinstance(count, Unreadable):
            return unreadable(count)
        right_count = int(self.reference)
        if count == right_count:
            return RIGHT
        return wrong(f"{count} is too {'high' if count > right_count else 'low'}: count the {self.subject} again.")


def heavy_atom_questions(split: str, limit: int) -> list[CountQuestion]:
    return _questions(split, limit, (HEAVY_ATOMS,))


def ring_questions(split: str, limit: int) -> list[CountQuestion]:
    return _questions(split, limit, (RINGS,))


def functional_group_questions(split: str, limit: int) -> list[CountQuestion]:
    """One group a molecule, each group with as many answers as it can have, not all of them zero."""
    return _questions(split, limit, tuple(GROUPS))


def unsaturation_questions(split: str, limit: int) -> list[CountQuestion]:
    return _questions(split, limit, (UNSATURATION,))


def _questions(split: str, limit: int, subjects: tuple[str, ...]) -> list[CountQuestion]:
    questions = [
        CountQuestion(subject=subjects[stable_hash(f"group/{smiles}") % len(subjects)], smiles=smiles)
        for smiles in molecules(split)
    ]
    return take_evenly(questions, limit, kind=lambda question: f"{question.subject}/{question.reference}")


def _count(subject: str, mol: Chem.Mol) -> int:
    if subject == HEAVY_ATOMS:
        return int(CalcNumHeavyAtoms(mol))
    if subject == RINGS:
        return num_rings(mol)
    if subject == UNSATURATION:
        return _unsaturation(mol)
    return len(mol.GetSubstructMatches(_pattern(subject)))


def _unsaturation(mol: Chem.Mol) -> int:
    """Rings plus pi bonds as they are drawn, so that both bonds of a sulfone count."""
    kekulized = Chem.Mol(mol)
    Chem.Kekulize(kekulized, clearAromaticFlags=True)
    return num_rings(mol) + sum(round(bond.GetBondTypeAsDouble()) - 1 for bond in kekulized.GetBonds())


@cache
def _pattern(subject: str) -> Chem.Mol:
    return Chem.MolFromSmarts(GROUPS[subject])
