"""Which reactions are known, and what does one make of its reactants? Named templates, and substrates to run them on.

A template is a reaction SMARTS that says what happens. It has a name and conditions that a chemist would recognise it by, and the
substrates it is asked about. A reaction is kept only if the template has one outcome. Where two sites could react, or one in two
ways, there would be no main product to ask for. ``spectators`` are rests with a second group that the conditions leave alone;
they make the hard questions.

Left out: stereochemistry of the outcome, protecting groups, yields, and everything that needs a metal in the answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product

from rdkit import Chem
from rdkit.Chem import rdChemReactions

from sdpo.envs.chemistry.isomers import constitution
from sdpo.envs.chemistry.molecules import scaffold_of, split_of
from sdpo.envs.chemistry.question import Difficulty
from sdpo.envs.chemistry.selection import draw
from sdpo.envs.chemistry.smiles import parse
from sdpo.envs.chemistry.templates import ARYLS, LARGE, SMALL, TEMPLATES, Template

MAX_OUTCOMES = 50
"""Most outcomes of one run: a molecule with more sites than that has no main product."""
MAX_OF_TEMPLATE = 40
"""Reactions tried of each template and difficulty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reaction:
    """One run of a template."""

    template: str
    """A name among ``TEMPLATES``."""
    reactants: tuple[str, ...]
    product: str
    """Canonical SMILES."""
    difficulty: Difficulty

    def __str__(self) -> str:
        return f"{'.'.join(self.reactants)}>>{self.product}"


@cache
def reactions(split: str) -> tuple[Reaction, ...]:
    """Those whose product's scaffold belongs to ``split``, so that no equation is on both sides."""
    everything = (reaction for template in TEMPLATES.values() for reaction in _of_template(template))
    return tuple(one for one in everything if split_of(scaffold_of(Chem.MolFromSmiles(one.product))) == split)


def outcomes(template: str, reactants: Sequence[Chem.Mol]) -> frozenset[str]:
    """The constitutions of what the template makes of these reactants, in whichever order they are needed."""
    run = _compiled(template)
    orders = [tuple(reactants)] if len(reactants) == 1 else [tuple(reactants), tuple(reversed(reactants))]
    made = set()
    for order in orders:
        for products in run.RunReactants(order, maxProducts=MAX_OUTCOMES):
            mol = parse(Chem.MolToSmiles(products[0]))
            if mol is not None:
                made.add(constitution(mol))
    return frozenset(made)


def needed(template: str, mols: Sequence[Chem.Mol]) -> tuple[str, ...]:
    """What the template needs and none of the molecules has, in words."""
    run = _compiled(template)
    return tuple(
        need
        for number, need in enumerate(TEMPLATES[template].needs)
        if not any(mol.HasSubstructMatch(run.GetReactantTemplate(number)) for mol in mols)
    )


def _of_template(template: Template) -> Iterator[Reaction]:
    for difficulty in Difficulty:
        drawn = draw(_substrates(template, difficulty), key=lambda names: f"{template.name}/{'.'.join(names)}")
        for reactants in drawn[:MAX_OF_TEMPLATE]:
            made = outcomes(template.name, [Chem.MolFromSmiles(smiles) for smiles in reactants])
            if len(made) == 1:
                written = tuple(map(_written, reactants))
                yield Reaction(template=template.name, reactants=written, product=next(iter(made)), difficulty=difficulty)


def _substrates(template: Template, difficulty: Difficulty) -> Iterator[tuple[str, ...]]:
    """Heads with rests: small ones are easy, larger ones medium, one with a second group hard."""
    rests: list[Sequence[str]]
    larger = [rest for rest in (ARYLS if template.is_of_aryls else (*LARGE, *ARYLS)) if rest not in template.unfit]
    small = [rest for rest in (ARYLS[:3] if template.is_of_aryls else SMALL) if rest not in template.unfit]
    if difficulty is Difficulty.easy:
        rests = [small] * len(template.heads)
    elif difficulty is Difficulty.medium:
        rests = [larger] * len(template.heads)
    else:
        rests = [template.spectators, *([(*small, *larger)] * (len(template.heads) - 1))]
    for chosen in product(*rests):
        yield tuple(head + rest for head, rest in zip(template.heads, chosen, strict=True))


def _written(smiles: str) -> str:
    """Canonical, but for a Grignard reagent, whose neighbours of the metal RDKit would all put in brackets."""
    return smiles if "Mg" in smiles else Chem.MolToSmiles(Chem.MolFromSmiles(smiles))


@cache
def _compiled(template: str) -> rdChemReactions.ChemicalReaction:
    return rdChemReactions.ReactionFromSmarts(TEMPLATES[template].smarts)
