"""What comes of a reaction, and what goes into it? The families ``product`` (forwards) and ``retrosynthesis`` (one step back).

A product is compared as a constitution. Precursors are judged by running the template forwards on them. Any two that give the
target are right, not only those that the question was made from.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from rdkit import Chem
from rdkit.Chem.rdMolDescriptors import CalcMolFormula

from sdpo.envs.answers import CLOSE, OPEN
from sdpo.envs.chemistry.answers import Unreadable
from sdpo.envs.chemistry.formulas import counts_of, difference
from sdpo.envs.chemistry.groups import GROUPS, groups_in
from sdpo.envs.chemistry.isomers import constitution
from sdpo.envs.chemistry.molecules import molecule
from sdpo.envs.chemistry.question import RIGHT, Difficulty, Judgement, unreadable, wrong
from sdpo.envs.chemistry.reactions import Reaction, needed, outcomes, reactions
from sdpo.envs.chemistry.selection import take_evenly
from sdpo.envs.chemistry.smiles import read_molecule, read_molecules
from sdpo.envs.chemistry.templates import TEMPLATES

_ARROW = re.compile(r"\s*(?:>>|[-=]+>|→|⟶)\s*")
"""Between the two sides, where an answer is the whole reaction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductQuestion:
    """What is the main product of ``reaction``?"""

    reaction: Reaction

    @property
    def key(self) -> str:
        return f"{self.reaction.template}: {self.reaction}"

    @property
    def difficulty(self) -> Difficulty:
        return self.reaction.difficulty

    @property
    def prompt(self) -> str:
        template = TEMPLATES[self.reaction.template]
        return (
            f"What is the main organic product of this reaction: {template.name} ({template.conditions}) of "
            f"{' with '.join(self.reaction.reactants)} ? Answer with one SMILES, like {OPEN}CCCCCCCCCCCCO{CLOSE}."
        )

    @property
    def reference(self) -> str:
        return self.reaction.product

    def judge(self, answer: str) -> Judgement:
        mol = read_molecule(_ARROW.split(answer)[-1])
        if isinstance(mol, Unreadable):
            return unreadable(mol)
        if constitution(mol) == self.reaction.product:
            return RIGHT
        if constitution(mol) in self.reaction.reactants:
            return wrong("This is one of the starting materials, unchanged: write what the reaction makes of it.")
        return wrong(_compared(mol, molecule(self.reaction.product), "the product"))


@dataclass(frozen=True, slots=True, kw_only=True)
class PrecursorsQuestion:
    """Which two molecules give the product of ``reaction`` by its template?"""

    reaction: Reaction

    @property
    def key(self) -> str:
        return f"{self.reaction.template}: {self.reaction.product}"

    @property
    def difficulty(self) -> Difficulty:
        return self.reaction.difficulty

    @property
    def prompt(self) -> str:
        template = TEMPLATES[self.reaction.template]
        return (
            f"Plan one step: which two molecules give {self.reaction.product} by {template.name} ({template.conditions})? "
            f"Answer with both SMILES, separated by a dot, like {OPEN}CCCCCCCCCCCCO.CCCCCCCCCCCCBr{CLOSE}."
        )

    @property
    def reference(self) -> str:
        return ".".join(self.reaction.reactants)

    def judge(self, answer: str) -> Judgement:
        target = self.reaction.product
        given, *made_of_it = _ARROW.split(answer)
        mols = read_molecules(given, len(self.reaction.reactants))
        if isinstance(mols, Unreadable):
            return unreadable(mols)
        if made_of_it and [_constitution_of(side) for side in made_of_it] != [target]:
            return unreadable(Unreadable("The reaction in the answer does not end at the target: write the two precursors only."))
        if target in map(constitution, mols):
            return wrong("One of the two is the target itself: name what it is made from.")
        made = outcomes(self.reaction.template, mols)
        if target in made:
            return RIGHT
        if made:
            off = _compared(Chem.MolFromSmiles(min(made)), molecule(target), "the target")
            return wrong(f"These two do react by {self.reaction.template}, but to another molecule. {off}")
        needs = TEMPLATES[self.reaction.template].needs
        missing = needed(self.reaction.template, mols)
        if missing:
            return wrong(
                f"These two do not react by {self.reaction.template}: neither has the {' or the '.join(missing)} it needs."
            )
        return wrong(
            f"These two do not react by {self.reaction.template}: it needs one with the {needs[0]} and another one with the "
            f"{needs[1]}, where the conditions allow it to react."
        )


def product_questions(split: str, limit: int) -> list[ProductQuestion]:
    questions = [ProductQuestion(reaction=reaction) for reaction in reactions(split)]
    return take_evenly(questions, limit, kind=lambda question: question.reaction.template)


def retrosynthesis_questions(split: str, limit: int) -> list[PrecursorsQuestion]:
    """One a target and template."""
    questions = [PrecursorsQuestion(reaction=one) for one in reactions(split) if TEMPLATES[one.template].can_be_planned]
    first_of_key = {question.key: question for question in reversed(questions)}
    return take_evenly(first_of_key.values(), limit, kind=lambda question: question.reaction.template)


def _constitution_of(answer: str) -> str | None:
    mol = read_molecule(answer)
    return None if isinstance(mol, Unreadable) else constitution(mol)


def _compared(mol: Chem.Mol, right: Chem.Mol, name: str) -> str:
    """How a molecule differs from the right one: its functional groups first, then its atoms, then how they are joined."""
    groups, right_groups = groups_in(mol), groups_in(right)
    surplus = [group for group in groups if group not in right_groups]
    missing = [group for group in right_groups if group not in groups]
    said = []
    if surplus:
        said.append(f"It has {_listed(surplus)}, which {name} has not")
    if missing:
        said.append(f"It lacks {_listed(missing)}, which {name} has")
    formula = CalcMolFormula(mol)
    off = difference(counts_of(formula), counts_of(CalcMolFormula(right)))
    if off:
        said.append(f"Against {name} its formula {formula} has {off}")
    elif not said:
        said.append(f"It has the atoms and the functional groups of {name}, but they are joined at other places")
    else:
        said.append(f"Its formula is that of {name}")
    return ". ".join(said) + "."


def _listed(groups: list[str]) -> str:
    assert set(groups) <= set(GROUPS)
    return " and ".join(f"{'an' if group[0] in 'aeiou' else 'a'} {group}" for group in groups)
