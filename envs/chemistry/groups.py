"""Which functional groups does a molecule have? Names for feedback and for what a reaction needs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from rdkit import Chem

GROUPS: Mapping[str, str] = {
    "carboxylic acid": "[CX3](=O)[OX2H]",
    "ester": "[CX3](=O)[OX2H0][#6]",
    "amide": "[CX3](=O)[NX3]",
    "acyl chloride": "[CX3](=O)Cl",
    "aldehyde": "[CX3;H1,H2]=[OX1;!$(O=C[O,N])]",
    "ketone": "[#6][CX3](=O)[#6]",
    "alcohol": "[OX2H][CX4]",
    "phenol": "[OX2H]c",
    "ether": "[OX2;!$(OC=O)]([#6])[#6]",
    "thiol": "[SX2H]",
    "amine": "[NX3;!$(N[C,S]=[O,S,N])][#6]",
    "nitrile": "[CX2]#[NX1]",
    "alkene": "[CX3]=[CX3]",
    "alkyne": "[CX2]#[CX2]",
    "bromine atom": "[Br]",
    "boronic acid": "[BX3]([OX2H])[OX2H]",
}
"""Name to SMARTS; aromatic atoms are in none but the phenol, ether oxygen of a ring counts."""


def groups_in(mol: Chem.Mol) -> tuple[str, ...]:
    """The names of the groups above that the molecule has, in their order: acetic acid gives ``("carboxylic acid",)``."""
    return tuple(name for name in GROUPS if mol.HasSubstructMatch(_pattern(name)))


@cache
def _pattern(name: str) -> Chem.Mol:
    return Chem.MolFromSmarts(GROUPS[name])
