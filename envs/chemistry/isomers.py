"""The same atoms, joined otherwise: the family ``isomers`` asks for a constitutional isomer, on hard one with a given group."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rdkit import Chem
from rdkit.Chem.rdMolDescriptors import CalcMolFormula

from sdpo.envs.answers import CLOSE, OPEN
from sdpo.envs.chemistry.answers import Unreadable
from sdpo.envs.chemistry.formulas import counts_of, difference
from sdpo.envs.chemistry.groups import groups_in
from sdpo.envs.chemistry.molecules import difficulty_of, formula_of, molecule, molecules, stable_hash
from sdpo.envs.chemistry.question import RIGHT, Difficulty, Judgement, unreadable, wrong
from sdpo.envs.chemistry.selection import draw, take_evenly
from sdpo.envs.chemistry.smiles import read_molecule


@dataclass(frozen=True, slots=True, kw_only=True)
class IsomerQuestion:
    """Write an isomer of ``smiles``; ``reference`` is one."""

    smiles: str
    reference: str
    group: str | None
    """What the isomer has to have and ``smiles`` has not, one of ``groups.GROUPS``; None: any isomer will do."""

    @property
    def key(self) -> str:
        return self.smiles

    @property
    def difficulty(self) -> Difficulty:
        return difficulty_of(self.smiles)

    @property
    def prompt(self) -> str:
        with_group = "" if self.group is None else f" with at least one {self.group}"
        return (
            f"Write a constitutional isomer{with_group} of the molecule with the SMILES {self.smiles} : the same molecular "
            f"formula, but atoms connected otherwise. Answer with one SMILES, like {OPEN}CCCCCCCCCCCCO{CLOSE}."
        )

    def judge(self, answer: str) -> Judgement:
        mol = read_molecule(answer)
        if isinstance(mol, Unreadable):
            return unreadable(mol)
        formula, asked = CalcMolFormula(mol), formula_of(self.smiles)
        if formula != asked:
            off = difference(counts_of(formula), counts_of(asked))
            return wrong(f"It is no isomer: its formula is {formula}, that of {self.smiles} is {asked}, so {off}.")
        if constitution(mol) == constitution(molecule(self.smiles)):
            return wrong(
                "It is the very molecule that was given, written another way or turned in space: connect its atoms otherwise."
            )
        if self.group is not None and self.group not in groups_in(mol):
            found = ", ".join(groups_in(mol)) or "none of the common ones"
            return wrong(f"It is an isomer, but it has no {self.group}; the groups it has: {found}.")
        return RIGHT


def constitution(mol: Chem.Mol) -> str:
    """Canonical SMILES with stereochemistry left out, and hydrogens that were written as atoms for its sake."""
    return Chem.MolToSmiles(Chem.RemoveAllHs(mol), isomericSmiles=False)


def isomer_questions(split: str, limit: int) -> list[IsomerQuestion]:
    return take_evenly(_candidates(split), limit, kind=lambda question: question.group or formula_of(question.smiles))


def _candidates(split: str) -> Iterator[IsomerQuestion]:
    """Each molecule that has an isomer on the same side, with one of its isomers."""
    by_formula: dict[str, list[str]] = {}
    for smiles, formula in molecules(split).items():
        by_formula.setdefault(formula, []).append(smiles)
    for isomers in by_formula.values():
        for smiles in isomers:
            others = draw((other for other in isomers if other != smiles), key=lambda other: f"{smiles}/{other}")
            if difficulty_of(smiles) is not Difficulty.hard:
                yield from (IsomerQuestion(smiles=smiles, reference=other, group=None) for other in others[:1])
                continue
            for other in others:
                new = sorted(set(groups_in(molecule(other))) - set(groups_in(molecule(smiles))))
                if new:
                    yield IsomerQuestion(smiles=smiles, reference=other, group=new[stable_hash(smiles) % len(new)])
                    break
