"""Which molecules are asked about, and on which side of the split does each stand?

Molecules are grown from small skeletons by putting substituents in place of hydrogens on carbon, twice at most, so that
the set is the same in every process and needs no data file. They are divided by a hash of their *formula*: isomers stay
together, so neither a molecule, nor its formula, nor the task of building that formula is ever on both sides.

Left out: charges, isotopes, stereochemistry and carbons that bear two heteroatoms, as small models write them badly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from hashlib import blake2b
from itertools import zip_longest
from typing import TypeVar

from rdkit import Chem
from rdkit.Chem.rdMolDescriptors import CalcMolFormula

SPLITS = ("train", "heldout")
MIN_HEAVY_ATOMS = 2
MAX_HEAVY_ATOMS = 10

SKELETONS = (
    *(
        "C",
        "CC",
        "CCC",
        "CCCC",
        "CCCCC",
        "CCCCCC",
        "CC(C)C",
        "CC(C)(C)C",
        "C=C",
        "C=CC",
        "C=CC=C",
        "CC#C",
        "COC",
        "CNC",
    ),
    *("C1CC1", "C1CCC1", "C1CCCC1", "C1CCCCC1", "C1CCOC1", "C1CCNC1", "C1CCOCC1", "C1CCNCC1"),
    *(
        "c1ccccc1",
        "c1ccncc1",
        "c1ccoc1",
        "c1ccsc1",
        "c1cc[nH]c1",
        "c1ccc2ccccc2c1",
        "c1ccc2[nH]ccc2c1",
        "c1ccc2c(c1)CCC2",
    ),
    *("C1CCC2CCCC2C1", "C1CC2CCC1C2", "C1CC2CC1C2", "C1CC12CC2", "C1CCC12CC2"),
)
SUBSTITUENTS = ("C", "CC", "O", "N", "F", "Cl", "Br", "S", "C=O", "C#N", "C(C)=O", "C(=O)O", "C(N)=O", "OC", "C1CC1")
"""Each is bound by its first atom."""
SECOND_SUBSTITUENTS = ("C", "O", "N", "F", "Cl", "C#N", "C=O")

Item = TypeVar("Item")


@cache
def molecules(split: str) -> Mapping[str, str]:
    """The canonical SMILES of ``split``, 2 to 10 heavy atoms each, in alphabetical order, to their formulas."""
    return {smiles: formula for smiles, formula in _everything().items() if split_of(formula) == split}


def formula_of(smiles: str) -> str:
    """The molecular formula in Hill order: ``"CCO"`` gives ``"C2H6O"``."""
    return CalcMolFormula(Chem.MolFromSmiles(smiles))


def split_of(key: str) -> str:
    """The side of the split that ``key`` belongs to, for good: about one key in five is held out."""
    return "heldout" if stable_hash(f"split/{key}") % 5 == 0 else "train"


def stable_hash(key: str) -> int:
    """64 bits that do not depend on the process, unlike the built-in ``hash``."""
    return int.from_bytes(blake2b(key.encode(), digest_size=8).digest())


def take_evenly(items: Iterable[Item], limit: int, *, key: Callable[[Item], str], kind: Callable[[Item], str]) -> list[Item]:
    """At most ``limit`` items, as many of each kind as can be: where the kind is the answer, none pays by default."""
    by_kind: dict[str, list[Item]] = {}
    for item in sorted(items, key=lambda item: stable_hash(key(item))):
        by_kind.setdefault(kind(item), []).append(item)
    rounds = zip_longest(*(by_kind[name] for name in sorted(by_kind)))
    return [item for one_of_each in rounds for item in one_of_each if item is not None][:limit]


@cache
def _everything() -> dict[str, str]:
    """Canonical SMILES of every molecule to its formula."""
    skeletons = [Chem.MolFromSmiles(smiles) for smiles in SKELETONS]
    grown = _distinct(skeletons)
    once = _distinct(_grow(grown.values(), SUBSTITUENTS))
    twice = _distinct(_grow(once.values(), SECOND_SUBSTITUENTS, max_heavy_atoms=7))
    everything = sorted((grown | once | twice).items())
    return {smiles: CalcMolFormula(mol) for smiles, mol in everything if mol.GetNumAtoms() >= MIN_HEAVY_ATOMS}


def _distinct(mols: Iterable[Chem.Mol]) -> dict[str, Chem.Mol]:
    return {Chem.MolToSmiles(mol): mol for mol in mols}


def _grow(mols: Iterable[Chem.Mol], substituents: Sequence[str], max_heavy_atoms: int = MAX_HEAVY_ATOMS) -> Iterator[Chem.Mol]:
    """Every molecule with one hydrogen replaced by a substituent, one site of each symmetry class."""
    parts = [Chem.MolFromSmiles(smiles) for smiles in substituents]
    for mol in mols:
        sites = _sites(mol)
        for part in parts:
            if mol.GetNumAtoms() + part.GetNumAtoms() > max_heavy_atoms:
                continue
            for site in sites:
                grown = Chem.RWMol(Chem.CombineMols(mol, part))
                grown.AddBond(site, mol.GetNumAtoms(), Chem.BondType.SINGLE)
                Chem.SanitizeMol(grown)
                yield grown


def _sites(mol: Chem.Mol) -> list[int]:
    """Carbons with a hydrogen to give, but for aliphatic ones that already bear a heteroatom (no gem-diols)."""
    site_of_class: dict[int, int] = {}
    for atom, symmetry_class in zip(mol.GetAtoms(), Chem.CanonicalRankAtoms(mol, breakTies=False), strict=True):
        bears_heteroatom = any(neighbour.GetSymbol() != "C" for neighbour in atom.GetNeighbors())
        if atom.GetSymbol() == "C" and atom.GetTotalNumHs() and (atom.GetIsAromatic() or not bears_heteroatom):
            site_of_class.setdefault(symmetry_class, atom.GetIdx())
    return list(site_of_class.values())
